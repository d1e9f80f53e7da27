"""Enlarges your pictures by a trained network.

    python upscale.py photo.jpg --size 1920x               # by a model in pretrained/, to upscaled/
    python upscale.py photo.jpg --scale 4 --model out/a2n-x4
    python upscale.py holidays "*.png" --model user/a2n-x2 --output large --format png
    python upscale.py photo.jpg --model out/a2n --self_ensemble --page compare.html

Gray, transparent and 16-bit pictures stay so; large ones are enlarged in tiles. Under `accelerate
launch`, the processes share the pictures.
"""

import common.start

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from tqdm import tqdm

from common.data.inputs import (
    Job,
    as_lines,
    cannot_be_output,
    is_done,
    is_picture,
    is_written,
    plan,
    read_ahead,
    read_sizes,
    strip_of,
    targets_of,
)
from common.errors import UserError
from common.files import cannot_write, delete_leftovers, last_name
from common.gallery import Gallery, fill
from common.hub import load_model
from common.images.formats import Picture, PictureError, TooLargeError, read_picture, to_rgb
from common.images.kinds import FORMATS, KINDS
from common.images.strip import Versions, make_strip
from common.images.tensors import to_tensor
from common.images.writing import check_size, write_picture
from common.inference import ALIGNMENT, Enlarger
from common.machine import check_compiler, check_processes_meet, set_up_cpu
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, add_model_arguments, real, wanted_size, whole
from common.page.page import Page, cannot_write_page
from common.pretrained import choose, choose_to_reach, chosen_in_words
from common.sizes import Size
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
        help=f"pictures ({', '.join(KINDS)}), folders, searched with their subfolders, or patterns "
        "such as '*.png'",
    )
    model = parser.group("model")
    add_model_arguments(model, any_scale=True)
    model.add_argument(
        "--photo",
        action="store_true",
        help="choose the model for JPEG of cameras and sites, which leaves blocks and noise alone",
    )
    model.add_argument(
        "--size",
        type=wanted_size,
        metavar="4000x3000|4000x|x3000",
        help="size of the results in pixels, in place of --scale: a picture is fit into it, "
        "undistorted; a larger one becomes smaller",
    )
    model.add_argument(
        "--stretch",
        action="store_true",
        help="make the results exactly as wide and high as --size says, distorted if need be",
    )
    output = parser.group("output", "What is written, and where.")
    output.add_argument(
        "--output",
        type=Path,
        default=Path("upscaled"),
        help="folder for the results, with the subfolders of the inputs; or, for one picture, file "
        "of its result, as big.png",
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
        "--overwrite", action="store_true", help="replace results, and a --page, that exist already"
    )
    output.add_argument(
        "--comparison",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="also write strips of input, bicubic and result: beside each result, as "
        "photo_x2.jpg_comparison.png, or of the first 20 pictures into a FILE",
    )
    output.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="also write a page of HTML, one file, to compare bicubic and result in a browser",
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
        "--compile", action="store_true", help="compile by torch.compile; it pays for many pictures"
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
    args = parser.parse_args(argv)
    if args.size:
        args.size = args.size._replace(stretch=args.stretch)
    return args


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if reason := cannot_be_output(args.output):
        yield f"--output {args.output} {reason}"
    if is_picture(args.output) and (args.format or args.suffix):
        yield f"--output {args.output} names the result, so leave out --format and --suffix"
    if args.size and args.scale:
        yield "--size and --scale exclude each other; give one of them"
    if args.photo and args.model:
        yield "--photo chooses a model, and so does --model; give one of them"
    if args.stretch and not (args.size and args.size.width and args.size.height):
        yield "--stretch needs a --size of two sides, 4000x3000 for example"
    sheet = args.comparison if args.comparison is not True else None
    if sheet and sheet.suffix.lower() not in FORMATS:
        yield f"--comparison {sheet} must end in one of {' '.join(FORMATS)}"
    # It could be a picture that was meant as an input, so it is not even replaced by --overwrite.
    elif sheet and (reason := cannot_write(sheet, overwrite=False)):
        yield f"--comparison {sheet} {reason.partition(';')[0]}; pictures to enlarge come before it"
    if args.page and (reason := cannot_write_page(args.page, args.overwrite)):
        yield f"--page {args.page} {reason}"
    if args.suffix and Path(args.suffix).name != args.suffix:
        yield f"--suffix {args.suffix} is a part of names; folders are for --output"


def write(
    args: argparse.Namespace, gallery: Gallery, job: Job, lr: Picture, sr: Picture, label: str
) -> None:
    """Writes the result and what is to be shown of it, except where it is there already."""
    path = job.output
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_written(args, path):
        write_picture(sr, path, args.quality)
    has_strip = args.comparison is True and is_written(args, strip_of(path))
    if has_strip or gallery.takes(job.number):
        before, after = (to_tensor(to_rgb(picture)) for picture in (lr, sr))
        versions = Versions.of(before, [(label, after)])
        gallery.add(job.number, job.path.name, versions)
        if has_strip:
            write_picture(Picture(np.asarray(make_strip(versions))), strip_of(path))


def read_result(path: Path, size: tuple[int, int]) -> Picture:
    """Reads the result of an earlier start, to show it.

    Raises:
        ValueError: The result cannot be read, or has another size.
    """
    try:
        sr = read_picture(path, inf)
    except PictureError as error:
        raise ValueError(f"{path} is there, but {error}; see --overwrite") from None
    if sr.pixels.shape[:2] != size:
        height, width = size
        raise ValueError(f"{path} is there, and is not {width}x{height}; see --overwrite")
    return sr


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # (Some may be done long before the others, for whom they wait.)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(days=7))
    check_processes_meet(state.num_processes)
    set_up_cpu(args.cpu_threads)
    if args.mixed_precision == "fp16" and state.device.type == "cpu":
        raise UserError("fp16 does not work on a CPU. Use --mixed_precision bf16 or no.")
    if args.compile:
        check_compiler(state.device)
    wanted = args.size or (Size(factor=args.scale) if args.scale else None)
    inputs = plan(args, wanted.suffix) if wanted else None
    name = args.model or choose(None, args.photo)
    if not args.model and inputs and wanted:
        sizes = read_sizes((path for path, _ in inputs.jobs), args.max_megapixels)
        name = choose_to_reach(max((wanted.factor_for(*s) for s in sizes), default=1), args.photo)
    if not args.model and state.is_main_process:
        print(chosen_in_words(name))
    network = load_model(name, args.revision)
    wanted = wanted or Size(factor=network.scale)
    network.to(state.device).to(memory_format=torch.channels_last)
    if wanted.factor not in network.scales and state.is_main_process:
        print(factors_in_words(network))
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
    jobs, refused, said = inputs or plan(args, wanted.suffix)
    for folder in {output.parent for _, output in jobs}:
        delete_leftovers(folder)
    files = [job for job in jobs if args.overwrite or not is_done(args, job[1])]
    (files,) = broadcast_object_list([files])  # as the first process found them
    work = [Job(number, path, output) for number, (path, output) in enumerate(files)]
    mine = work[state.process_index :: state.num_processes]
    gallery = Gallery(sheet=isinstance(args.comparison, Path), page=args.page is not None)
    written = {
        path: [f"{file}" for file in targets_of(args, output) if is_written(args, file)]
        for path, output in files
    }
    try:
        failures = enlarge_all(args, enlarger, wanted, gallery, mine)
    except KeyboardInterrupt:
        print(
            f"Stopped. What is done is in {args.output}, whole. Without --overwrite, the same "
            "command does the others.",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGINT) from None

    failures = {path: error for part in gather_object([failures]) for path, error in part.items()}
    shown = show(args, gallery, f"{type(network).__name__}, {last_name(name)}")
    state.destroy_process_group()  # while all are still there
    if state.is_main_process:
        there = len(jobs) - len(files)
        if files:
            total = plural(len(files) + len(refused), "picture")
            print(f"Enlarged {len(files) - len(failures)} of {total}, in {args.output}.")
            made = [f"{file}" for file in shown]
            made += [name for path in written if path not in failures for name in written[path]]
            if made:
                print(f"Written: {enumerate_first(made)}")
        if there:
            print(
                f"Kept as before, perhaps by another model: {plural(there, 'result')} in "
                f"{args.output}. --overwrite makes them anew, another --output keeps both."
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


def factors_in_words(network: SuperResolutionModel) -> str:
    name, factors = type(network).__name__, " or ".join(map(str, network.scales))
    return f"{name} enlarges by {factors}, as often as needed; bicubic then makes the size exact."


def show(args: argparse.Namespace, gallery: Gallery, title: str) -> list[Path]:
    """Writes the sheet and the page, if pictures were enlarged; all processes call it.

    Returns:
        Files that were written.
    """
    files = []
    if isinstance(args.comparison, Path) and gallery.write_sheet(args.comparison):
        files.append(args.comparison)
    if args.page and (pictures := gallery.gathered()):
        page = Page(title, "Each picture as bicubic and as the network enlarge it.")
        fill(page, pictures)
        if PartialState().is_main_process:
            page.write(args.page)
        files.append(args.page)
    return files


def enlarge_all(
    args: argparse.Namespace, enlarger: Enlarger, wanted: Size, gallery: Gallery, jobs: list[Job]
) -> dict[Path, str]:
    """Enlarges pictures, and reads and writes others meanwhile.

    Returns:
        The reason for each picture that could not be enlarged.
    """
    failures: dict[Path, str] = {}
    sizes = read_sizes((job.path for job in jobs), args.max_megapixels)
    with (
        tqdm(
            total=sum(enlarger.count_pixels(size, wanted.of(*size)) for size in sizes),
            desc="Enlarging",
            unit=" pixels",
            unit_scale=True,
            disable=None if PartialState().is_main_process else True,  # None: on a terminal only
        ) as bar,
        ThreadPoolExecutor(1) as pool,
        Writers(failures) as writers,
    ):
        for job, reading in read_ahead(pool, jobs, args.max_megapixels):
            path, output = job.path, job.output
            bar.set_postfix_str(printable(path.name))
            try:
                lr = reading.result()
                if lr.frames > 1:
                    say(f"{path}: the first of its {lr.frames} frames is enlarged.")
                size = wanted.of(*lr.pixels.shape[:2])
                check_size(output, *size)
                if is_written(args, output):
                    label = type(enlarger.network).__name__
                    sr = enlarger.enlarge(lr, bar.update, size)
                else:
                    sr, label = read_result(output, size), output.name
            except TooLargeError as error:
                failures[path] = f"{error}; see --max_megapixels"
                continue
            except Exception as error:  # errors of many kinds, as of memory
                failures[path] = f"{error}" or type(error).__name__
                continue
            pixels = sr.pixels.shape[0] * sr.pixels.shape[1]
            writers.submit(path, pixels, partial(write, args, gallery, job, lr, sr, label))
    return failures


if __name__ == "__main__":
    main()
