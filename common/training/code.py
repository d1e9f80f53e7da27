"""Code of a run that is resumed: whether its script and optimizers are those of the checkpoint."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.network import SuperResolutionModel
from common.options import Arguments

if TYPE_CHECKING:
    from accelerate.optimizer import AcceleratedOptimizer

WAY_OUT = (
    "A run cannot go on by another optimizer. Give it the one that it had, or start a new run in "
    "another --output_dir, with --init_from."
)


def script_of(network: SuperResolutionModel) -> dict[str, str]:
    """Name of the network's script, and a checksum of it."""
    path = Path(inspect.getfile(type(network)))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:8]}


def script_changed(record: Mapping[str, Any], script: Mapping[str, str], allowed: bool) -> str:
    """Says what it means that the script is not that of a checkpoint; "" if it is.

    Args:
        record: Record of the checkpoint. That of an earlier version names no script.
        script: Name and checksum of the script, by `script_of`.
        allowed: Whether `--allow_recipe_change` is given.
    """
    if record.get("script", script) == script:
        return ""
    settings = "are those of the checkpoint, unless you add --allow_recipe_change"
    if allowed:
        settings = "are those of the script"
    return (
        f"{next(iter(script))} has changed. From here on its network and its loss are those of the "
        f"script; the settings of its optimizer {settings}."
    )


def optimizer_names(optimizers: Sequence["AcceleratedOptimizer"]) -> list[str]:
    return [type(prepared.optimizer).__name__ for prepared in optimizers]


def another_optimizer(
    record: Mapping[str, Any], optimizers: Sequence["AcceleratedOptimizer"]
) -> str:
    """Says how the optimizers differ from those of a checkpoint by its record; "" if they do not.

    PyTorch loads the state of another optimizer without a word, and fails at a step, or trains on
    by the settings of the other one.
    """
    ours = optimizer_names(optimizers)
    theirs = record.get("optimizers", ours)  # the record of an earlier version names none
    if theirs == ours:
        return ""
    return (
        f"was trained by {' and '.join(theirs)}, and this command trains by {' and '.join(ours)}. "
        f"{WAY_OUT}"
    )


def another_average(record: Mapping[str, Any], args: Arguments) -> str:
    """Says that a run and its checkpoint do not both average their weights; "" if they agree."""
    before = record["args"].get("ema_decay", 0.0)
    if bool(before) == bool(args.ema_decay):
        return ""
    return (
        f"has {'an' if before else 'no'} average of the weights, and this command has --ema_decay "
        f"{args.ema_decay:g}. Give --ema_decay {before:g}, or start a new run in another "
        "--output_dir, with --init_from."
    )


def lacks_settings(
    optimizers: Sequence["AcceleratedOptimizer"], fresh: Sequence[Sequence[Mapping[str, Any]]]
) -> str:
    """The same by the settings that were loaded, since old checkpoints name no optimizer.

    Args:
        optimizers: Optimizers, which have the settings of the checkpoint.
        fresh: Settings that they were made with, by their groups.
    """
    for prepared, groups in zip(optimizers, fresh, strict=True):
        for group, new in zip(prepared.param_groups, groups, strict=True):
            if missing := sorted(new.keys() - group.keys()):
                name = type(prepared.optimizer).__name__
                return f"has no {' and no '.join(missing)}, which {name} needs. {WAY_OUT}"
    return ""
