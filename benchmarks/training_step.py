"""Speed of a training step of A2N x2: a plain loop, ours in float32, and ours in bfloat16.

    python -m benchmarks.training_step --data_dir FOLDER

A step is the network, the L1 loss, its gradients and Adam on one batch that is ready on the device,
with no reading of pictures and no logging:

    plain             float32, PyTorch's default memory format and (unfused) Adam, no Accelerate
    ours, float32     as in train_a2n.py: channels last, fused Adam, prepared by Accelerate, and
                      cuDNN may search for its fastest algorithms
    ours, bf16        the same with `Accelerator(mixed_precision="bf16")`
    bf16, contiguous  without channels last; what one choice brings, to be asked for by --variants
    bf16, no search   without the search

All train the same network class from the same weights. Each variant lives in a process of its own,
and they wait for their turns. On the CPU all cores compute; on a GPU, which is used where there is
one, the clock is read when the GPU is done.

The aim is 1.4 times the plain loop in float32 and 2.3 times in bfloat16.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from benchmarks.measure import (
    SCALE,
    benchmark_parser,
    decode,
    find_sources,
    processes,
    report,
    take_turns,
)
from common.data.patches import PatchDataset
from common.device import kernel_search
from common.images.tensors import to_float
from common.machine import set_up_cpu
from common.options import whole
from train_a2n import A2N

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
USUAL = ["plain", "ours, float32", "ours, bf16"]
VARIANTS = [*USUAL, "bf16, contiguous", "bf16, no search"]


def plain_step(lr: Tensor, hr: Tensor) -> Callable[[], Tensor]:
    lr, hr = (to_float(images, DEVICE).contiguous() for images in (lr, hr))
    model = A2N(SCALE).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

    def step() -> Tensor:
        loss = F.l1_loss(model(lr), hr)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def our_step(lr: Tensor, hr: Tensor, variant: str) -> Callable[[], Tensor]:
    accelerator = Accelerator(mixed_precision="bf16" if "bf16" in variant else "no")
    layout = torch.contiguous_format if "contiguous" in variant else torch.channels_last
    lr, hr = (
        to_float(images, accelerator.device).contiguous(memory_format=layout) for images in (lr, hr)
    )
    model = A2N(SCALE).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)

    def step() -> Tensor:
        loss = F.l1_loss(model(lr), hr)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def work(pipe: Connection, variant: str, lr: Tensor, hr: Tensor, threads: int | None) -> None:
    """What the process of a variant does: as many steps as it is told, each time it is told."""
    set_up_cpu(threads)
    torch.manual_seed(0)
    step = plain_step(lr, hr) if variant == "plain" else our_step(lr, hr, variant)
    with kernel_search(variant not in ("plain", "bf16, no search")):
        while steps := pipe.recv():
            start = perf_counter()
            for _ in range(steps):
                loss = step()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            pipe.send((perf_counter() - start, loss.item()))


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=7)
    parser.add_argument("--batch_size", type=whole(), default=16, help="default: %(default)s")
    parser.add_argument(
        "--lr_size",
        type=whole(),
        default=48,
        help="side of an LR patch (default: %(default)s)",
    )
    steps = 100 if DEVICE.type == "cuda" else 4
    parser.add_argument(
        "--steps", type=whole(), default=steps, help="of a turn (default here: %(default)s)"
    )
    parser.add_argument("--cpu_threads", type=whole(), help="default: one for each core")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=USUAL, help="default: the first three"
    )
    args = parser.parse_args(argv)

    with TemporaryDirectory() as folder:
        pictures = decode(find_sources(args.data_dir), folder)
        patches = PatchDataset(pictures, [SCALE], SCALE * args.lr_size, args.batch_size, seed=0)
        lr, hr = patches.__getitems__(range(args.batch_size))

    losses = {}
    with processes(work, args.variants, lr, hr, args.cpu_threads) as pipes:

        def samples_per_second(variant: str) -> float:
            pipes[variant].send(args.steps)
            seconds, losses[variant] = pipes[variant].recv()
            return args.batch_size * args.steps / seconds

        results = take_turns(
            {variant: partial(samples_per_second, variant) for variant in args.variants},
            args.rounds,
        )
    first, *others = args.variants
    pairs = [(variant, first) for variant in others]
    setting = {key: getattr(args, key) for key in ("batch_size", "lr_size", "steps")}
    report(args, "samples a second", results, pairs, DEVICE, setting=setting, last_loss=losses)


if __name__ == "__main__":
    main()
