"""Training patches a second on one core for each preset of `--degradation`.

    python -m benchmarks.degradation --data_dir FOLDER

Every variant makes batches of 32 pairs with LR 64x64 by `PatchDataset`, in the main process with
one thread. Time is that of the processor, so that other programs on the machine count less.
`share_of_waiting` is arithmetic: the share of its time that a training would wait for its patches
if 16 cores loaded them and it could do 100 steps of 32 patches a second.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/...`

import common.start

import datasets
import torch

from benchmarks.measure import benchmark_parser, find_sources, report, take_turns
from common.data.cache import decode_pictures
from common.data.degradation import NONE, open_degradation
from common.data.patches import PatchDataset
from common.data.presets import PRESETS

BATCH_SIZE, LR_SIZE, SCALES = 32, 64, (2, 4)
STEPS, CORES = 100, 16  # a second; that load


def patches_per_second(patches: PatchDataset, steps: Iterator[int], seconds: float) -> float:
    """Takes the batches of the next steps for so many seconds of the processor."""
    number, start = 0, process_time()
    while (passed := process_time() - start) < seconds:
        first = BATCH_SIZE * next(steps)
        patches.__getitems__(range(first, first + BATCH_SIZE))
        number += BATCH_SIZE
    return number / passed


def share_of_waiting(patches_a_second: float) -> float:
    """Share of its time that a training of `STEPS` waits, if patches come slower than it wants."""
    return max(0.0, 1 - CORES * patches_a_second / (STEPS * BATCH_SIZE))


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    args = parser.parse_args(argv)

    with TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        pictures, _ = decode_pictures(find_sources(args.data_dir), SCALES)
        torch.set_num_threads(1)
        variants = {}
        for scale, name in product(SCALES, (NONE, *PRESETS)):
            degradation, side = open_degradation(name), scale * LR_SIZE
            patches = PatchDataset(pictures, [scale], side, BATCH_SIZE, 0, degradation)
            variants[f"{name} x{scale}"] = partial(
                patches_per_second, patches, count(), args.seconds
            )
        results = take_turns(variants, args.rounds)
    ratios = [(f"{name} x{scale}", f"{NONE} x{scale}") for scale in SCALES for name in PRESETS]
    waiting = {name: share_of_waiting(median(values)) for name, values in results.items()}
    report(args, "patches a second, one core", results, ratios, share_of_waiting=waiting)


if __name__ == "__main__":
    main()
