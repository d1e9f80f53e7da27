"""How many steps a run has: `--max_train_steps`, or as many as `--max_train_minutes` allow."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError
from common.options import LARGEST, Arguments
from common.training.recipe import read_recipe
from common.training.schedule import milestones

LEAST_WARMUP = 20  # steps in which a speed can be measured
WARMUP = 100  # where the defaults have none
NO_MINUTES_FOR_PHASES = (
    "--max_train_minutes cannot share the time among the phases of this network. Give their steps."
)


def fill_in_minutes(args: argparse.Namespace) -> None:
    """Gives a run by minutes a warm-up to measure in, and no bound that nobody asked for."""
    if args.max_train_minutes:
        if "lr_warmup_steps" not in args.given:
            args.lr_warmup_steps = args.lr_warmup_steps or WARMUP
        if "max_train_steps" not in args.given:
            args.max_train_steps = LARGEST


def check_minutes(args: argparse.Namespace) -> Iterator[str]:
    if args.max_train_minutes and "pretrain_steps" in vars(args):
        yield NO_MINUTES_FOR_PHASES
    if args.max_train_minutes and args.lr_warmup_steps < LEAST_WARMUP:
        yield (
            "--max_train_minutes measures the speed of the run in its warm-up, where the rate does "
            "not depend on the number of steps. Leave out --lr_warmup_steps, or give "
            f"{LEAST_WARMUP} or more."
        )
    if args.max_train_minutes and args.lr_milestones:
        yield (
            "--max_train_minutes lays --lr_milestones itself, when the number of steps is known. "
            "Leave them out, or give --max_train_steps."
        )


def take_length(args: Arguments, checkpoint: Path) -> None:
    """Takes the number of steps that a run has measured before its checkpoint, and its schedule.

    Raises:
        UserError: The run was not begun by these minutes, and is past its warm-up.
    """
    if not args.max_train_minutes:
        return
    record = read_recipe(checkpoint)
    before, step = record["args"], record.get("step", args.lr_warmup_steps)
    if step < args.lr_warmup_steps - 1:
        return
    is_measured = step >= before["lr_warmup_steps"] - 1
    if before.get("max_train_minutes") != args.max_train_minutes or not is_measured:
        steps = before["max_train_steps"]
        was = f"; it was {steps}" if steps < LARGEST else ""
        raise UserError(
            f"{checkpoint} is past the warm-up, in which --max_train_minutes "
            f"{args.max_train_minutes:g} would measure the speed. Give --max_train_steps "
            f"instead{was}."
        )
    set_length(args, before["max_train_steps"])


def set_length(args: argparse.Namespace, steps: int) -> None:
    """Sets the number of steps that was measured, and the falls of the rate by it."""
    args.max_train_steps = steps
    if args.lr_scheduler == "multistep":
        args.lr_milestones = milestones(steps)


class Stopwatch:
    """Measures the speed in the second half of the warm-up, without validations.

    The number of steps is set one step before the warm-up ends, so that no rate depends on the time
    and `--max_train_steps` with that number trains to the same weights.
    """

    def __init__(self, args: Arguments, has_phases: bool) -> None:
        """
        Args:
            args: Options of the run.
            has_phases: Whether the run has more phases than the one of `--max_train_steps`.

        Raises:
            UserError: There are minutes for several phases.
        """
        if has_phases and args.max_train_minutes:
            raise UserError(NO_MINUTES_FOR_PHASES)
        self._args = args
        self._allowed = 0  # steps by the minutes alone
        self._end = args.lr_warmup_steps - 1 if args.max_train_minutes else None
        self._start: tuple[int, float] | None = None
        self._aside = 0.0  # seconds of validations since the start
        self._validation = 0.0  # seconds of one of them

    def add_validation(self, seconds: float) -> None:
        """Notes how long a validation took."""
        self._validation = seconds
        self._aside += seconds

    def steps_after(self, step: int, seconds: float) -> int | None:
        """Number of steps that the minutes allow, after the step where it is found; None elsewhere.

        Args:
            step: Optimizer steps done.
            seconds: Seconds of training so far, over all starts of the run.
        """
        args = self._args
        if self._end is None or step > self._end:
            return None
        if self._start is None or step <= self._end // 2:
            self._start, self._aside = (step, seconds), 0.0
        if step < self._end:
            return None
        first, then = self._start
        if step == first:  # the run was resumed here
            first, then = 0, 0.0
        each = (seconds - then - self._aside) / (step - first)
        each += self._validation / args.validation_steps
        left = 60 * args.max_train_minutes - seconds - self._validation  # one comes at the end
        least = args.lr_warmup_steps + (args.lr_decay_steps or 0)
        self._allowed = step + int(left / max(each, 1e-9))
        return min(max(self._allowed, least), args.max_train_steps)

    def in_words(self) -> str:
        """What was found, for the user."""
        args, steps = self._args, self._args.max_train_steps
        found = f"{args.max_train_minutes:g} minutes are {self._allowed:,} steps at this speed"
        if self._allowed < steps:
            parts = "warm-up and decay take" if args.lr_decay_steps else "warm-up alone takes"
            found = f"The {parts} longer than {args.max_train_minutes:g} minutes: {steps:,} steps"
        elif self._allowed > steps:
            found += f", more than --max_train_steps {steps:,}"
        same = f"--max_train_steps {steps}"
        if "lr_warmup_steps" not in args.given:
            same += f" --lr_warmup_steps {args.lr_warmup_steps}"
        if args.lr_milestones:
            same += f" --lr_milestones {' '.join(map(str, args.lr_milestones))}"
        if args.ema_decay and "ema_decay" not in args.given:
            same += f" --ema_decay {args.ema_decay:g}"
        return f"{found}, which the run keeps from here on. {same} trains to the same weights."
