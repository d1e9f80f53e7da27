"""The optimizer of a run: its options, which mean the same in all scripts, and how it is made."""

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from common.options import Group, Parser, real
from common.training.muon import Muon

if TYPE_CHECKING:
    from accelerate import Accelerator

MOMENTUM = 0.9  # of sgd
BETAS = [0.9, 0.999]


def add_optimizer_arguments(
    parser: Parser,
    recipe: Group,
    *,
    learning_rate: float,
    sgd_learning_rate: float | None = None,
    weight_decay: float = 0.0,
    of: str = "",
) -> None:
    """Adds the options of the optimizer.

    Args:
        parser: Parser of the script.
        recipe: Its group `recipe`.
        learning_rate: Default of `--learning_rate`.
        sgd_learning_rate: The same for stochastic gradient descent, where the script offers it.
        weight_decay: Default of `--weight_decay`.
        of: What the learning rate belongs to, in words.
    """
    names = ["adam", "adamw", "muon"]
    default, sgd = f"{learning_rate:g}", ""
    if sgd_learning_rate:
        names.append("sgd")
        default += f", {sgd_learning_rate:g} for sgd"
        sgd = f"; sgd: with momentum {MOMENTUM}"
    recipe.add_argument(
        "--optimizer",
        choices=names,
        default="adam",
        help="adam: Adam (Kingma and Ba, 2015); adamw: the same, whose weight decay does not pass "
        "through its moments; muon: AdamW, but steps of kernels from feature maps to feature maps "
        f"are made orthogonal (Jordan et al., 2024){sgd}",
    )
    recipe.add_argument(
        "--learning_rate",
        type=real(above=0),
        help=f"learning rate{of or ' of all layers'} (default: {default})",
    )
    recipe.add_argument(
        "--weight_decay",
        type=real(least=0),
        default=weight_decay,
        help="share of a weight that is added to its gradient; with adamw and muon, share that a "
        "step takes from it, times the learning rate",
    )
    recipe.add_argument(
        "--betas",
        type=real(least=0, below=1),
        nargs=2,
        metavar=("BETA1", "BETA2"),
        only_with=("optimizer", "adam", "adamw", "muon"),
        help="shares of the old means of the gradient and of its square that a step of Adam "
        "leaves; with muon, those of the weights that are left to AdamW "
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
            is_sgd = args.optimizer == "sgd"
            args.learning_rate = sgd_learning_rate if is_sgd else learning_rate
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
    if args.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, fused=True, **common)
    common["betas"] = tuple(args.betas)
    if args.optimizer == "muon":
        return Muon(parameters, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer]
    return kind(parameters, fused=True, **common)


def clip_gradients(
    args: argparse.Namespace,
    accelerator: "Accelerator",
    network: nn.Module,
    clip_value: float | None = None,
) -> None:
    """Limits the norm of a network's gradient to `--clip_grad_norm`, at the end of a batch.

    Call it between `accelerator.backward` and the optimizer's step.

    Args:
        args: Options of the run.
        accelerator: Accelerate's.
        network: Network, as it was prepared.
        clip_value: Bound of the elements of the gradient, after that of its norm.
    """
    if not accelerator.sync_gradients or not (args.clip_grad_norm or clip_value):
        return
    # Once for both, since PyTorch refuses to unscale the gradients of fp16 a second time, and
    # Accelerate's functions that clip would do so each.
    accelerator.unscale_gradients()
    if args.clip_grad_norm:
        nn.utils.clip_grad_norm_(network.parameters(), args.clip_grad_norm)
    if clip_value:
        nn.utils.clip_grad_value_(network.parameters(), clip_value)
