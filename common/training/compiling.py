"""`--compile`: what PyTorch's compiler is to do, and what CUDA graphs forbid."""

import argparse
from collections.abc import Iterator
from typing import Any

MODES = ("default", "reduce-overhead", "max-autotune")
GRAPHS = "triton.cudagraphs"


def compiler_options(args: argparse.Namespace, own: dict[str, Any] | None = None) -> dict[str, Any]:
    """Options of `torch.compile` for the mode of a run.

    A graph writes its results, gradients among them, to the same memory each time. So there are
    none where the gradients of several parts are summed, or a network is used twice in a step.

    Args:
        args: Options of the run.
        own: Options that the network needs, which win. (PyTorch takes no mode beside options.)
    """
    from torch._inductor import list_mode_options

    options = list_mode_options(args.compile) | (own or {})
    if GRAPHS in options and (args.gradient_accumulation_steps != 1 or _uses_a_network_twice(args)):
        options[GRAPHS] = False
    return options


def _uses_a_network_twice(args: argparse.Namespace) -> bool:
    """Whether a step is of SRGAN's second phase."""
    return "pretrain_steps" in vars(args) and bool(args.max_train_steps)


def check_compile(args: argparse.Namespace) -> Iterator[str]:
    """Refuses graphs, all that reduce-overhead adds, where `compiler_options` leaves them out."""
    parts = args.gradient_accumulation_steps
    if args.compile == "reduce-overhead" and parts != 1:
        yield (
            f"--compile reduce-overhead works by CUDA graphs, whose memory --gradient_accumulation_"
            f"steps {parts} would overwrite. Use --compile, or one part."
        )
    elif args.compile == "reduce-overhead" and _uses_a_network_twice(args):
        yield (
            "--compile reduce-overhead works by CUDA graphs, which overwrite what a network gave "
            "when it is used again in the step. Use --compile, or --max_train_steps 0."
        )
