"""The schedule of the learning rate: its options, the factor of each step, what resuming allows."""

import argparse
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import cos, pi
from typing import Any

from common.options import Group, Parser, real, whole

# Where schedules of today halve the rate, in percent of the steps.
PERCENT = (50, 80, 90, 95, 98)


def add_schedule_arguments(
    parser: Parser,
    recipe: Group,
    *,
    lr_scheduler: str,
    lr_step_size: int,
    lr_gamma: float,
    lr_warmup_steps: int,
) -> None:
    """Adds the options of the schedule. The arguments are their defaults."""
    recipe.add_argument(
        "--lr_scheduler",
        choices=["step", "multistep", "cosine", "wsd"],
        default=lr_scheduler,
        help="step: the learning rate is multiplied by --lr_gamma every --lr_step_size steps; "
        "multistep: at --lr_milestones; cosine: it falls to zero at --max_train_steps; wsd "
        "(warm-up, stable, decay): it stays, and falls to zero in the last --lr_decay_steps",
    )
    recipe.add_argument(
        "--lr_step_size",
        type=whole(),
        default=lr_step_size,
        only_with=("lr_scheduler", "step"),
        help="with --lr_scheduler step: optimizer steps from one fall of the rate to the next",
    )
    recipe.add_argument(
        "--lr_milestones",
        type=whole(),
        nargs="+",
        only_with=("lr_scheduler", "multistep"),
        help="with --lr_scheduler multistep: steps after which the learning rate falls, ascending",
    )
    recipe.add_argument(
        "--lr_gamma",
        type=real(above=0, most=1),
        default=lr_gamma,
        only_with=("lr_scheduler", "step", "multistep"),
        help="with step and multistep: number by which each fall multiplies the rate; 1: it stays",
    )
    recipe.add_argument(
        "--lr_decay_steps",
        type=whole(),
        only_with=("lr_scheduler", "wsd"),
        recipe_if=lambda args: False,  # `decay_difference` compares it
        help="steps at the end in which the learning rate falls linearly; until they begin, a run "
        "can become longer",
    )
    recipe.add_argument(
        "--lr_warmup_steps",
        type=whole(least=0),
        default=lr_warmup_steps,
        help="steps in which the learning rate rises linearly, at the beginning",
    )
    parser.checks.append(_check_schedule)


def milestones(steps: int) -> list[int]:
    """Steps at 50, 80, 90, 95 and 98 % of a run; fewer in a run of few steps."""
    return sorted({max(1, steps * percent // 100) for percent in PERCENT})


def _check_schedule(args: argparse.Namespace) -> Iterator[str]:
    steps, falls = args.max_train_steps, args.lr_milestones
    given = sorted(name for name in args.given if name.startswith("lr_"))
    if not steps:
        if given:
            yield (
                f"--{given[0]} is for the steps of --max_train_steps, which are 0, and the rate of "
                "the phase before them does not change. Leave it out, or add such steps."
            )
        return
    if args.lr_scheduler == "multistep" and not falls and not args.max_train_minutes:
        usual = " ".join(map(str, milestones(steps)))
        yield (
            "--lr_scheduler multistep needs the steps at which the rate falls. For "
            f"--max_train_steps {steps}, --lr_milestones {usual} is usual."
        )
    if falls and args.lr_scheduler == "multistep":
        if any(before >= after for before, after in pairwise(falls)):
            ordered = " ".join(map(str, sorted(set(falls))))
            yield (
                f"--lr_milestones {' '.join(map(str, falls))} do not ascend. Give them as "
                f"{ordered}."
            )
        if max(falls) > steps:
            yield (
                f"--lr_milestones {max(falls)} lies beyond --max_train_steps {steps}, so the rate "
                "would not fall there. Give smaller ones, or train longer."
            )
    if args.lr_scheduler == "wsd":
        if not args.lr_decay_steps:
            usual = "" if args.max_train_minutes else f": --lr_decay_steps {max(1, steps // 5)}"
            yield (
                "--lr_scheduler wsd needs --lr_decay_steps, the number of steps in which the rate "
                f"falls at the end. A fifth of the run is usual{usual}."
            )
        elif args.lr_warmup_steps + args.lr_decay_steps > steps:
            yield (
                f"--lr_warmup_steps {args.lr_warmup_steps} and --lr_decay_steps "
                f"{args.lr_decay_steps} together are more than --max_train_steps {steps}. Give "
                "fewer, or train longer."
            )


def learning_rate_factor(args: argparse.Namespace) -> Callable[[int], float]:
    """Schedule of the command line as a factor of the learning rate, for `LambdaLR`."""

    def factor(step: int) -> float:
        if step < args.lr_warmup_steps:
            return (step + 1) / args.lr_warmup_steps
        if args.lr_scheduler == "step":
            return args.lr_gamma ** (step // args.lr_step_size)
        if args.lr_scheduler == "multistep":
            return args.lr_gamma ** bisect_right(args.lr_milestones, step)
        if args.lr_scheduler == "wsd":
            return min(1.0, max(args.max_train_steps - step, 0) / args.lr_decay_steps)
        steps = max(1, args.max_train_steps - args.lr_warmup_steps)
        progress = min((step - args.lr_warmup_steps) / steps, 1.0)
        return (1 + cos(pi * progress)) / 2

    return factor


def decay_start(args: argparse.Namespace | Mapping[str, Any]) -> int | None:
    """Step of the run after which `wsd` begins to lower the rate; None with another schedule.

    Args:
        args: Options of a run, or their record.
    """
    options = args if isinstance(args, Mapping) else vars(args)
    if options["lr_scheduler"] != "wsd":
        return None
    first = options.get("pretrain_steps") or 0  # a phase without a schedule, SRGAN's
    return first + options["max_train_steps"] - options["lr_decay_steps"]


def decay_difference(
    before: Mapping[str, Any], args: argparse.Namespace, step: int, kept: str
) -> str:
    """Says why `wsd` cannot go on from a checkpoint by another number of steps; "" if it can.

    Before the decay begins, the rates of all such runs are the same, so a run can become longer or
    shorter. Later its length is fixed.

    Args:
        before: Options of the checkpoint.
        args: Options of the command.
        step: Step of the checkpoint.
        kept: Name of the checkpoint before the decay, if there is one.
    """
    old, new = decay_start(before), decay_start(args)
    lengths = [(before[key], getattr(args, key)) for key in ("max_train_steps", "lr_decay_steps")]
    if old is None or new is None or all(earlier == now for earlier, now in lengths):
        return ""
    if step > old:
        return (
            f"By --lr_scheduler wsd its rate has been falling since step {old}. "
            f"{longer_by_wsd(kept)}"
        )
    if step > new:
        least = step - (vars(args).get("pretrain_steps") or 0) + args.lr_decay_steps
        return (
            f"By --lr_scheduler wsd, --max_train_steps {args.max_train_steps} and --lr_decay_steps "
            f"{args.lr_decay_steps} the rate would have begun to fall at step {new}, before this "
            f"checkpoint. To begin now, give --max_train_steps {least}"
        )
    return ""


def longer_by_wsd(kept: str) -> str:
    """Says how a run by `wsd` becomes longer.

    Args:
        kept: Path of the checkpoint before the decay, "" if it is gone.
    """
    if not kept:
        return "The checkpoint before that is gone"
    return (
        "To train longer, go on from the last checkpoint before that: by the same command with a "
        f"larger --max_train_steps, --resume_from_checkpoint {kept} and another --output_dir"
    )
