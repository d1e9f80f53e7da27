"""What a run says and leaves at its end."""

import signal
from collections.abc import Mapping
from pathlib import Path

from common.card import CARD
from common.curves import CURVES, draw_curves, read_curves
from common.errors import UserError
from common.files import replace_file
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


def done_but_unsaved(output_dir: Path, unsaved: Mapping[str, str]) -> str:
    """Says what the last step could not save, by its name, and why."""
    failures = "; ".join(f"{name} ({error})" for name, error in unsaved.items())
    return (
        f"All steps are done, but this could not be saved in {output_dir}: {failures}. Make room "
        f"there. {way_on(output_dir)}"
    )


def stopped_and_saved(stop: signal.Signals, step: int, total_steps: int) -> str:
    """Says how a run goes on that somebody asked to stop."""
    return (
        f"{stop.name}: stopped at step {step} of {total_steps}, which is saved. Go on by the same "
        "command with --resume_from_checkpoint latest."
    )


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
