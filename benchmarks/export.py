"""Size, time and score of networks in all the forms that export.py writes.

    python -m benchmarks.export out/a2n out/srgan --benchmark_dir DIR --calibration_dir PHOTOS

Each network is converted as export.py does, and each form enlarges the same picture by one thread;
the forms take turns. Seconds are those of the processor, which other programs disturb less than
those of a clock. PSNR is that of evaluate.py, on the first --pictures of each set. ncnn computes in
float32, also where the weights are stored in float16.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import torch
from torch import Tensor

from benchmarks.measure import benchmark_parser, report, take_turns
from common.data.benchmarks import open_benchmark
from common.data.layouts import picture_files
from common.exports.ncnn_files import NcnnNetwork, to_ncnn
from common.exports.onnx_file import OnnxNetwork, calibration_pictures, to_fp16, to_int8, to_onnx
from common.hub import load_model
from common.images.color import luma, replace_luma
from common.images.resize import imresize
from common.machine import set_up_cpu
from common.metrics import psnr_y
from common.network import SuperResolutionModel
from common.options import whole
from export import LumaNetwork, portable

Network = Callable[[Tensor], Tensor]


def forms(
    model: SuperResolutionModel, photographs: list[Path]
) -> Iterator[tuple[str, int, Callable[[], Network]]]:
    """All forms of a network: (name, bytes, what makes a function that enlarges as `forward`)."""
    parameters = sum(tensor.nbytes for tensor in model.state_dict().values())
    yield "PyTorch", parameters, lambda: model
    file = to_onnx(model)
    int8 = to_int8(file, model, calibration_pictures(photographs, model.scale))
    for name, content in (("", file), (" fp16", to_fp16(file)), (" int8", int8)):
        yield f"ONNX{name}", len(content), partial(OnnxNetwork, content, threads=1)
    network = portable(model)
    is_luma = isinstance(network, LumaNetwork)
    for name, fp16 in (("", False), (" fp16", True)):
        param, weights = to_ncnn(network, 1 if is_luma else 3, fp16=fp16)
        make = partial(NcnnNetwork, param, weights)
        size = len(param) + len(weights)
        yield f"ncnn{name}", size, partial(of_luma, make, model.scale) if is_luma else make


def of_luma(make: Callable[[], Network], scale: int) -> Network:
    """A network of luma alone, with the enlargement and the color that belong to it."""
    run = make()

    def enlarge(lr: Tensor) -> Tensor:
        enlarged = imresize(lr, scale)
        return replace_luma(enlarged, run(luma(enlarged)))

    return enlarge


def score(network: Network, scale: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Mean PSNR on the first pictures of each set."""
    scores = {}
    for name in args.benchmarks:
        benchmark = open_benchmark(name, scale, args.benchmark_dir)
        values = []
        for index in range(min(args.pictures, len(benchmark))):
            _, lr, hr = benchmark[index]
            sr = network(lr[None].float() / 255)[0]
            values.append(psnr_y(sr, hr.float() / 255, scale))
        scores[name] = {"psnr_y": fmean(values), "n": len(values)}
    return scores


def timed(network: Network, picture: Tensor) -> float:
    start = process_time()
    network(picture)
    return process_time() - start


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=3)
    parser.add_argument("models", nargs="+", help="folders or names of models")
    parser.add_argument("--benchmark_dir", type=Path, required=True, help="as for evaluate.py")
    parser.add_argument("--calibration_dir", type=Path, required=True, help="as for export.py")
    parser.add_argument("--benchmarks", nargs="+", default=["Set5", "B100"])
    parser.add_argument("--pictures", type=whole(), default=20, help="of each set, at most")
    parser.add_argument("--side", type=whole(), default=128, help="of the picture that is timed")
    args = parser.parse_args(argv)
    set_up_cpu(1)
    photographs = picture_files(args.calibration_dir)
    sizes: dict[str, int] = {}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    seconds: dict[str, list[float]] = {}
    ratios: list[tuple[str, str]] = []
    for name in args.models:
        model = load_model(name)
        title = f"{type(model).__name__} x{model.scale}"
        makers: dict[str, Callable[[], Network]] = {}
        for kind, size, make in forms(model, photographs):
            form = f"{title}, {kind}"
            makers[form], sizes[form] = make, size
            # Of a network of its own, as each keeps the memory that its largest picture took.
            scores[form] = score(make(), model.scale, args)
            print(form, f"{size / 1e6:.2f} MB", scores[form], flush=True)
        picture = torch.rand(1, 3, args.side, args.side)
        variants = {form: partial(timed, make(), picture) for form, make in makers.items()}
        seconds |= take_turns(variants, args.rounds)
        pytorch, *others = makers
        ratios += [(form, pytorch) for form in others]
        # After each network: all of them take long.
        packages = ["onnx", "onnxscript", "onnxruntime", "pnnx", "ncnn"]
        report(
            args,
            "seconds of the processor",
            seconds,
            ratios,
            packages=packages,
            bytes=sizes,
            scores=scores,
        )


if __name__ == "__main__":
    main()
