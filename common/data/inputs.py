"""The pictures that a command line names to be enlarged, and the files of their results.

jobs, refused, said = plan(args, "_x2")
"""

import argparse
import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from common.data.layouts import describe_kinds, picture_files
from common.errors import UserError
from common.files import cannot_make
from common.images.formats import ORIENTATION, SIDEWAYS, Picture, check_regular, read_picture
from common.images.kinds import DECODED, EXTENSIONS, FORMATS, UNREAD
from common.terminal import printable

LONGEST_NAME = 255  # bytes, on nearly all disks


class Job(NamedTuple):
    """A picture to enlarge: its number, its file and that of its result."""

    number: int
    path: Path
    output: Path


class Inputs(NamedTuple):
    """Pictures to enlarge.

    Attributes:
        jobs: Each picture with the file of its result.
        refused: Reason for each picture that cannot be enlarged, known before it is read.
        said: What was left out of the folders, in words.
    """

    jobs: list[tuple[Path, Path]]
    refused: dict[Path, str]
    said: str


def find_inputs(args: argparse.Namespace) -> tuple[list[tuple[Path, Path]], str]:
    """Finds the pictures, each with its path below the output folder.

    Returns:
        (pictures, what was left out of the folders, in words).

    Raises:
        UserError: There is nothing under a name, or no picture at all.
    """
    found: dict[Path, tuple[Path, Path]] = {}  # by the file, which may be named twice
    output = args.output.resolve()
    said, has_left_out = [], False
    for text in args.inputs:
        names = [text] if Path(text).exists() else sorted(glob.glob(text, recursive=True))
        if not names:
            raise UserError(f"There is no {text}: no picture, no folder, nothing like it.")
        for path in map(Path, names):
            if path.is_dir():
                has_output = output.is_relative_to(path.resolve())
                for file in picture_files(path):
                    real = Path(os.path.realpath(file))
                    if has_output and real.is_relative_to(output):
                        has_left_out = True  # what an earlier start wrote is no input
                    else:
                        found.setdefault(real, (file, file.relative_to(path)))
                if kinds := describe_kinds(path):
                    said.append(f"{path}: {kinds}")
            else:
                found.setdefault(Path(os.path.realpath(path)), (path, Path(path.name)))
    if not found:
        endings = " ".join(EXTENSIONS)
        clause = f", leaving out what is in --output {args.output}" if has_left_out else ""
        raise UserError(
            f"There is no picture in {' '.join(args.inputs)}{clause}. Known endings: {endings}. "
            f"{' '.join(said)}"
        )
    return list(found.values()), "\n".join(said)


def plan(args: argparse.Namespace, suffix: str) -> Inputs:
    """Pairs the pictures with the files of their results; results of an earlier start are left out.

    Args:
        args: Options of upscale.py.
        suffix: End of the names of the results, where the options give none.

    Raises:
        UserError: No picture can be enlarged.
    """
    suffix = suffix if args.suffix is None else args.suffix
    found, said = find_inputs(args)
    if is_picture(args.output):
        # What an earlier start wrote is no input. (--overwrite must not replace what is named.)
        written = [strip_of(args.output), *([] if args.overwrite else [args.output])]
        ours = set(map(_identity, written))
        found = [each for each in found if _identity(each[0]) not in ours] or found
        if len(found) > 1:
            raise UserError(
                f"--output {args.output} is one picture, and {len(found)} are to be enlarged. Name "
                "a folder."
            )
    plain: dict[Path, set[Path]] = {}
    for _, relative in found:
        name = relative.with_suffix(ending_of_result(args, relative))
        plain.setdefault(name, set()).add(relative)
    jobs = []
    for path, relative in found:
        ending = ending_of_result(args, relative)
        # Two pictures a.png and a.jpg keep their endings where both would become a_x2.png.
        alone = len(plain[relative.with_suffix(ending)]) == 1
        stem = relative.stem if alone else relative.name
        result = args.output / relative.with_name(f"{stem}{suffix}{ending}")
        jobs.append((path, args.output if is_picture(args.output) else result))
    owners: dict[Path, list[Path]] = {}
    for path, output in jobs:
        for target in targets_of(args, output):
            owners.setdefault(target, []).append(path)
    inputs = {_identity(path) for path, _ in jobs}
    refused: dict[Path, str] = {}
    for path, output in jobs:
        if path.suffix.lower() in UNREAD:
            refused[path] = f"{path.suffix} is not read; {UNREAD[path.suffix.lower()]}"
        for target in targets_of(args, output):
            is_input = _identity(target) in inputs
            if other := [owner for owner in owners[target] if owner != path]:
                refused[path] = f"it and {other[0]} would both become {target}; enlarge it alone"
            elif is_input and (args.overwrite or _identity(target) == _identity(path)):
                refused[path] = (
                    f"it would become {target}, which is an input itself; give another --suffix or "
                    "--output"
                )
            elif len(os.fsencode(target.name)) > LONGEST_NAME:
                refused[path] = "the name of its result would be too long; rename it"
    if len(refused) == len(jobs):
        raise UserError(f"No picture can be enlarged:\n{as_lines(refused)}")
    results = {_identity(target) for _, output in jobs for target in (output, strip_of(output))}
    jobs = [
        (path, output)
        for path, output in jobs
        if path not in refused and _identity(path) not in results
    ]
    return Inputs(jobs, refused, said)


def _identity(path: Path) -> tuple[int, int] | str:
    """The same for all names of a file: links, and img.JPG on a disk that ignores case."""
    try:
        status = path.stat()
    except OSError:  # it is not there yet
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def ending_of_result(args: argparse.Namespace, path: Path) -> str:
    ending = path.suffix.lower()
    if args.format:
        return f".{args.format}"
    if ending in (".jfif", ".jpe", ".mpo"):
        return ".jpg"
    # What is not written, and what shows to be a picture only when it is read, becomes PNG.
    return ending if ending in FORMATS else ".png"


def is_picture(output: Path) -> bool:
    """Whether `--output` is the file of a result, and not a folder for results."""
    return output.suffix.lower() in FORMATS and not output.is_dir()


def cannot_be_output(output: Path) -> str:
    """Says why there can be no results at `--output`, before any is made; "" if there can."""
    endings = {*EXTENSIONS, *UNREAD} - FORMATS.keys()
    if output.suffix.lower() in endings and not output.is_dir():
        return f"is no picture that can be written; end it in one of {' '.join(FORMATS)}"
    return cannot_make(output.parent if is_picture(output) else output)


def targets_of(args: argparse.Namespace, output: Path) -> list[Path]:
    """Files that are written for a picture."""
    return [output, strip_of(output)] if args.comparison is True else [output]


def is_written(args: argparse.Namespace, file: Path) -> bool:
    """Whether a file is to be written, and does not stay as it is."""
    return args.overwrite or not file.exists()


def is_done(args: argparse.Namespace, output: Path) -> bool:
    """Whether all files of a picture are there, and it need not be shown again."""
    is_shown = args.page or isinstance(args.comparison, Path)
    return not is_shown and all(map(os.path.exists, targets_of(args, output)))


def as_lines(reasons: Mapping[Path, str]) -> str:
    return "\n".join(f"  {printable(f'{path}: {reason}')}" for path, reason in reasons.items())


def strip_of(output: Path) -> Path:
    """Path of the strip that --comparison writes for a result."""
    return output.with_name(f"{output.name}_comparison.png")


def read_ahead(
    pool: ThreadPoolExecutor, jobs: list[Job], max_megapixels: float
) -> Iterator[tuple[Job, Future[Picture]]]:
    """Reads the pictures; while one is used, the next is being read."""
    upcoming = None
    for job, following in zip_longest(jobs, jobs[1:]):
        current = upcoming or pool.submit(read_picture, job.path, max_megapixels)
        upcoming = following and pool.submit(read_picture, following.path, max_megapixels)
        yield job, current


def read_sizes(paths: Iterable[Path], max_megapixels: float) -> list[tuple[int, int]]:
    """Height and width of all pictures that are not too large, upright, by their headers."""
    sizes = []
    for path in paths:
        with suppress(Exception):
            check_regular(path)
            with Image.open(path, formats=DECODED) as image:
                is_sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
                is_sideways &= image.format != "TIFF"  # which Pillow turns by itself
                sizes.append(image.size if is_sideways else image.size[::-1])
    return [(height, width) for height, width in sizes if height * width <= max_megapixels * 1e6]
