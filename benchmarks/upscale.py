"""Seconds to enlarge a picture of one megapixel by A2N x2: as its authors' code does, and ours.

    python -m benchmarks.upscale

    original       float32, PyTorch's default memory format, the operations of the authors' code
    ours, float32  as upscale.py does
    ours, bf16     the same with --mixed_precision bf16

All enlarge the same pixels by the same weights, whole, and take turns. The weights are random,
which changes nothing of the time.

The aim is 1.7 times as fast in float32 and 3 times in bfloat16.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import benchmark_parser, report, take_turns
from common.inference import Enlarger
from common.machine import set_up_cpu
from common.options import whole
from train_a2n import A2N, AttentionInAttentionBlock

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def original(network: A2N, lr: Tensor) -> Tensor:
    """The forward pass in the operations of the authors' code."""
    first = features = network.conv_first(lr)
    for block in network.blocks:
        assert isinstance(block, AttentionInAttentionBlock)
        x = F.leaky_relu(block.conv_in(features), 0.2)
        scores = block.branch_scores(F.adaptive_avg_pool2d(x, 1).flatten(1))
        weights = F.softmax(scores / 30, dim=1)
        attention, plain = block.attention_branch(x), block.plain_branch(x)
        x = attention * weights[:, 0].view(-1, 1, 1, 1) + plain * weights[:, 1].view(-1, 1, 1, 1)
        features = features + block.conv_out(F.leaky_relu(x, 0.2))
    sr = network.conv_last(network.upsamplers(first + network.conv_trunk(features)))
    return sr + F.interpolate(lr, scale_factor=network.scale, mode="bilinear")


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=7)
    parser.add_argument(
        "--side", type=whole(), default=1024, help="of the picture (default: %(default)s)"
    )
    parser.add_argument("--cpu_threads", type=whole(), help="default: one for each core")
    args = parser.parse_args(argv)
    set_up_cpu(args.cpu_threads)
    torch.manual_seed(0)
    network = A2N(2).eval().to(DEVICE)
    ours = A2N(2).eval().to(DEVICE).to(memory_format=torch.channels_last)
    ours.load_state_dict(network.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (args.side, args.side, 3), dtype=np.uint8)

    @torch.no_grad()
    def by_the_original() -> np.ndarray:
        lr = torch.from_numpy(pixels).movedim(-1, 0)[None].to(DEVICE).float() / 255
        sr = original(network, lr.contiguous())[0]
        return sr.mul(255).round().clamp(0, 255).byte().movedim(0, -1).cpu().numpy()

    makers: dict[str, Callable[[], np.ndarray]] = {"original": by_the_original}
    for name, dtype in (("ours, float32", None), ("ours, bf16", torch.bfloat16)):
        enlarger = Enlarger(ours, DEVICE, tile=0, dtype=dtype)
        makers[name] = partial(enlarger, pixels)
    pictures: dict[str, np.ndarray] = {}

    def seconds(name: str) -> float:
        start = perf_counter()
        pictures[name] = makers[name]()
        return perf_counter() - start

    results = take_turns({name: partial(seconds, name) for name in makers}, args.rounds)
    differences = {
        name: int(np.abs(picture.astype(int) - pictures["original"]).max())
        for name, picture in pictures.items()
    }
    pairs = [("original", name) for name in makers if name != "original"]
    report(
        *(args, "seconds", results, pairs, DEVICE),
        **{"side": args.side, "largest_difference_of_255": differences},
    )


if __name__ == "__main__":
    main()
