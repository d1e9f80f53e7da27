"""The end of a run: what it has reached, what that is worth, what to do next, and its curves."""

import argparse
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants

from common.card import CARD
from common.curves import CURVES, draw_curves, read_curves
from common.errors import UserError
from common.files import replace_file
from common.record import of_steps
from common.training.folder import way_on
from common.training.schedule import decay_start, longer_by_wsd
from common.training.validation import Validator


def ending(args: argparse.Namespace, validator: Validator) -> str:
    """Says what a run has reached, a line each.

    Args:
        args: Options of the run.
        validator: Scores of the saved weights and of bicubic.
    """
    lines = [validator.result()]
    best, bicubic = validator.best.get("psnr_y"), validator.bicubic.get("psnr_y")
    # (SRGAN's second phase costs PSNR, as it must.)
    if validator.keeps_best and best is not None and bicubic is not None and best < bicubic:
        lines.append(
            "That is worse than bicubic, which needs no network: the run was too short, or its "
            "--learning_rate does not suit it. Usually more --max_train_steps help."
        )
    lines += [f"The model is in {args.output_dir}. What next:", *_next(args)]
    if (kept := args.output_dir / f"checkpoint-{decay_start(args)}").is_dir():
        lines.append(f"The rate began to fall after {kept.name}. {longer_by_wsd(f'{kept}')}.")
    return "\n".join(lines)


def _next(args: argparse.Namespace) -> list[str]:
    """Commands for somebody who has a model now, and what each is for."""
    folder = shlex.quote(f"{args.output_dir}")
    scores, purpose = f"python evaluate.py --model {folder}", "scores on Set5 and Set14, of the Hub"
    if args.dataset_name in (None, "sample") or constants.HF_HUB_OFFLINE:  # there may be no Hub
        scores += " --benchmarks sample"
        purpose = "scores; without --benchmarks on Set5 and Set14, of the Hub"
    commands = {
        scores: purpose,
        f"python upscale.py photo.jpg --model {folder} --comparison": "a picture, beside bicubic",
    }
    if "tensorboard" in args.report_to:
        commands[f"tensorboard --logdir {folder}"] = "curves, and the validation pictures"
    width = max(map(len, commands))
    return [f"    {command:{width}}  # {purpose}" for command, purpose in commands.items()]


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
        f"{stop.name}: stopped at step {step:,}{of_steps(total_steps)}, which is saved. Go on by "
        "the same command with --resume_from_checkpoint latest."
    )


def write_curves(folder: Path) -> str:
    """Draws the curves of a run beside its card, which shows them.

    Returns:
        Reason why that cannot be, "" if it is done.
    """
    try:
        picture = draw_curves({folder.resolve().name: read_curves(folder)})
        replace_file(folder / CURVES, picture.encode())
        card = (folder / CARD).read_text("utf-8")
        heading, link = "## Results\n\n", f"![Loss and PSNR of the training]({CURVES})\n\n"
        if heading in card and link not in card:
            replace_file(folder / CARD, card.replace(heading, heading + link, 1).encode())
    except (OSError, ValueError, UserError) as error:
        return f"The curves of the run could not be put into its card: {error}"
    return ""
