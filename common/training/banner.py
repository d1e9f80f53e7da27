"""The banner: what a run is about to do, printed before its first step."""

import argparse
from typing import TYPE_CHECKING

import torch

from common.data.load import TrainingPictures
from common.network import SuperResolutionModel
from common.options import LARGEST
from common.tables import plural

if TYPE_CHECKING:
    from accelerate import Accelerator


# Options of a line of the banner, and what stands before their values.
RECIPE = {"recipe": "", "optimizer": "", "learning_rate": "rate ", "lr_scheduler": "schedule "}


def device_in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {plural(torch.get_num_threads(), 'thread')}"
    return device.type


def banner(
    args: argparse.Namespace,
    model: SuperResolutionModel,
    pictures: TrainingPictures,
    steps: range,
    accelerator: "Accelerator",
) -> str:
    """Facts about a run, a line each.

    Args:
        args: Options of the run.
        model: Network to train.
        pictures: Pictures to train and to validate on.
        steps: Optimizer steps that are left.
        accelerator: Accelerate's, for processes, device and precision.
    """
    scales = [benchmark.scale for benchmark in pictures.validation]
    factors = " ".join(f"x{scale}" for scale in scales)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sides = [args.patch_size // scale for scale in scales]
    batch = f"{args.batch_size} patches"
    if args.gradient_accumulation_steps > 1:
        batch += f" in {args.gradient_accumulation_steps} parts"
    if accelerator.num_processes > 1:
        batch += f" over {accelerator.num_processes} processes"
    device = f"{device_in_words(accelerator.device)}, "
    precision = accelerator.mixed_precision
    device += "float32" if precision == "no" else precision
    if args.compile:
        device += ", compiled" + ("" if args.compile == "default" else f" by {args.compile}")
    lr, lr_to_validate = pictures.lr, pictures.validation[0].lr
    if lr_to_validate != lr:
        lr += f"; to validate on, {lr_to_validate}"
    recipe = [
        f"{word}{vars(args)[key]}"
        for key, word in RECIPE.items()
        if args.max_train_steps or key != "lr_scheduler"  # which an earlier phase has not
    ]
    length = f"{steps.start:,} to {steps.stop:,}"
    if 0 < args.max_train_steps <= args.lr_warmup_steps:
        length += f", all in the warm-up of {args.lr_warmup_steps:,}, in which the rate rises"
    if args.max_train_minutes and steps.start < args.lr_warmup_steps - 1:
        bound = f"{steps.stop:,}, or " if steps.stop < LARGEST else ""
        length = f"{steps.start:,} to {bound}what {args.max_train_minutes:g} minutes allow"
    rows = {
        "Network": f"{type(model).__name__} {factors}, {parameters:,} parameters",
        "Recipe": ", ".join(recipe),
        "Pictures": f"{pictures.patches.in_banner()}, {len(pictures.validation[0])} to validate on",
        "LR": lr,
        "Patches": f"LR {' or '.join(f'{side}x{side}' for side in sides)}, "
        f"HR {args.patch_size}x{args.patch_size}"
        f"{', their channels in any order' if args.permute_channels else ''}",
        "Batch": batch,
        "Steps": length,
        "Device": device,
        "Output": f"{args.output_dir}",
    }
    return "\n".join(f"{name:>10}: {value}" for name, value in rows.items())
