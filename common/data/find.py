"""Finding pictures: in folders, with the LR beside them, and in the scikit-image package."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.data.degradation import MADE
from common.data.layouts import (
    HR_NAME,
    LR_NAME,
    describe_kinds,
    hr_folders,
    is_of_another_split,
    of_one_scale,
    pair_names,
    picture_files,
    split_names,
    subfolders,
)
from common.data.pairs import Pairs
from common.data.twins import find_twins
from common.errors import UserError
from common.images.kinds import EXTENSIONS
from common.terminal import printable

# The photographs in the scikit-image package. The benchmark `sample` is never trained on.
# Validation takes the last training picture; it must not be one of the two views of the motorcycle.
SAMPLE_TRAIN = (
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
    "chelsea.png",
)
SAMPLE_BENCHMARK = ("astronaut.png", "coffee.png")

# A picture before it is decoded: {"name": ..., "hr": file, "lr_x2": file}, where a file is
# {"path": ..., "bytes": ...} as in an undecoded Image column of `datasets`; one of the two is None.
# An LR that is not there is made from HR.
Source = dict[str, Any]


class Listing(NamedTuple):
    """Pictures that were found, not decoded yet.

    Attributes:
        sources: Pictures, or rows of a data set.
        identity: Key of the cache for them, JSON values. Default: paths, sizes and times.
        roots: Folders, or addresses on the Hub, in which a source may name files; links do not lead
            out. The rows of a data set come from elsewhere, and must not have this program open
            other files. Default: any file, for sources that this program has listed itself.
        lr: Where their LR comes from, in words.
    """

    sources: Any
    identity: list[Any] | None = None
    roots: list[str] | None = None
    lr: str = MADE


def find_pictures(folder: Path, scales: Sequence[int]) -> list[Source]:
    """The `sources` of `list_folder`."""
    sources: list[Source] = list_folder(folder, scales).sources
    return sources


def list_folder(
    folder: Path, scales: Sequence[int], split: str = "", reads_lr: bool = True
) -> Listing:
    """Lists the pictures below a folder, in the order of their names.

    Where a folder has one of the LAYOUTS, only the pictures of its HR folder count, and those of
    its LR folders belong to the HR pictures of the same name. LR is made from HR, when HR is
    decoded, where no LR lies there; so it is for a scale that a folder of bicubic LR lacks.

    Args:
        folder: Folder, searched with its subfolders.
        scales: Factors of the LR that is wanted. None at all: the caller makes LR from HR, so LR
            other than bicubic is refused.
        split: One of SPLITS, to be taken where the folder has several.
        reads_lr: Whether LR is read or refused; if not, it is left alone.

    Raises:
        UserError: There is no such folder, no picture in it, an HR picture without its LR, or
            pictures at several sizes in no known layout.
    """
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}. Check the path. Where T91, the 291 and DIV2K come from "
            "is told in docs/data.md."
        )
    place = _enter(folder, scales, split)
    hr_folder, lr_folders = _choose_hr(place, split)
    if hr_folder != place and (part := splits_of(hr_folder)):
        hr_folder = _of_split(hr_folder, part, split)
        lr_folders = [child if (child := lr / hr_folder.name).is_dir() else lr for lr in lr_folders]
    paths = picture_files(hr_folder)
    if not paths:
        endings = " ".join(EXTENSIONS)
        raise UserError(
            f"There is no picture in {hr_folder} or below. Known endings: {endings}. "
            f"{describe_kinds(hr_folder)}"
        )
    if hr_folder == place and (named := _named_hr(hr_folder, paths)):
        paths, lr_folders = named, [hr_folder]
    elif hr_folder == place:
        check_unpaired(hr_folder, paths)
    elif not lr_folders:
        beside = [child for child in subfolders(place) if child != hr_folder]
        others = [path for child in beside for path in picture_files(child)]
        _refuse_twins(place, find_twins(place, [*paths, *others], of_equal_size=False))
    sources: list[Source] = [
        {"name": printable(path.relative_to(hr_folder)), "hr": _file(path)} for path in paths
    ]
    found: dict[int, str] = {}
    if lr_folders and reads_lr:
        pairs = Pairs(hr_folder, paths, lr_folders, len(scales) == 1)
        if not scales:
            pairs.refuse_unread()
        for scale in scales:
            if files := pairs.lr_of(scale):
                shown = files[0].relative_to(folder)
                found[scale] = f"read from {folder.resolve().name}/{printable(shown)} and so on"
                for source, file in zip(sources, files, strict=True):
                    source[f"lr_x{scale}"] = _file(file)
    return Listing(sources, lr=lr_in_words([found.get(scale, MADE) for scale in scales], scales))


def lr_in_words(origins: Sequence[str], scales: Sequence[int]) -> str:
    """Where the LR of each scale comes from, in one line."""
    if set(origins) <= {MADE}:
        return MADE
    if len(scales) == 1:
        return origins[0]
    return ", ".join(f"x{scale} {origin}" for scale, origin in zip(scales, origins, strict=True))


def splits_of(folder: Path) -> dict[str, Path]:
    """Subfolders for training and for something else, by the names of SPLITS; none without both.

    The folders are `train`, `valid` and so on, or folders of HR like `DIV2K_train_HR`.
    """
    names = split_names([child.name for child in subfolders(folder)])
    return {split: folder / name for split, name in names.items()}


def has_split(folder: Path, split: str) -> bool:
    """Whether `list_folder` would find pictures of this split, besides those for training."""
    return any(split in splits_of(place) for place in (folder, *hr_folders(folder)))


def _of_split(folder: Path, splits: dict[str, Path], split: str) -> Path:
    if split not in splits:
        names = ", ".join(sorted(child.name for child in splits.values()))
        raise UserError(f"{folder} holds {names}. Name one of them.")
    return splits[split]


def _enter(folder: Path, scales: Sequence[int], split: str) -> Path:
    """Goes down to the folder of the split, and to that of the scale where each has its own HR."""
    while True:
        splits = splits_of(folder)
        children = {child.name: int(match[1]) for child, match in of_one_scale(folder)}
        if splits and not hr_folders(folder):
            folder = _of_split(folder, splits, split)
        elif any(_is_paired(folder / name) for name in children) and not hr_folders(folder):
            names = [name for name, scale in children.items() if [scale] == list(scales)]
            if len(names) != 1:
                raise UserError(
                    f"{folder} holds HR of its own for each scale ({', '.join(children)}). Name "
                    "one of these folders, and its --scale."
                )
            folder = folder / names[0]
        else:
            return folder


def _choose_hr(folder: Path, split: str) -> tuple[Path, list[Path]]:
    """(folder of HR, folders of LR): the folder itself without LR, where it has no LAYOUT."""
    sets = hr_folders(folder)
    if len(sets) > 1 and split in (splits := splits_of(folder)):
        hr = splits[split]
        sets = {hr: [lr for lr in sets[hr] if not is_of_another_split(lr.name, split)]}
    if len(sets) > 1:
        names = ", ".join(sorted(child.name for child in sets))
        raise UserError(f"{folder} holds several sets of HR pictures ({names}). Name one of them.")
    return next(iter(sets.items()), (folder, []))


def _is_paired(folder: Path) -> bool:
    """Whether a folder holds HR and LR: by its subfolders, or by the names of its pictures."""
    stems = (path.stem for path in folder.iterdir())
    return any(hr_folders(folder).values()) or any(
        re.fullmatch(LR_NAME, stem, re.I) for stem in stems
    )


def _named_hr(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """The HR pictures of a folder where HR and LR are told apart by HR_NAME and LR_NAME."""
    hr = {path: match[1] for path in paths if (match := re.fullmatch(HR_NAME, path.stem, re.I))}
    bases = {(path.parent, base) for path, base in hr.items()}
    lr = [(path.parent, m[1]) for path in paths if (m := re.fullmatch(LR_NAME, path.stem, re.I))]
    if not bases & set(lr):
        return []
    # (SelfExSR also has the results of methods, img_001_SRF_2_bicubic.png.)
    other = [
        path
        for path in paths
        if path not in hr and (path.parent, re.sub("_[^_]*$", "", path.stem)) not in bases
    ]
    if other:
        raise UserError(
            f"{folder} holds HR and LR (..._HR.png, ..._LR.png), and {other[0].name}, which "
            "belongs to no HR. Move such pictures elsewhere."
        )
    _refuse_splits(_folders_below(folder, hr))
    return list(hr)


def check_unpaired(folder: Path, paths: Sequence[Path]) -> None:
    """Refuses a folder whose pictures are not all HR, but lie there in pairs or splits.

    Raises:
        UserError: Folders of HR and LR lie deeper in it, or of several splits, or some pictures are
            others at the same size or at 1/2 to 1/8.
    """
    below = _folders_below(folder, paths)
    for parent, names in below.items():
        for hr, lr in pair_names(sorted(names)).items():
            if lr:
                raise UserError(
                    f"{parent} holds HR and LR, {hr} beside {lr[0]}. Name {parent} itself by "
                    f"--train_data_dir, or {parent / hr} to have LR made from HR."
                )
    _refuse_splits(below)
    _refuse_twins(folder, find_twins(folder, paths))


def _refuse_twins(folder: Path, twins: tuple[Path, Path] | None) -> None:
    if twins:
        raise UserError(
            f"{twins[0]} and {twins[1]} in {folder} show the same, as HR and LR do, but in no "
            "layout that is known. Name the folder of HR alone, or name the folders hr and lr."
        )


def _refuse_splits(below: dict[Path, set[str]]) -> None:
    for parent, names in below.items():
        if splits := split_names(sorted(names)):
            raise UserError(f"{parent} holds {', '.join(splits.values())}. Name one of them.")


def _folders_below(folder: Path, paths: Iterable[Path]) -> dict[Path, set[str]]:
    """Names of the subfolders in which there are pictures, by the folder that they are in."""
    below: dict[Path, set[str]] = {}
    for parent in map(Path, {os.path.dirname(path) for path in paths}):
        while parent != folder:
            below.setdefault(parent.parent, set()).add(parent.name)
            parent = parent.parent
    return below


def sample_pictures(names: Sequence[str]) -> list[Source]:
    """The pictures of these names in the scikit-image package."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [{"name": name, "hr": _file(folder / name)} for name in names]


def _file(path: Path) -> dict[str, Any]:
    real = os.path.realpath(path)
    if "::" in real:
        raise UserError(f"{real} has :: in it, which means a file in an archive. Rename it.")
    return {"path": real, "bytes": None}
