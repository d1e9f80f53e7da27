"""The optimizer of a run: its options, which mean the same in all scripts, and how it is made."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from common.options import Group, Parser, real

if TYPE_CHECKING:
    from accelerate import Accelerator

MOMENTUM = 0.9  # of sgd
BETAS = [0.9, 0.999]


def add_optimizer_arguments(
    parser: Parser,
    recipe: Group,
    *,
    learning_rates: Mapping[str, float],
    weight_decay: float = 0.0,
    of: str = "",
) -> None:
    """Adds the options of the optimizer.

    Args:
        parser: Parser of the script.
        recipe: Its group `recipe`.
        learning_rates: Default of `--learning_rate` by the name of each optimizer that the script
            offers, of "adam", "adamw" and "sgd"; the first is the default.
        weight_decay: Default of `--weight_decay`.
        of: What the learning rate belongs to, in words.
    """
    names = list(learning_rates)
    defaults = ", ".join(f"{rate:g} for {name}" for name, rate in learning_rates.items())
    if len(set(learning_rates.values())) == 1:
        defaults = f"{learning_rates[names[0]]:g}"
    recipe.add_argument(
        "--optimizer",
        choices=names,
        default=names[0],
        help="adam: Adam (Kingma and Ba, 2015); adamw: the same, whose weight decay does not pass "
        "through its moments" + (f"; sgd: with momentum {MOMENTUM}" if "sgd" in names else ""),
    )
    recipe.add_argument(
        "--learning_rate",
        type=real(above=0),
        help=f"learning rate{of or ' of all layers'} (default: {defaults})",
    )
    recipe.add_argument(
        "--weight_decay",
        type=real(least=0),
        default=weight_decay,
        help="share of a weight that is added to its gradient; with adamw, share that a step takes "
        "from it, times the learning rate",
    )
    recipe.add_argument(
        "--betas",
        type=real(least=0, below=1),
        nargs=2,
        metavar=("BETA1", "BETA2"),
        only_with=("optimizer", "adam", "adamw"),
        help="shares of the old means of the gradient and of its square that a step leaves "
        f"(default: {' '.join(map(str, BETAS))})",
    )
    recipe.add_argument(
        "--clip_grad_norm",
        type=real(above=0),
        help="largest norm of the gradient of all weights of a network together; a larger gradient "
        "is made as small (default: no limit)",
    )

    def fill_in(args: argparse.Namespace) -> None:
        if args.learning_rate is None:
            args.learning_rate = learning_rates[args.optimizer]
        if args.betas is None and args.optimizer != "sgd":
            args.betas = list(BETAS)

    parser.completions.append(fill_in)
    parser.checks.append(_check_decay)


def _check_decay(args: argparse.Namespace) -> Iterator[str]:
    # (Adam's own does not take its share from the weight: it passes through the moments.)
    if args.optimizer != "adam" and args.learning_rate * args.weight_decay >= 1:
        yield (
            f"--weight_decay {args.weight_decay:g} times --learning_rate {args.learning_rate:g} is "
            "not below 1, so a step would remove all of a weight. 1e-4 to 1e-2 are usual."
        )


def make_optimizer(
    args: argparse.Namespace,
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
) -> torch.optim.Optimizer:
    """Makes the optimizer of the command line.

    Args:
        args: Options of the run.
        parameters: Weights, or groups of weights with settings of their own.
    """
    common: dict[str, Any] = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    common["fused"] = True
    if args.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer]
    return kind(parameters, betas=tuple(args.betas), **common)


def clip_gradients(
    args: argparse.Namespace, accelerator: "Accelerator", network: nn.Module
) -> None:
    """Limits the norm of a network's gradient to `--clip_grad_norm`, at the end of a batch.

    Call it between `accelerator.backward` and the optimizer's step.
    """
    if args.clip_grad_norm and accelerator.sync_gradients:
        accelerator.clip_grad_norm_(network.parameters(), args.clip_grad_norm)
