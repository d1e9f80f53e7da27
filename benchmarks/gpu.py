"""A training on a GPU against a plain loop: speed, share of waiting, memory. One command, a JSON.

    python -m benchmarks.gpu                                  # A2N x2, 32 patches of 128x128
    python -m benchmarks.gpu --network vdsr --data_dir DIV2K --variants plain bf16

    plain              a loop as in official code: float32, PyTorch's default memory format and
                       (unfused) Adam, crops from PNG sub-images by four workers of a DataLoader,
                       the loss read at every step
    float32            the training script itself, with its defaults
    bf16               with --mixed_precision bf16
    bf16, loader       the same, but patches come from a loader, not from pictures on the GPU
    bf16, compiled     with --compile
    bf16, CUDA graphs  with --compile reduce-overhead

Each variant runs in processes of its own, one after the other, so that each has the whole machine.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import benchmark_parser, decode, find_sources, report, take_turns
from common.hub import find_network
from common.machine import ROOT, peak_memory, set_up_cpu
from common.options import whole

SCALE = 2
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = ["--mixed_precision", "bf16"]
VARIANTS = {
    "plain": [],
    "float32": [],
    "bf16": BF16,
    "bf16, loader": [*BF16, "--pictures_on", "loader"],
    "bf16, compiled": [*BF16, "--compile"],
    "bf16, CUDA graphs": [*BF16, "--compile", "reduce-overhead"],
}
NETWORKS = ["a2n", "srcnn", "vdsr", "srgan"]
OWN = {"srgan": ["--max_train_steps", "0", "--content_weight", "0"]}  # its first phase
SIDE, STRIDE = 480, 240  # of the sub-images


class SubImages(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of PNG files, flipped and turned, as floats: LR and HR."""

    def __init__(self, folder: Path, patch_size: int) -> None:
        self.files, self.patch_size = sorted(folder.glob("hr_*.png")), patch_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self.files[index]
        hr, lr = (
            np.asarray(Image.open(path.with_name(path.name.replace("hr", kind))))
            for kind in ("hr", "lr")
        )
        side = self.patch_size // SCALE
        top, left = (int(np.random.randint(length - side + 1)) for length in lr.shape[:2])
        turns, flips = np.random.randint(4), np.random.randint(2)
        patches = []
        for pixels, scale in ((lr, 1), (hr, SCALE)):
            rows = slice(top * scale, (top + side) * scale)
            patch = pixels[rows, left * scale : (left + side) * scale]
            patch = np.rot90(patch[:, ::-1] if flips else patch, turns)
            patches.append(torch.from_numpy(patch.transpose(2, 0, 1).astype(np.float32) / 255))
        return patches[0], patches[1]


def write_sub_images(data_dir: Path | None, patch_size: int, folder: Path) -> None:
    pictures = decode(find_sources(data_dir), f"{folder}/cache")
    for number, (height, width) in enumerate(pictures.sizes // SCALE * SCALE):
        for top in range(0, max(1, height - SIDE + 1), STRIDE):
            for left in range(0, max(1, width - SIDE + 1), STRIDE):
                for kind, pixels, scale in (
                    ("hr", pictures.hr(number), 1),
                    ("lr", pictures.lr(number, SCALE), SCALE),
                ):
                    side = SIDE // scale
                    part = pixels[top // scale :, left // scale :][:side, :side].copy()
                    image = Image.fromarray(part.view(np.uint8).reshape(*part.shape, 3))
                    if min(image.size) * scale >= patch_size:
                        image.save(folder / f"{kind}_{number}_{top}_{left}.png")


def run_plain(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The plain loop, in this process."""
    set_up_cpu()
    scale: dict[str, Any] = {"scales": [SCALE]} if args.network == "vdsr" else {"scale": SCALE}
    model = find_network(args.network)(**scale).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    data = SubImages(folder, args.patch_size)
    loader = DataLoader(
        data,
        args.batch_size,
        shuffle=True,
        num_workers=4 if DEVICE.type == "cuda" else 0,
        pin_memory=DEVICE.type == "cuda",
        drop_last=len(data) >= args.batch_size,
    )

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for lr, hr in loader:
                yield lr.to(DEVICE), hr.to(DEVICE)

    batches, waited, patches, start = endless(), 0.0, 0, 0.0
    for step in range(args.warm_up + args.steps):
        if step == args.warm_up:
            waited, patches, start = 0.0, 0, perf_counter()
        asked = perf_counter()
        lr, hr = next(batches)
        waited += perf_counter() - asked
        loss = F.l1_loss(model(lr), hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the GPU
        patches += len(lr)
    seconds = perf_counter() - start
    return {
        "steps_per_second": args.steps / seconds,
        "patches_per_second": patches / seconds,
        "share_of_time_waiting": waited / seconds,
        "peak_gb": peak_memory(DEVICE) if DEVICE.type == "cuda" else None,
    }


def measure(args: argparse.Namespace, variant: str, folder: Path) -> dict[str, Any]:
    """What a process finds that runs a variant."""
    file = folder / "found.json"
    setting = [f"--{n}={getattr(args, n)}" for n in ("steps", "warm_up")]
    sizes = [f"--{n}={getattr(args, n)}" for n in ("batch_size", "patch_size")]
    command: list[Any] = [sys.executable, "-m"]
    if variant == "plain":
        command += ["benchmarks.gpu", "--network", args.network, *setting, *sizes]
        command += ["--plain", folder, "--output", file]
    else:
        source = ["--train_data_dir", args.data_dir] if args.data_dir else []
        source = source or ["--dataset_name", "sample"]
        command += ["benchmarks.probe", "rate", *setting, "--json", file]
        command += [f"train_{args.network}.py", "--scale", SCALE, *sizes, *source]
        command += [*OWN.get(args.network, []), *VARIANTS[variant]]
    words = list(map(str, command))
    own = {"HF_DATASETS_CACHE": f"{folder / 'cache'}"}
    subprocess.run(words, cwd=ROOT, env=os.environ | own, check=True, stdout=subprocess.DEVNULL)
    return json.loads(file.read_text())


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__ or "", rounds=3)
    parser.add_argument("--network", choices=NETWORKS, default="a2n")
    parser.add_argument("--batch_size", type=whole(), default=32, help="default: %(default)s")
    parser.add_argument(
        "--patch_size", type=whole(), default=128, help="of HR (default: %(default)s)"
    )
    parser.add_argument("--steps", type=whole(), default=200, help="that count, of a turn")
    parser.add_argument("--warm_up", type=whole(), default=50, help="steps before them")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.plain:
        args.output.write_text(json.dumps(run_plain(args, args.plain)))
        return
    args.data_dir = args.data_dir and args.data_dir.resolve()
    args.output = args.output.with_stem(f"{args.output.stem}_{args.network}")

    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in args.variants}
    with TemporaryDirectory() as name:
        if "plain" in args.variants:
            write_sub_images(args.data_dir, args.patch_size, Path(name))

        def patches_per_second(variant: str) -> float:
            found[variant].append(measure(args, variant, Path(name)))
            return found[variant][-1]["patches_per_second"]

        turns: dict[str, Callable[[], float]] = {
            variant: partial(patches_per_second, variant) for variant in args.variants
        }
        results = take_turns(turns, args.rounds)

    def of_rounds(key: str) -> dict[str, list[float | None]]:
        return {variant: [turn[key] for turn in turns[1:]] for variant, turns in found.items()}

    setting = {n: getattr(args, n) for n in ("network", "batch_size", "patch_size", "steps")}
    pairs = [(variant, "plain") for variant in args.variants if variant != "plain"]
    pairs = pairs if "plain" in args.variants else []
    report(
        args,
        "patches a second",
        results,
        pairs,
        DEVICE,
        setting=setting,
        steps_per_second=of_rounds("steps_per_second"),
        share_of_time_waiting=of_rounds("share_of_time_waiting"),
        peak_gb=of_rounds("peak_gb"),
    )


if __name__ == "__main__":
    main()
