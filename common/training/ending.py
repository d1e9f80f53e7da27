"""What a run says and leaves at its end."""

from pathlib import Path

from common.card import CARD
from common.curves import CURVES, draw_curves, read_curves
from common.errors import UserError
from common.files import replace_file
from common.options import Arguments
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
