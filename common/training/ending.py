"""The end of a run in words: what it has reached, what that is worth, and what to do next."""

import argparse
import shlex

from huggingface_hub import constants

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
    return "\n".join([*lines, f"The model is in {args.output_dir}. What next:", *_next(args)])


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
