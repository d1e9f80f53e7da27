"""The recipe of a run: options, schedule, record, and the comparison with a checkpoint's recipe."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from math import cos, lcm, pi
from pathlib import Path
from typing import Any

import torch

from common.data.degradation import NONE, without_folder
from common.data.options import add_patch_arguments
from common.errors import UserError
from common.files import replace_file, unused
from common.machine import hardware, uncommitted_changes, versions
from common.options import Arguments, Group, Parser, real, whole

RECORD = "args.json"
CHANGES = "uncommitted.patch"


def add_recipe_arguments(
    parser: Parser,
    description: str,
    *,
    batch_size: int,
    lr_scheduler: str,
    lr_step_size: int,
    lr_gamma: float,
    lr_warmup_steps: int = 0,
) -> Group:
    """Adds the options of the recipe that mean the same in all scripts.

    Args:
        parser: Parser of the script.
        description: Where the defaults come from.
        batch_size: Default of `--batch_size`; the arguments below are defaults as well.
        lr_scheduler: "step" or "cosine".
        lr_step_size: Optimizer steps.
        lr_gamma: Factor in (0, 1].
        lr_warmup_steps: Optimizer steps.

    Returns:
        The group `recipe`, to which a script adds the options of its own.
    """
    recipe = parser.group("recipe", description)
    recipe.add_argument(
        "--batch_size",
        type=whole(most=1_000_000),
        default=batch_size,
        help="patches of one optimizer step, over all processes",
    )
    recipe.add_argument(
        "--lr_scheduler",
        choices=["step", "cosine"],
        default=lr_scheduler,
        help="step: the learning rate is multiplied by --lr_gamma every --lr_step_size steps; "
        "cosine: it falls to zero at --max_train_steps",
    )
    recipe.add_argument(
        "--lr_step_size", type=whole(), default=lr_step_size, help="steps between two falls"
    )
    recipe.add_argument(
        "--lr_gamma",
        type=real(above=0, most=1),
        default=lr_gamma,
        help="factor of the learning rate at each fall",
    )
    recipe.add_argument(
        "--lr_warmup_steps",
        type=whole(least=0),
        default=lr_warmup_steps,
        help="steps in which the learning rate rises linearly, at the beginning",
    )
    recipe.add_argument(
        "--ema_decay",
        type=real(least=0, below=1),
        default=0.0,
        help="validate and save an exponential moving average of the weights, 0.999 for example "
        "(default: 0, no average)",
    )
    recipe.add_argument(
        "--seed",
        type=whole(least=0, most=2**32 - 1),
        default=0,
        help="seed of the fresh weights and of the choice of patches",
    )
    add_patch_arguments(recipe)
    parser.checks.append(_check_patch_size)
    return recipe


def _check_patch_size(args: argparse.Namespace) -> Iterator[str]:
    scales = args.scale if isinstance(args.scale, list) else [args.scale]
    divisor = lcm(*scales)
    if args.patch_size and args.patch_size % divisor:
        factors = " ".join(map(str, sorted(set(scales))))
        nearest = -(-args.patch_size // divisor) * divisor
        yield (
            f"--patch_size {args.patch_size} is not a multiple of --scale {factors}; try {nearest}."
        )


def learning_rate_factor(args: argparse.Namespace) -> Callable[[int], float]:
    """Schedule of the command line as a factor of the learning rate, for `LambdaLR`."""

    def factor(step: int) -> float:
        if step < args.lr_warmup_steps:
            return (step + 1) / args.lr_warmup_steps
        if args.lr_scheduler == "step":
            return args.lr_gamma ** (step // args.lr_step_size)
        steps = max(1, args.max_train_steps - args.lr_warmup_steps)
        progress = min((step - args.lr_warmup_steps) / steps, 1.0)
        return (1 + cos(pi * progress)) / 2

    return factor


def write_record(
    args: Arguments, device: torch.device, processes: int, recipes: Sequence[dict[str, Any]] = ()
) -> None:
    """Writes `args.json`: command, options, versions, hardware; and code that no commit has.

    Args:
        args: Options of the run.
        device: Device that computes.
        processes: Number of processes.
        recipes: Earlier recipes of a run that changed its own.

    Raises:
        OSError: The files cannot be written.
    """
    record: dict[str, Any] = {"command": args.command, "args": vars(args), **versions()}
    record["hardware"] = hardware(device, processes)
    if recipes:
        record["recipes"] = list(recipes)
    content = json.dumps(record, indent=2, default=str) + "\n"
    for name in (RECORD, CHANGES):
        if (path := args.output_dir / name).is_dir():  # which no file can replace
            path.rename(unused(path.with_name(f"{name}.damaged")))
    replace_file(args.output_dir / RECORD, content.encode())
    if changes := uncommitted_changes():
        replace_file(args.output_dir / CHANGES, changes.encode())
    else:
        (args.output_dir / CHANGES).unlink(missing_ok=True)


def read_record(folder: Path) -> dict[str, Any]:
    """Reads the `args.json` of a run or of a checkpoint.

    Raises:
        UserError: There is no such record.
    """
    try:
        record = json.loads((folder / RECORD).read_text("utf-8-sig"))
        if isinstance(record["args"], dict):
            return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(
        f"{folder / RECORD} is not the record of a run, or is damaged, so nobody knows by which "
        "options to go on. Begin in another --output_dir, with --init_from if there is a model."
    )


def check_recipe(args: Arguments, checkpoint: Path) -> list[str]:
    """Compares the recipe of a command with that of a checkpoint.

    Half of one recipe and half of another would be neither.

    Returns:
        A line for each difference. Without `--allow_recipe_change` there are none.

    Raises:
        UserError: There are differences, and they are not allowed.
    """
    # (Checkpoints of earlier versions do not name a degradation, and had none.)
    before = {"degradation": NONE} | read_record(checkpoint)["args"]
    differences = [
        f"--{key} was {before[key]} and is {value}"
        for key, value in vars(args).items()
        if key in args.recipe and key in before and _differ(key, before[key], value)
    ]
    return allow_differences(differences, args, checkpoint)


def _differ(key: str, before: object, value: object) -> bool:
    if key == "degradation":
        return without_folder(f"{before}") != without_folder(f"{value}")
    return before != value


def allow_differences(
    differences: Sequence[str], args: argparse.Namespace, checkpoint: Path
) -> list[str]:
    """Returns the differences if there are none or `--allow_recipe_change` is given.

    Raises:
        UserError: There are differences, and they are not allowed.
    """
    if differences and not args.allow_recipe_change:
        raise UserError(
            f"Cannot resume from {checkpoint} by another recipe: {', '.join(differences)}. Give "
            "the same options, start a new run with --init_from and another --output_dir, or go on "
            "with the new recipe by --allow_recipe_change."
        )
    return list(differences)
