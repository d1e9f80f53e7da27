"""Twins: two pictures that show the same at equal size or at 1/2 to 1/8, as HR and LR do."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.images.formats import check_regular, read_rgb

# What names of HR and LR end in, behind the same beginning: baby_HR, babyx2, img_SRF_2_LR, a_LR2.
ENDING = re.compile(
    r"([_-](hr|gt|hq|lr[2-8]?|lq|lrbi|bic|bicubic|srf_[2-8])|[_-]?x[2-8](m|d|w\d?)?)+$", re.I
)
BOX = Image.Resampling.BOX
TRIED = 5  # pairs of names that are looked at, evenly among all


def find_twins(
    folder: Path, paths: Sequence[Path], of_equal_size: bool = True
) -> tuple[Path, Path] | None:
    """Finds two twins below a folder, as paths below it, if such pairs are no exception.

    Only pictures are opened whose names are alike, in the same folder or in two that differ in one
    part of their path, and only a few of these. At least half of them must be twins: cameras and
    films have the same names for other pictures.

    Args:
        folder: Folder of all pictures.
        paths: The pictures.
        of_equal_size: Whether twins may have one size, if a quarter of the pictures has such names.
            (Somebody may keep the best ones in a folder of their own.)
    """
    beside: list[tuple[Path, Path]] = []
    apart: list[tuple[Path, Path]] = []
    for first, *others in _groups(folder, paths):
        for other in others[:2]:
            if other.parent != first.parent:
                apart.append((first, other))
            elif other.stem != first.stem:  # a.png and a.jpg are two formats
                beside.append((first, other))
    for pairs in (beside, apart):
        smallest = 1 if of_equal_size and 4 * len(pairs) >= len(paths) else 2
        tried = pairs[:: max(1, len(pairs) // TRIED)][:TRIED]
        twins = [pair for pair in tried if _are_twins(*pair, smallest)]
        if twins and 2 * len(twins) >= len(tried):
            one, other = twins[0]
            return one.relative_to(folder), other.relative_to(folder)
    return None


def _groups(folder: Path, paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Pictures whose paths are alike but for an ending, and for one folder that is another."""
    skip = len(folder.parts)
    groups: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    keys: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        parent, name = os.path.split(path)
        if parent not in keys:
            parts = Path(parent).parts[skip:]
            without = {(*parts[:i], *parts[i + 1 :]) for i in range(len(parts))}
            keys[parent] = [parts, *sorted(without)]
        name = ENDING.sub("", os.path.splitext(name)[0]).lower()
        for key in keys[parent]:
            groups[(*key, name)].append(path)
    return (group for group in groups.values() if len(group) > 1)


def _are_twins(one: Path, other: Path, smallest: int) -> bool:
    """Whether two pictures show the same, at 1/`smallest` to 1/8 of the size."""
    try:
        sizes = []
        for path in (one, other):
            check_regular(path)
            with Image.open(path) as image:
                sizes.append(image.size)
        small, large = sorted(sizes)
        if not any((large[0] // s, large[1] // s) == small for s in range(smallest, 9)):
            return False
        first, second = (
            np.asarray(Image.fromarray(read_rgb(path)).convert("L").resize((16, 16), BOX), float)
            for path in (one, other)
        )
    except Exception:  # decoders raise errors of many kinds, which decoding will tell
        return False
    if np.abs(first - second).mean() < 1:  # also of one color, whose correlation is not defined
        return True
    # (0 of 26,732 pairs of different photographs came above 0.85, and 1,306 of 1,312 photographs
    # with a copy that was smaller, blurred, noisy, brighter, gray, shifted or a JPEG.)
    first, second = first - first.mean(), second - second.mean()
    return bool((first * second).sum() > 0.85 * np.linalg.norm(first) * np.linalg.norm(second))
