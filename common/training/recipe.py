"""The recipe of a run: options, named recipes, record, and the comparison with a checkpoint's."""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import lcm
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.data.degradation import NONE, without_folder
from common.data.options import add_patch_arguments
from common.errors import UserError
from common.files import replace_file, unused
from common.machine import hardware, uncommitted_changes, versions
from common.options import LARGEST, Arguments, Group, Parser, Recipe, real, whole
from common.record import RECORD, read_record
from common.training.optimizer import BETAS
from common.training.schedule import (
    add_schedule_arguments,
    decay_difference,
    decay_start,
    learning_rate_factor,
    milestones,
)

CHANGES = "uncommitted.patch"
PAPER, MODERN = "paper", "modern"
# What checkpoints have that were made before these options were there.
EARLIER = {
    "degradation": NONE,
    "permute_channels": False,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "clip_grad_norm": None,
    "ms_ssim_weight": 0.0,
    "fft_weight": 0.0,
}


def add_recipe_arguments(
    parser: Parser,
    description: str,
    *,
    batch_size: int,
    lr_scheduler: str,
    lr_step_size: int,
    lr_gamma: float,
    recipes: Mapping[str, Recipe],
    lr_warmup_steps: int = 0,
) -> Group:
    """Adds the options of the recipe that mean the same in all scripts.

    Args:
        parser: Parser of the script.
        description: Where the defaults come from.
        batch_size: Default of `--batch_size`; the arguments below are defaults as well.
        lr_scheduler: "step", "multistep", "cosine" or "wsd".
        lr_step_size: Optimizer steps.
        lr_gamma: Factor in (0, 1].
        recipes: Named recipes beside the defaults, which are "paper". `--help` shows docstrings.
        lr_warmup_steps: Optimizer steps.

    Returns:
        The group `recipe`, to which a script adds the options of its own.
    """
    recipe = parser.group("recipe", description)
    parser.recipes.update(recipes)
    what = "".join(f"; {name}: {function.__doc__}" for name, function in recipes.items())
    recipe.add_argument(
        "--recipe",
        choices=[PAPER, *recipes],
        default=PAPER,
        recipe_if=lambda args: False,  # the options that it sets are compared
        help=f"defaults, which any option overrides; {PAPER}: those that are named here{what}",
    )
    recipe.add_argument(
        "--batch_size",
        type=whole(most=1_000_000),
        default=batch_size,
        help="patches of one optimizer step, over all processes",
    )
    add_schedule_arguments(
        parser,
        recipe,
        lr_scheduler=lr_scheduler,
        lr_step_size=lr_step_size,
        lr_gamma=lr_gamma,
        lr_warmup_steps=lr_warmup_steps,
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


def modern(
    learning_rate: float, first_phase_steps: Callable[[argparse.Namespace], int] = lambda args: 0
) -> Recipe:
    """Makes the recipe by which small networks of 2024 to 2026 are trained, for any length.

    AdamW without weight decay and with a shorter memory, a warm-up over 4 % of the steps, five
    halvings at the usual shares, and an average of the weights (PFT-light and HiT do so over
    500,000 steps).

    Args:
        learning_rate: Rate of this network.
        first_phase_steps: Function that gives the steps of a phase at a constant rate, before those
            of `--max_train_steps`.
    """

    def recipe(args: argparse.Namespace) -> dict[str, Any]:
        settings = {
            "optimizer": "adamw",
            "learning_rate": learning_rate,
            "weight_decay": 0.0,
            "betas": [0.9, 0.99],
            "ema_decay": 0.99,
        }
        if args.optimizer == "sgd":  # whose rates and decays are of another size
            for name in ("optimizer", "learning_rate", "weight_decay", "betas"):
                del settings[name]
        steps = args.max_train_steps
        if steps:  # which alone have a schedule
            settings |= {"lr_scheduler": "multistep", "lr_gamma": 0.5}
        if not args.max_train_minutes:  # by which their number is not known yet
            if steps:
                settings |= {"lr_milestones": milestones(steps), "lr_warmup_steps": steps // 25}
            # Over a twentieth of a short run, whose average would be of its beginning otherwise.
            last_phase = max(20, steps or first_phase_steps(args))
            settings["ema_decay"] = min(0.999, round(1 - 20 / last_phase, 4))
        return settings

    recipe.__doc__ = (
        f"AdamW with a rate of {learning_rate:g}, betas 0.9 0.99 and no weight decay, halved at "
        "50, 80, 90, 95 and 98 % of the steps after a warm-up of 4 %, --ema_decay 0.999, less "
        "below 20,000 steps"
    )
    return recipe


def fixed_recipe(**defaults: Any) -> Recipe:
    """Makes a recipe of values that do not depend on other options."""

    def recipe(args: argparse.Namespace) -> dict[str, Any]:
        return defaults

    recipe.__doc__ = ", ".join(f"--{name} {value}" for name, value in defaults.items())
    return recipe


def write_record(
    args: Arguments, device: torch.device, processes: int, recipes: Sequence[NamedTuple] = ()
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
        record["recipes"] = [recipe._asdict() for recipe in recipes]
    content = json.dumps(record, indent=2, default=str) + "\n"
    for name in (RECORD, CHANGES):
        if (path := args.output_dir / name).is_dir():  # which no file can replace
            path.rename(unused(path.with_name(f"{name}.damaged")))
    replace_file(args.output_dir / RECORD, content.encode())
    if changes := uncommitted_changes():
        replace_file(args.output_dir / CHANGES, changes.encode())
    else:
        (args.output_dir / CHANGES).unlink(missing_ok=True)


def read_recipe(folder: Path) -> dict[str, Any]:
    """Reads the `args.json` of a run or of a checkpoint that is to go on.

    Raises:
        UserError: There is no such record.
    """
    return read_record(
        folder,
        "by which options to go on. Begin in another --output_dir, with --init_from if there is a "
        "model.",
    )


def keep_origin(args: Arguments, checkpoint: Path | None) -> None:
    """Sets `--init_from` and `--revision` to those of the checkpoint's run.

    The weights are those of the checkpoint, whatever a command that resumes it names or leaves out.
    """
    if checkpoint:
        before = read_recipe(checkpoint)["args"]
        args.init_from, args.revision = before.get("init_from"), before.get("revision")


def check_network(args: Arguments, checkpoint: Path) -> None:
    """Refuses a checkpoint that another script has written, whose options mean other things.

    (Checkpoints of older versions do not tell their script.)

    Raises:
        UserError: The checkpoint is of another network.
    """
    commands = (getattr(args, "command", ""), f"{read_recipe(checkpoint).get('command')}")
    scripts = [re.match(r"python (train_(\w+)\.py)\b", command) for command in commands]
    ours, theirs = scripts
    if ours and theirs and ours[1] != theirs[1]:
        name, other = ours[2].upper(), theirs[2].upper()
        raise UserError(
            f"Cannot resume from {checkpoint}: it is of {other}, by {theirs[1]}, and {ours[1]} "
            f"trains {name}. To train {name}, name another --output_dir and no checkpoint of "
            f"{other}. To go on with {other}, start {theirs[1]}."
        )


def check_recipe(args: Arguments, checkpoint: Path) -> list[str]:
    """Compares the recipe of a command with that of a checkpoint.

    Half of one recipe and half of another would be neither.

    Returns:
        A line for each difference. Without `--allow_recipe_change` there are none.

    Raises:
        UserError: There are differences, and they are not allowed.
    """
    record = read_recipe(checkpoint)
    before = EARLIER | record["args"]
    first, new = (options.get("pretrain_steps") or 0 for options in (before, vars(args)))
    if args.allow_recipe_change and first < record.get("step", 0) < new:
        raise UserError(
            f"Cannot resume from {checkpoint}: it is past the first phase, of {first} steps, and "
            f"--pretrain_steps {new} would go back to it with weights of the second. Give "
            f"--pretrain_steps {first}. To train the first phase longer, begin in another "
            "--output_dir, with --init_from."
        )
    before.setdefault("betas", None if before["optimizer"] == "sgd" else BETAS)
    fixed = [key for key in vars(args) if key in args.fixed and key in before]
    differences, reason = _in_words(before, args, fixed), ""
    if "step" in record and not differences and decay_start(args) is not None:
        kept = checkpoint.parent / f"checkpoint-{decay_start(before)}"
        reason = decay_difference(before, args, record["step"], f"{kept}" if kept.is_dir() else "")
        if reason:
            differences = _in_words(before, args, ["max_train_steps", "lr_decay_steps"])
    elif any(text.startswith("--max_train_steps") for text in differences):
        reason = _about_cosine(before, args, record.get("step"))
    elif before.get("lr_milestones") and vars(args).get("recipe") == MODERN:
        laid = ("--lr_milestones", "--lr_warmup_steps", "--ema_decay")
        falls = " ".join(map(str, before["lr_milestones"]))
        if any(text.startswith(laid) for text in differences):
            reason = (
                "--recipe modern lays them by --max_train_steps. To train longer, add the old "
                f"ones: --lr_milestones {falls} --lr_warmup_steps {before['lr_warmup_steps']} "
                f"--ema_decay {before['ema_decay']:g}"
            )
    return allow_differences(differences, args, checkpoint, reason)


def _about_cosine(before: dict[str, Any], args: Arguments, step: int | None) -> str:
    text = (
        "By --lr_scheduler cosine the rate falls to zero at --max_train_steps, so another number "
        "of steps is another schedule"
    )
    if step is not None and not before.get("pretrain_steps"):
        old, new = (
            learning_rate_factor(argparse.Namespace(**options))(step) * options["learning_rate"]
            for options in (before, vars(args))
        )
        if f"{old:.3g}" != f"{new:.3g}":
            text += f"; here the rate would jump from {old:.3g} to {new:.3g}"
    return f"{text}. Runs by --lr_scheduler wsd can become longer"


def _in_words(before: Mapping[str, Any], args: Arguments, keys: Sequence[str]) -> list[str]:
    return [
        f"--{key} was {_shown(key, before[key])} and is {_shown(key, getattr(args, key))}"
        for key in keys
        if _differ(key, before[key], getattr(args, key))
    ]


def _shown(key: str, value: object) -> object:
    return "not measured yet" if key == "max_train_steps" and value == LARGEST else value


def _differ(key: str, before: object, value: object) -> bool:
    if key == "degradation":
        return without_folder(f"{before}") != without_folder(f"{value}")
    return before != value


def allow_differences(
    differences: Sequence[str], args: argparse.Namespace, checkpoint: Path, reason: str = ""
) -> list[str]:
    """Returns the differences if there are none or `--allow_recipe_change` is given.

    Args:
        differences: Differences between two recipes, in words.
        args: Options of the command.
        checkpoint: Folder of the checkpoint.
        reason: Sentence on why they matter, without its point.

    Raises:
        UserError: There are differences, and they are not allowed.
    """
    if differences and not args.allow_recipe_change:
        raise UserError(
            f"Cannot resume from {checkpoint} by another recipe: {', '.join(differences)}. "
            f"{reason}{'. ' if reason else ''}Give "
            "the same options, or start a new run with --init_from and another --output_dir. If "
            "network, optimizer and average are the same, --allow_recipe_change goes on with the "
            "new recipe."
        )
    return list(differences)
