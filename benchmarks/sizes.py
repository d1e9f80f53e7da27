"""PSNR at factors between those of a network, as upscale.py --scale gives them, beside bicubic.

    python -m benchmarks.sizes a2n-x2 --benchmark_dir DIR --factors 1.5 3

HR is reduced by the factor, by MATLAB's bicubic and to 8 bits, and enlarged to its own size again.
It is cropped first, so that LR has whole pixels. PSNR is that of evaluate.py, without a border of
the next whole number of pixels above the factor. `weights` are the checksums of the models' files.
"""

import hashlib
import sys
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

from benchmarks.measure import benchmark_parser, report
from common.data.benchmarks import open_benchmark
from common.files import last_name
from common.hub import find_model, load_model
from common.images.resize import crop_to_multiple, imresize
from common.images.tensors import to_tensor
from common.inference import Enlarger
from common.machine import set_up_cpu
from common.metrics import psnr_y
from common.network import WEIGHTS
from common.options import real


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=1)
    parser.add_argument("models", nargs="+", help="folders or names of models")
    parser.add_argument("--factors", nargs="+", type=real(above=1), default=[1.5])
    parser.add_argument("--benchmark_dir", type=Path, help="as for evaluate.py")
    parser.add_argument("--benchmark", default="Set5")
    args = parser.parse_args(argv)
    set_up_cpu(1)
    pictures = open_benchmark(args.benchmark, 2, args.benchmark_dir)
    enlargers, weights = {}, {}
    for name in args.models:
        network = load_model(name)
        scales = " ".join(f"x{scale}" for scale in network.scales)
        enlargers[f"{type(network).__name__} {scales}"] = Enlarger(network)
        content = (find_model(name) / WEIGHTS).read_bytes()
        weights[last_name(name)] = hashlib.sha256(content).hexdigest()
    results: dict[str, list[float]] = {}
    for factor in args.factors:
        whole = Fraction(factor).limit_denominator(10)
        border = ceil(factor)
        for index in range(len(pictures)):
            hr = crop_to_multiple(pictures[index][2], whole.numerator)
            height, width = hr.shape[1:]
            lr = imresize(hr, [int(side / whole) for side in (height, width)])
            bicubic = imresize(lr.float(), [height, width]) / 255
            enlarged = {"bicubic": bicubic.clamp(0, 1)}
            for name, enlarger in enlargers.items():
                sr = enlarger(lr.permute(1, 2, 0).numpy(), size=f"{width}x{height}")
                enlarged[name] = to_tensor(sr).float() / 255
            for name, image in enlarged.items():
                scores = results.setdefault(f"{name}, by {factor:g}", [])
                scores.append(psnr_y(image, hr.float() / 255, border))
    means = {name: round(fmean(scores), 3) for name, scores in results.items()}
    report(args, f"PSNR-Y of {args.benchmark}, dB", results, [], means=means, weights=weights)


if __name__ == "__main__":
    main()
