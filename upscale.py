"""Enlarges your pictures by a trained network.

    python upscale.py photo.jpg                            # by a model in pretrained/, to upscaled/
    python upscale.py photo.jpg --scale 4 --model out/a2n-x4
    python upscale.py holidays "*.png" --model user/a2n-x2 --output large --format png
    python upscale.py photo.jpg --model out/a2n --self_ensemble --comparison

Gray, transparent and 16-bit pictures stay so; large ones are enlarged in tiles. Under `accelerate
launch`, the processes share the pictures.
"""

import common.start

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import zip_longest
from math import inf
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from PIL import Image
from tqdm import tqdm

from common.data.inputs import as_lines, plan, strip_of, targets_of
from common.errors import UserError
from common.files import cannot_make, delete_leftovers
from common.hub import load_model
from common.images.formats import (
    Picture,
    PictureError,
    TooLargeError,
    check_regular,
    read_picture,
    to_8_bits,
)
from common.images.kinds import DECODED
from common.images.strip import make_strip
from common.images.tensors import to_tensor
from common.images.writing import check_size, write_picture
from common.inference import ALIGNMENT, Enlarger
from common.machine import check_compiler, set_up_cpu
from common.options import Arguments, Parser, add_model_arguments, real, whole
from common.pretrained import choose
from common.tables import enumerate_first, plural
from common.terminal import printable, say
from common.workers import Writers


def tile_size(text: str) -> int | None:
    """Type of an option, for argparse: None for `auto`, or a whole multiple of `ALIGNMENT`."""
    if text == "auto":
        return None
    if text.isdecimal() and (size := whole(least=0)(text)) % ALIGNMENT == 0:
        return size
    raise argparse.ArgumentTypeError(f"{text} is neither auto nor a multiple of {ALIGNMENT}")


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="pictures (PNG, JPEG, BMP, WebP, TIFF, GIF, JPEG 2000, AVIF, HEIC), folders, searched "
        "with their subfolders, or patterns such as '*.png'",
    )
    add_model_arguments(parser.group("model"))
    output = parser.group("output", "What is written, and where.")
    output.add_argument(
        "--output",
        type=Path,
        default=Path("upscaled"),
        help="folder for the results, with the subfolders of the inputs",
    )
    output.add_argument("--suffix", help="end of the names of the results (default: _x2 and so on)")
    output.add_argument(
        "--format",
        choices=["png", "jpg", "bmp", "webp", "tiff"],
        help="format of the results; png, tiff and webp hold transparency, jpg and bmp do not, and "
        "only png and tiff hold 16 bits (default: that of each input)",
    )
    output.add_argument(
        "--quality",
        type=whole(1, 100),
        metavar="1-100",
        default=95,
        help="quality of JPEG and WebP, as Pillow counts it",
    )
    output.add_argument(
        "--overwrite", action="store_true", help="replace results that exist already"
    )
    output.add_argument(
        "--comparison",
        action="store_true",
        help="also write a strip of input, bicubic and result, photo_x2.jpg_comparison.png",
    )
    how = parser.group("run", "How it is computed.")
    how.add_argument(
        "--tile",
        type=tile_size,
        default="auto",
        metavar="auto|N|0",
        help="side of a tile in pixels; 0: whole pictures; auto: tiles where the result has more "
        "than 4 megapixels",
    )
    how.add_argument(
        "--attention_window",
        type=whole(0, 64),
        metavar="0-64",
        help="for A2N: side in pixels over which its attention takes means, 0 for the whole "
        "picture (default: 64 in tiles, otherwise 0)",
    )
    how.add_argument(
        "--self_ensemble",
        action="store_true",
        help="take the mean over 8 flips and rotations: a little better, 8 times as slow",
    )
    how.add_argument(
        "--mixed_precision",
        choices=["no", "fp16", "bf16"],
        default="no",
        help="type of the numbers in the network; no: float32; bf16 or fp16: faster on a GPU, and "
        "bf16 on some CPUs",
    )
    how.add_argument(
        "--compile",
        action="store_true",
        help="compile by torch.compile, which pays for many pictures",
    )
    how.add_argument(
        "--cpu_threads",
        type=whole(most=10_000),
        help="threads that compute on a CPU (default: OMP_NUM_THREADS, or its share of the cores)",
    )
    how.add_argument(
        "--max_megapixels",
        type=real(above=0),
        default=200.0,
        help="refuse larger pictures, which the memory may not hold",
    )
    parser.checks.append(check_options)
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if reason := cannot_make(args.output):
        yield f"--output {args.output} {reason}"
    if args.suffix and Path(args.suffix).name != args.suffix:
        yield f"--suffix {args.suffix} is a part of names; folders are for --output"


def is_done(args: argparse.Namespace, output: Path) -> bool:
    """Whether all files of a picture are there."""
    return all(map(os.path.exists, targets_of(args, output)))


def is_written(args: argparse.Namespace, file: Path) -> bool:
    """Whether a file is to be written, and does not stay as it is."""
    return args.overwrite or not file.exists()


def write(args: argparse.Namespace, lr: Picture, sr: Picture, path: Path, label: str) -> None:
    """Writes the result and the strip for --comparison, except where they are there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_written(args, path):
        write_picture(sr, path, args.quality)
    if args.comparison and is_written(args, strip_of(path)):
        write_picture(Picture(np.asarray(strip(lr, sr, label))), strip_of(path))


def strip(lr: Picture, sr: Picture, label: str) -> Image.Image:
    """Makes a strip of the crop in the middle of the picture that differs most."""
    scale = sr.pixels.shape[0] // lr.pixels.shape[0]
    height, width = (min(side, 512) for side in lr.pixels.shape[:2])
    top, left = (lr.pixels.shape[0] - height) // 2, (lr.pixels.shape[1] - width) // 2

    def middle(pixels: np.ndarray, factor: int) -> torch.Tensor:
        part = pixels[top * factor :, left * factor :][: height * factor, : width * factor]
        return to_tensor(np.array(np.broadcast_to(to_8_bits(part), (*part.shape[:2], 3))))

    return make_strip(middle(lr.pixels, 1), [(label, middle(sr.pixels, scale))])


def read_result(path: Path, lr: Picture, scale: int) -> Picture:
    """Reads the result of an earlier start, for --comparison.

    Raises:
        ValueError: The result cannot be read, or has another size.
    """
    try:
        sr = read_picture(path, inf)
    except PictureError as error:
        raise ValueError(f"{path} is there, but {error}; see --overwrite") from None
    height, width = lr.pixels.shape[:2]
    if sr.pixels.shape[:2] != (height * scale, width * scale):
        raise ValueError(f"{path} is there, and is not x{scale} of it; see --overwrite")
    return sr


def read_ahead(
    pool: ThreadPoolExecutor, files: list[tuple[Path, Path]], max_megapixels: float
) -> Iterator[tuple[Path, Path, Future[Picture]]]:
    """Reads the pictures; while one is used, the next is being read."""
    upcoming = None
    for (path, output), following in zip_longest(files, files[1:]):
        current = upcoming or pool.submit(read_picture, path, max_megapixels)
        upcoming = following and pool.submit(read_picture, following[0], max_megapixels)
        yield path, output, current


def count_pixels(files: list[tuple[Path, Path]], max_megapixels: float) -> int:
    """Counts the pixels of all pictures that are not too large, by their headers."""
    sizes = []
    for path, _ in files:
        with suppress(Exception):
            check_regular(path)
            with Image.open(path, formats=DECODED) as image:
                sizes.append(image.width * image.height)
    return sum(size for size in sizes if size <= max_megapixels * 1e6)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # (Some may be done long before the others, for whom they wait.)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(days=7))
    set_up_cpu(args.cpu_threads)
    if args.mixed_precision == "fp16" and state.device.type == "cpu":
        raise UserError("fp16 does not work on a CPU. Use --mixed_precision bf16, or none.")
    if args.compile:
        check_compiler(state.device)
    name = args.model or choose(args.scale)
    if not args.model and state.is_main_process:
        print(f"Model: {name}, of this repository.")
    network = load_model(name, args.revision, args.scale)
    network.to(state.device).to(memory_format=torch.channels_last)
    enlarger = Enlarger(
        network,
        state.device,
        tile=args.tile,
        attention_window=args.attention_window,
        self_ensemble=args.self_ensemble,
        compiled=args.compile,
        dtype={"bf16": torch.bfloat16, "fp16": torch.float16}.get(args.mixed_precision),
        say=say,
    )
    jobs, refused, said = plan(args, network.scale)
    args.output.mkdir(parents=True, exist_ok=True)
    for folder in {output.parent for _, output in jobs}:
        delete_leftovers(folder)
    files = [job for job in jobs if args.overwrite or not is_done(args, job[1])]
    (files,) = broadcast_object_list([files])  # as the first process found them
    mine = files[state.process_index :: state.num_processes]
    written = {
        path: [f"{file}" for file in targets_of(args, output) if is_written(args, file)]
        for path, output in files
    }
    try:
        failures = enlarge_all(args, enlarger, mine)
    except KeyboardInterrupt:
        print(
            f"Stopped. What is done is in {args.output}, whole. Without --overwrite, the same "
            "command does the others.",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGINT) from None

    failures = {path: error for part in gather_object([failures]) for path, error in part.items()}
    state.destroy_process_group()  # while all are still there
    if state.is_main_process:
        there = len(jobs) - len(files)
        if files:
            done = len(files) - len(failures)
            total = plural(len(files) + len(refused), "picture")
            print(f"Enlarged {done} of {total}, in {args.output}.")
            if made := [name for path in written if path not in failures for name in written[path]]:
                print(f"Written: {enumerate_first(made)}")
        if there:
            print(
                f"{plural(there, 'result')} in {args.output} stay as before, perhaps by another "
                "model. --overwrite makes them anew, another --output keeps both."
            )
        if said:
            print(said)
    failures |= refused
    if failures:
        message = (
            f"Could not enlarge {len(failures)} of {len(files) + len(refused)} pictures:\n"
            f"{as_lines(failures)}"
        )
        raise UserError(message) if state.is_main_process else SystemExit(1)


def enlarge_all(
    args: argparse.Namespace, enlarger: Enlarger, files: list[tuple[Path, Path]]
) -> dict[Path, str]:
    """Enlarges pictures, and reads and writes others meanwhile.

    Returns:
        The reason for each picture that could not be enlarged.
    """
    network = enlarger.network
    failures: dict[Path, str] = {}
    with (
        tqdm(
            total=count_pixels(files, args.max_megapixels),
            desc="Enlarging",
            unit=" pixels",
            unit_scale=True,
            disable=None if PartialState().is_main_process else True,  # None: on a terminal only
        ) as bar,
        ThreadPoolExecutor(1) as pool,
        Writers(failures) as writers,
    ):
        for path, output, reading in read_ahead(pool, files, args.max_megapixels):
            bar.set_postfix_str(printable(path.name))
            try:
                lr = reading.result()
                if lr.frames > 1:
                    say(f"{path}: the first of its {lr.frames} frames is enlarged.")
                height, width = lr.pixels.shape[:2]
                check_size(output, height * network.scale, width * network.scale)
                if is_written(args, output):
                    sr, label = enlarger.enlarge(lr, bar.update), type(network).__name__
                else:
                    sr, label = read_result(output, lr, network.scale), output.name
            except TooLargeError as error:
                failures[path] = f"{error}; see --max_megapixels"
                continue
            except Exception as error:  # errors of many kinds, as of memory
                failures[path] = f"{error}" or type(error).__name__
                continue
            pixels = sr.pixels.shape[0] * sr.pixels.shape[1]
            writers.submit(path, pixels, partial(write, args, lr, sr, output, label))
    return failures


if __name__ == "__main__":
    main()
