"""Training patches a second on one core: ours, the tutorials' HDF5 file, and decoding PNG files.

    python -m benchmarks.loader --data_dir FOLDER

Every variant makes batches of 32 pairs, LR 64x64 and HR 128x128, at random positions, flipped and
rotated at random, in the main process with one thread:

    ours           `PatchDataset`: uint8, cut from the memory-mapped pictures
    ours, float32  the same, then divided by 255 on this core; when training, the device does that
    HDF5           what public tutorials do: a float32 file of 480x480 sub-images (200 pixels apart)
                   and their LR, opened for each sample; both read whole, cropped, flipped, collated
    PNG            the sub-images as files: decoded by Pillow, cropped, shrunk by Pillow's bicubic,
                   flipped, collated; left in uint8, to its advantage

All files are new and thus in the memory of the operating system, so no variant waits for a disk.
The aim is 10 times HDF5 and 60 times PNG.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/loader.py`

import common.start

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, default_convert

from benchmarks.measure import SCALE, benchmark_parser, decode, find_sources, report, take_turns
from common.data.cache import Pictures
from common.data.patches import PatchDataset
from common.errors import UserError
from common.images.tensors import to_float, to_tensor
from common.options import whole

BATCH_SIZE, LR_SIZE = 32, 64
HR_SIZE = SCALE * LR_SIZE
SUB_IMAGE, SUB_IMAGE_STEP = 480, 200


class HDF5SubImages(Dataset[tuple[Tensor, Tensor]]):
    """Float32 sub-images in [0, 1], (3, 480, 480) in `hr` and (3, 240, 240) in `lr`."""

    def __init__(self, path: Path, length: int) -> None:
        self.path, self.length = path, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with h5py.File(self.path, "r") as file:
            hr = file["hr"][str(index)][()]
            lr = file["lr"][str(index)][()]
        top = random.randint(0, lr.shape[1] - LR_SIZE)
        left = random.randint(0, lr.shape[2] - LR_SIZE)
        lr = lr[:, top : top + LR_SIZE, left : left + LR_SIZE]
        top, left = SCALE * top, SCALE * left
        hr = hr[:, top : top + HR_SIZE, left : left + HR_SIZE]
        if random.random() < 0.5:
            lr, hr = lr[:, :, ::-1], hr[:, :, ::-1]
        if random.random() < 0.5:
            lr, hr = lr[:, ::-1], hr[:, ::-1]
        if random.random() < 0.5:
            lr, hr = np.rot90(lr, axes=(1, 2)), np.rot90(hr, axes=(1, 2))
        return torch.from_numpy(lr.copy()), torch.from_numpy(hr.copy())


class PNGSubImages(Dataset[tuple[Tensor, Tensor]]):
    """HR sub-images in PNG files; LR is made from the patch."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.paths[index]).convert("RGB")
        left = random.randint(0, image.width - HR_SIZE)
        top = random.randint(0, image.height - HR_SIZE)
        hr = image.crop((left, top, left + HR_SIZE, top + HR_SIZE))
        if random.random() < 0.5:
            hr = hr.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < 0.5:
            hr = hr.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if random.random() < 0.5:
            hr = hr.transpose(Image.Transpose.ROTATE_90)
        lr = hr.resize((LR_SIZE, LR_SIZE), Image.Resampling.BICUBIC)
        return to_tensor(np.array(lr)), to_tensor(np.array(hr))


def write_sub_images(pictures: Pictures, folder: Path, limit: int) -> tuple[Path, list[Path]]:
    """Writes sub-images, at most `limit` of all there are, as one HDF5 file and as PNG files."""
    places = [
        (index, top, left)
        for index, (height, width) in enumerate(pictures.sizes)
        for top in range(0, height - SUB_IMAGE + 1, SUB_IMAGE_STEP)
        for left in range(0, width - SUB_IMAGE + 1, SUB_IMAGE_STEP)
    ]
    if not places:
        raise UserError(f"No picture has {SUB_IMAGE}x{SUB_IMAGE} pixels. Name another --data_dir.")
    places = random.sample(places, min(limit, len(places)))
    paths = []
    with h5py.File(folder / "train.h5", "w") as file:
        for number, (index, top, left) in enumerate(places):
            pixels = pictures.hr(index)[top : top + SUB_IMAGE, left : left + SUB_IMAGE].copy()
            hr = Image.fromarray(pixels.view(np.uint8).reshape(SUB_IMAGE, SUB_IMAGE, 3))
            lr = hr.resize((SUB_IMAGE // SCALE, SUB_IMAGE // SCALE), Image.Resampling.BICUBIC)
            for key, image in (("hr", hr), ("lr", lr)):
                values = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
                file.create_dataset(f"{key}/{number}", data=values)
            paths.append(folder / f"{number}.png")
            hr.save(paths[-1])
    return folder / "train.h5", paths


def our_batches(patches: PatchDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """As in `Run.batches`."""
    # Any: PyTorch asks for lists here, but takes ranges as well.
    numbers: Iterator[Any] = (range(i, i + BATCH_SIZE) for i in count(0, BATCH_SIZE))
    return iter(DataLoader(patches, batch_sampler=numbers, collate_fn=default_convert))


def our_float_batches(patches: PatchDataset) -> Iterator[tuple[Tensor, Tensor]]:
    cpu = torch.device("cpu")
    for lr, hr in our_batches(patches):
        yield to_float(lr, cpu), to_float(hr, cpu)


def their_batches(sub_images: HDF5SubImages | PNGSubImages) -> Iterator[tuple[Tensor, Tensor]]:
    sampler = RandomSampler(sub_images, replacement=True, num_samples=10**9)
    return iter(DataLoader(sub_images, BATCH_SIZE, sampler=sampler))


def patches_per_second(batches: Iterator[tuple[Tensor, Tensor]], seconds: float) -> float:
    """Takes batches for so many seconds."""
    patches, start = 0, perf_counter()
    while True:
        lr, hr = next(batches)
        assert lr.shape == (BATCH_SIZE, 3, LR_SIZE, LR_SIZE)
        assert hr.shape == (BATCH_SIZE, 3, HR_SIZE, HR_SIZE)
        patches += BATCH_SIZE
        passed = perf_counter() - start
        if passed >= seconds:
            return patches / passed


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    parser.add_argument(
        "--max_sub_images", type=whole(), default=300, help="each takes 3.5 MB of disk"
    )
    args = parser.parse_args(argv)
    random.seed(0)

    with TemporaryDirectory() as folder:
        pictures = decode(find_sources(args.data_dir), folder)
        h5, pngs = write_sub_images(pictures, Path(folder), args.max_sub_images)
        patches = PatchDataset(pictures, [SCALE], HR_SIZE, BATCH_SIZE, seed=0)
        torch.set_num_threads(1)
        loaders = {
            "ours": our_batches(patches),
            "ours, float32": our_float_batches(patches),
            "HDF5": their_batches(HDF5SubImages(h5, len(pngs))),
            "PNG": their_batches(PNGSubImages(pngs)),
        }
        results = take_turns(
            {
                name: partial(patches_per_second, batches, args.seconds)
                for name, batches in loaders.items()
            },
            args.rounds,
        )
    pairs = [(ours, theirs) for ours in ("ours", "ours, float32") for theirs in ("HDF5", "PNG")]
    report(
        args,
        "patches a second, one core",
        results,
        pairs,
        packages=["h5py"],
        pictures=len(patches.pictures),
        sub_images=len(pngs),
    )


if __name__ == "__main__":
    main()
