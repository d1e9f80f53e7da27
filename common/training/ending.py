"""What a run says and leaves at its end."""

import signal
from collections.abc import Mapping
from pathlib import Path

from common.card import CARD
from common.curves import CURVES, draw_curves, read_curves
from common.errors import UserError
from common.files import replace_file
from common.hub import push_command, push_model
from common.options import Arguments
from common.training.folder import way_on
from common.training.schedule import decay_start, longer_by_wsd


def last_words(args: Arguments, result: str) -> str:
    """Says where the model is, how to evaluate it and, by `wsd`, how to train longer."""
    benchmarks = " --benchmarks sample" if args.dataset_name == "sample" else ""
    text = (
        f"{result}\nThe model is in {args.output_dir}. Evaluate it with\n"
        f"    python evaluate.py --model {args.output_dir}{benchmarks}"
    )
    if (kept := args.output_dir / f"checkpoint-{decay_start(args)}").is_dir():
        text += f"\nThe rate fell since {kept.name}. {longer_by_wsd(f'{kept}')}."
    return text


def write_curves(folder: Path) -> str:
    """Draws the curves of a run beside its card, which shows them.

    Returns:
        Reason why that cannot be, "" if it is done.
    """
    try:
        picture = draw_curves({folder.resolve().name: read_curves(folder)})
        replace_file(folder / CURVES, picture.encode())
        card = (folder / CARD).read_text()
        heading, link = "## Results\n\n", f"![Loss and PSNR of the training]({CURVES})\n\n"
        if heading in card and link not in card:
            replace_file(folder / CARD, card.replace(heading, heading + link, 1).encode())
    except (OSError, ValueError, UserError) as error:
        return f"{CURVES} could not be written: {error}"
    return ""


def not_saved(folder: Path, failures: Mapping[str, str]) -> str:
    """Says what is missing in the folder of a run whose steps are done.

    Args:
        folder: Output folder.
        failures: Reason by what could not be saved.
    """
    reasons = "; ".join(f"{name} ({error})" for name, error in failures.items())
    return (
        f"All steps are done, but this could not be saved in {folder}: {reasons}. Make room there. "
        f"{way_on(folder)}"
    )


def push(folder: Path, name: str, private: bool, stop: signal.Signals | None) -> str:
    """Pushes the model to the Hub, and says where it is now.

    Args:
        folder: Output folder.
        name: Name on the Hub.
        private: Whether a model that is new there is for its owner alone.
        stop: Signal that came while the last step was validated and saved.

    Raises:
        UserError: Somebody asked to stop, or the push failed.
    """
    if stop:
        again = push_command(folder, name, private)
        raise UserError(f"{stop.name}: the model is not pushed. Push it by\n    {again}")
    return f"It is on the Hub now: {push_model(folder, name, private)}"
