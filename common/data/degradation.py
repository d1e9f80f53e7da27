"""How LR is made from HR: by a preset, or by a function in a file of the user's own.

    degrade = Degradation("photo")
    lr = degrade(hr, 2, patch_generator(seed=0, number=7))  # uint8 (H, W, 3) to (H / 2, W / 2, 3)

What comes out is a function of the pixels, the scale and the generator. A generator is a function
of the seed and a number, or of a name.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from common.data.presets import PRESETS, Draw, draw_jpeg
from common.errors import UserError
from common.images.stages import apply_stages
from common.options import Group, Parser

NONE = "none"
MADE = "made from HR"
# Pixels of LR around a patch that are degraded with it, and dropped: at least so many, so that the
# blur and the resizing of `photo` do not see where the crop ends (the widest blurs of `bsrgan` and
# `realesrgan`, on a picture made smaller than LR, reach further, and see it mirrored there); and up
# to 15 more, so that the blocks of JPEG, 16 pixels with their colors, begin anywhere in a patch.
LEAST_MARGIN, GRID = 8, 16
_RUNS_FILES = ContextVar("runs files of the user's own", default=True)


class DegradationError(ValueError):
    """Reason why a function of the user's own gave no LR."""


@contextmanager
def degradation_refused() -> Iterator[None]:
    """Turns a DegradationError into a UserError; a context, or a decorator.

    Raises:
        UserError: A function of the user's own gave no LR.
    """
    try:
        yield
    except DegradationError as error:
        raise UserError(f"--degradation: {error}") from error


@contextmanager
def own_files_refused() -> Iterator[None]:
    """Makes `--degradation` refuse a FILE.py: for command lines that may be somebody else's.

    It would be run where the command is only parsed, that of a record for example.
    """
    token = _RUNS_FILES.set(False)
    try:
        yield
    finally:
        _RUNS_FILES.reset(token)


Function = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


class Degradation:
    """Makes LR from HR.

    Attributes:
        name: Name of a preset, `jpeg:QUALITY`, or `FILE.py:FUNCTION@CHECKSUM`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, hr: np.ndarray, scale: int, generator: np.random.Generator) -> np.ndarray:
        """Degrades a picture.

        Args:
            hr: HR, uint8, (H, W, 3); `scale` divides both sides.
            scale: Factor from LR to HR.
            generator: Source of all that is random.

        Returns:
            LR, uint8, (H / scale, W / scale, 3).

        Raises:
            DegradationError: A function of the user's own has failed, or returned something else.
        """
        if draw := find_preset(self.name):
            return apply_stages(hr, draw(generator, scale), generator)
        shape = (hr.shape[0] // scale, hr.shape[1] // scale, 3)
        try:
            lr = _function_of(self.name)(hr, scale, generator)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DegradationError(f"{self.name} failed: {reason}") from error
        if not isinstance(lr, np.ndarray) or lr.shape != shape or lr.dtype != np.uint8:
            what = f"{lr.dtype} {lr.shape}" if isinstance(lr, np.ndarray) else type(lr).__name__
            raise DegradationError(
                f"{self.name} returned {what} for HR of {hr.shape}. It must return a uint8 array "
                f"of {shape}."
            )
        return lr


def patch_generator(seed: int, number: int) -> np.random.Generator:
    """Generator of a training patch."""
    # The third number gives other draws than those of the patches, scales and streams.
    return np.random.default_rng((seed, number, 3))


def picture_generator(name: str) -> np.random.Generator:
    """Generator of a whole picture, by its name without the ending: the same in every set."""
    stem = Path(name).with_suffix("").as_posix()
    return np.random.default_rng(
        list(hashlib.sha256(stem.encode("utf-8", "backslashreplace")).digest())
    )


def open_degradation(name: str) -> Degradation | None:
    """Degradation of that name; None for `none`, where LR is MATLAB's bicubic or that of a pair."""
    return None if name == NONE else Degradation(name)


def find_preset(name: str) -> Draw | None:
    """Finds a preset by its name, or JPEG of one quality by `jpeg:QUALITY`; None if it is none.

    Raises:
        ValueError: Pillow's JPEG has no such quality.
    """
    preset, colon, text = name.partition(":")
    if preset != "jpeg" or not colon:
        return PRESETS.get(name)
    quality = int(text) if text.isdecimal() else 0
    if text != f"{quality}" or not 1 <= quality <= 95:
        raise ValueError(f"{name}: a quality of JPEG is a whole number from 1 to 95, as in jpeg:75")
    return partial(draw_jpeg, quality=(quality, quality))


def maker_of_lr(name: str) -> str:
    """What makes LR, in words. The folder of a file says nothing elsewhere."""
    if name == NONE:
        return "MATLAB's bicubic"
    return f"--degradation {without_folder(name)}"


def without_folder(name: str) -> str:
    """Name of a degradation by which runs compare it: a file is known by its checksum."""
    file, colon, function = name.rpartition(":")
    return f"{Path(file).name}{colon}{function}"


def origin_of_lr(found: str, name: str) -> str:
    """Where LR comes from, in words.

    Args:
        found: `made from HR`, or where it was found, in words; both if there are several scales.
        name: Name of the degradation.

    Raises:
        UserError: LR was found, which a degradation would throw away.
    """
    if name != NONE and found != MADE:
        raise UserError(
            f"--degradation {name} makes LR from HR, and these pictures have LR of their own, "
            f"{found}. Leave it out, or name HR alone, by its folder or --image_column."
        )
    return found.replace(MADE, f"{MADE} by {maker_of_lr(name)}")


def add_degradation_argument(options: Parser | Group, **settings: Any) -> None:
    """Adds `--degradation`, with further settings of `Group.add_argument`."""
    options.add_argument(
        "--degradation",
        type=degradation_name,
        default=NONE,
        metavar="NAME",
        help="how LR is made from HR: none (MATLAB's bicubic), jpeg, jpeg:75 (of that quality), "
        "photo, bsrgan, realesrgan, or FILE.py:FUNCTION, a function of your own",
        **settings,
    )


def degradation_name(text: str) -> str:
    """Type of the option, for argparse.

    A file of the user's own is loaded at once, to find its mistakes, and its checksum becomes part
    of the name: a run does not go on with another version of it. Only a command line comes here,
    never a config.json or a checkpoint, which may be of somebody else; for the command line of a
    record there is `own_files_refused`.
    """
    try:
        if text == NONE or find_preset(text):
            return text
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}") from None
    path, _, function = text.rpartition(":")
    names = ", ".join([NONE, *PRESETS, "jpeg:QUALITY"])
    if not path.endswith(".py") or not function.isidentifier():
        raise argparse.ArgumentTypeError(f"{text} is none of {names}, and not FILE.py:FUNCTION")
    if not _RUNS_FILES.get():
        raise argparse.ArgumentTypeError(
            f"{text} is not run, since a record names it; only a file on your own command line is"
        )
    try:
        name = f"{text}@{_digest(Path(path).read_bytes())}"
        _function_of(name)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error.strerror}") from None
    except (Exception, SystemExit) as error:  # whatever is wrong in the user's file
        raise argparse.ArgumentTypeError(
            f"{text} cannot be loaded: {type(error).__name__}: {error}"
        ) from None
    return name


@lru_cache
def _function_of(name: str) -> Function:
    """Function of the user's own, by `FILE.py:FUNCTION@CHECKSUM`; each process loads it once.

    The bytes that the checksum is of are run, not a compiled copy that may be older.
    """
    path, _, rest = name.rpartition(":")
    function, _, digest = rest.partition("@")
    code = Path(path).read_bytes()
    if _digest(code) != digest:
        raise ValueError("the file has changed since the program began")
    module: dict[str, Any] = {"__name__": Path(path).stem, "__file__": path}
    exec(compile(code, path, "exec"), module)
    if not callable(module.get(function)):
        raise ValueError(f"there is no function {function} in it")
    return module[function]


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()[:8]
