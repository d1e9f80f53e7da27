"""The command line of a network that has one scale and one optimizer, in one call."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.options import Group, Parser, Recipe, whole
from common.training.optimizer import add_optimizer_arguments
from common.training.options import add_run_arguments
from common.training.recipe import add_recipe_arguments, modern


def training_parser(
    script: str,
    docstring: str | None,
    description: str,
    *,
    scale: int,
    lr_patch_size: int,
    batch_size: int,
    learning_rate: float,
    max_train_steps: int,
    scales: Sequence[int] = (2, 3, 4),
    lr_scheduler: str = "step",
    lr_step_size: int = 200_000,
    lr_gamma: float = 0.5,
    recipes: Mapping[str, Recipe] | None = None,
) -> tuple[Parser, Group]:
    """Makes the parser of a script `train_mine.py`, with all options that every script has.

    The numbers are defaults of the options of their names. `--output_dir` is `out/mine`.

    Args:
        script: `__file__` of the script.
        docstring: `__doc__` of the script.
        description: Where the defaults come from.
        scale: Default of `--scale`.
        lr_patch_size: Side of an LR patch; `--patch_size` is so many times the scale.
        batch_size: Patches of a step.
        learning_rate: Rate of `--optimizer adam`, `adamw` and `muon`.
        max_train_steps: Steps of the run.
        scales: Factors that there are.
        lr_scheduler: Name of the schedule.
        lr_step_size: Steps between two falls of the rate, by the schedule `step`.
        lr_gamma: Factor of the rate at each fall.
        recipes: Named recipes beside "paper", the defaults, and "modern".

    Returns:
        (parser, its group `recipe`, to which a script adds the options of its own).
    """
    parser = Parser(script, docstring)
    recipe = add_recipe_arguments(
        parser,
        description,
        batch_size=batch_size,
        lr_scheduler=lr_scheduler,
        lr_step_size=lr_step_size,
        lr_gamma=lr_gamma,
        recipes={"modern": modern(learning_rate), **(recipes or {})},
    )
    recipe.add_argument(
        "--scale",
        type=whole(least=0),
        choices=list(scales),
        default=scale,
        help="factor of enlargement",
    )
    recipe.add_argument(
        "--patch_size",
        type=whole(),
        help="side of an HR patch in pixels, a multiple of the scale (default: "
        f"{lr_patch_size} times the scale)",
    )
    add_optimizer_arguments(parser, recipe, learning_rate=learning_rate)
    name = Path(script).stem.removeprefix("train_")
    add_run_arguments(parser, output_dir=f"out/{name}", max_train_steps=max_train_steps)

    def fill_in(args: argparse.Namespace) -> None:
        args.patch_size = args.patch_size or lr_patch_size * args.scale

    parser.completions.append(fill_in)
    return parser, recipe
