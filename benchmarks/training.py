"""Training patches a second of SRCNN or VDSR, and the share of a step that waits for them.

    python -m benchmarks.training --data_dir FOLDER

    plain       a plain loop as in public tutorials: float32, PyTorch's default memory format and
                (unfused) Adam, the loss read at every step. The patches were cut, enlarged and
                converted to luma beforehand; a float32 HDF5 file holds what the network gets
    ours        the training script itself, with its default optimizer: it also cuts the patches
                out of the pictures, enlarges them and converts them to luma, at every step
    ours, bf16  the same with --mixed_precision bf16

All train the same convolutions on batches and patches of the same size, x3, with two workers of the
loader. Each variant lives in a process of its own, and they wait for their turns. A step waits from
asking for its batch until the batch is on the device.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import datasets
import h5py
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import benchmark_parser, processes, report, take_turns
from common.data.cache import decode_pictures
from common.data.find import SAMPLE_TRAIN, find_pictures, sample_pictures
from common.data.patches import PatchDataset
from common.images.color import luma
from common.images.resize import imresize
from common.machine import set_up_cpu
from common.options import whole
from common.training import validation
from common.training.run import Run
from train_srcnn import SRCNN
from train_vdsr import VDSR

SCALE = 3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VARIANTS = ("plain", "ours", "ours, bf16")
PATCHES = 4096  # in the HDF5 file
NEVER = 10**9  # steps


class HDF5Patches(Dataset[tuple[Tensor, Tensor]]):
    """Luma in [0, 1], (1, H, W): bicubic and HR."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return PATCHES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.file is None:  # in each worker its own
            self.file = h5py.File(self.path, "r")
        return torch.from_numpy(self.file["lr"][index]), torch.from_numpy(self.file["hr"][index])


def write_patches(args: argparse.Namespace, path: Path) -> None:
    sources = (
        find_pictures(args.data_dir, [SCALE]) if args.data_dir else sample_pictures(SAMPLE_TRAIN)
    )
    pictures, _ = decode_pictures(sources, [SCALE])
    patches = PatchDataset(pictures, [SCALE], args.patch_size, args.batch_size, seed=0)
    lr, hr = (images.float() / 255 for images in patches.__getitems__(range(PATCHES)))
    with h5py.File(path, "w") as file:
        file.create_dataset("lr", data=luma(imresize(lr, SCALE)).numpy())
        file.create_dataset("hr", data=luma(hr).numpy())


def take_turn(
    batches: Iterator[tuple[Tensor, Tensor]], pipe: Connection
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields so many batches a turn as `pipe` says; sends the seconds of all and of waiting."""
    while steps := pipe.recv():
        start, waited = perf_counter(), 0.0
        for _ in range(steps):
            asked = perf_counter()
            batch = next(batches)
            waited += perf_counter() - asked
            yield batch
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        pipe.send((perf_counter() - start, waited))


def endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for lr, hr in loader:
            yield lr.to(DEVICE), hr.to(DEVICE)


def plain(args: argparse.Namespace, file: Path, pipe: Connection) -> None:
    set_up_cpu()
    layers = VDSR([SCALE]).layers if args.network == "vdsr" else SRCNN(SCALE).layers
    network = layers.to(DEVICE)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    loader = DataLoader(
        HDF5Patches(file), args.batch_size, shuffle=True, num_workers=2, drop_last=True
    )
    for lr, hr in take_turn(endless(loader), pipe):
        sr = network(lr) + (lr if args.network == "vdsr" else 0)
        loss = F.mse_loss(sr, hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def run_script(network: str, options: Sequence[object], pipe: Connection) -> None:
    """Runs `train_{network}.py`; only its run takes turns."""

    class TakesTurns(Run):
        def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
            if until != 0:
                yield from take_turn(super().batches(until), pipe)
                raise SystemExit  # before a later phase waits for turns that never come

    script = importlib.import_module(f"train_{network}")
    runs = mock.patch.object(script, "Run", TakesTurns)
    never = ("--validation_steps", NEVER, "--checkpointing_steps", NEVER, "--report_to", "none")
    sys.argv = [f"train_{network}.py", *map(str, [*options, *never])]
    validation.FIRST_VALIDATION = 0  # of no step
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing), runs:
        script.main()


def data_options(data_dir: Path | None) -> list[object]:
    return ["--train_data_dir", data_dir] if data_dir else ["--dataset_name", "sample"]


def work(pipe: Connection, variant: str, args: argparse.Namespace, folder: Path) -> None:
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    if variant == "plain":
        plain(args, folder / "patches.h5", pipe)
        return
    precision = "bf16" if "bf16" in variant else "no"
    options = [
        *("--scale", SCALE, "--batch_size", args.batch_size, "--patch_size", args.patch_size),
        *("--max_train_steps", NEVER, "--mixed_precision", precision),
        *("--output_dir", folder / f"ours-{precision}", *data_options(args.data_dir)),
    ]
    run_script(args.network, options, pipe)


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=7)
    parser.add_argument("--network", choices=["srcnn", "vdsr"], default="srcnn")
    parser.add_argument(
        "--patch_size", type=whole(), default=33, help="of HR (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=whole(), default=64, help="default: %(default)s")
    parser.add_argument(
        "--steps", type=whole(), default=50, help="of a turn (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    args.data_dir = args.data_dir and args.data_dir.resolve()
    args.output = args.output.with_stem(f"{args.output.stem}_{args.network}")

    waiting: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with TemporaryDirectory() as name:
        folder = Path(name)
        datasets.config.HF_DATASETS_CACHE = folder / "cache"
        write_patches(args, folder / "patches.h5")
        with processes(work, VARIANTS, args, folder) as pipes:

            def patches_per_second(variant: str) -> float:
                pipes[variant].send(args.steps)
                seconds, waited = pipes[variant].recv()
                waiting[variant].append(waited / seconds)
                return args.batch_size * args.steps / seconds

            results = take_turns(
                {variant: partial(patches_per_second, variant) for variant in VARIANTS},
                args.rounds,
            )
    shares = {  # without the first turn, which warms up
        variant: round(sum(values[1:]) / len(values[1:]), 4) for variant, values in waiting.items()
    }
    setting = {key: getattr(args, key) for key in ("network", "batch_size", "patch_size", "steps")}
    pairs = [(variant, "plain") for variant in VARIANTS[1:]]
    report(
        args,
        "patches a second",
        results,
        pairs,
        DEVICE,
        packages=["h5py"],
        setting=setting,
        share_of_time_waiting=shares,
    )


if __name__ == "__main__":
    main()
