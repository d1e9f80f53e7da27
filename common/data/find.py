"""Finding pictures: in folders, with the LR beside them, and in the scikit-image package."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from common.images.kinds import EXTENSIONS, UNREAD, describe_unread
from common.tables import plural
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
    """

    sources: Any
    identity: list[Any] | None = None
    roots: list[str] | None = None


def find_pictures(folder: Path, scales: Sequence[int]) -> list[Source]:
    """Lists the pictures below a folder, in the order of their names.

    Where a folder has one subfolder `hr`, `*_HR` or `target`, only the pictures in the subfolder
    count. LR pictures beside it (in `lr`, `*_LR` or `*_LR_bicubic`, or in `data` beside `target`,
    directly or in `X2`, `X3`, `X4`) belong to the HR pictures of the same name; an LR name may end
    in `x2`. Where a scale has no LR pictures, LR is made from HR when HR is decoded. A subfolder
    `SRF_4` takes the place of its folder at x4.

    Raises:
        UserError: There is no such folder, no picture in it, or an HR picture without its LR.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Check the path.")
    if len(scales) == 1 and (folder / f"SRF_{scales[0]}").is_dir():
        folder = folder / f"SRF_{scales[0]}"
    hr_folders = [
        child for child in _subfolders(folder) if re.fullmatch(r"(.*_)?hr|target", child.name, re.I)
    ]
    if len(hr_folders) > 1:
        names = ", ".join(child.name for child in hr_folders)
        raise UserError(f"{folder} holds several sets of HR pictures ({names}). Name one of them.")

    hr_folder, lr_folder = folder, None
    if hr_folders:
        hr_folder = hr_folders[0]
        lr_name = re.escape(hr_folder.name[:-2]) + r"lr(_bicubic)?"
        if hr_folder.name.lower() == "target":
            lr_name = "data"
        lr_folder = next(
            (c for c in _subfolders(folder) if re.fullmatch(lr_name, c.name, re.I)), None
        )
    sources: list[Source] = [
        {"name": printable(path.relative_to(hr_folder)), "hr": _file(path)}
        for path in picture_files(hr_folder)
    ]
    if not sources:
        endings = " ".join(EXTENSIONS)
        raise UserError(
            f"There is no picture in {hr_folder} or below. Known endings: {endings}. "
            f"{describe_kinds(hr_folder)}"
        )
    if lr_folder:
        for scale in scales:
            _add_lr(sources, lr_folder, scale, of_one_scale=len(scales) == 1)
    return sources


def _add_lr(sources: list[Source], folder: Path, scale: int, of_one_scale: bool) -> None:
    """Finds the LR picture of each source, if there are any of this scale."""
    if any(re.fullmatch(r"X\d", child.name) for child in _subfolders(folder)):
        folder, of_one_scale = folder / f"X{scale}", True
    files = {
        printable(path.relative_to(folder).with_suffix("")): path for path in picture_files(folder)
    }
    for source in sources if files else []:
        stem = str(Path(source["name"]).with_suffix(""))
        names = [stem] * of_one_scale + [f"{stem}x{scale}"]
        lr = next((files[name] for name in names if name in files), None)
        if lr is None:
            raise UserError(
                f"{source['hr']['path']} has no LR picture {'.* or '.join(names)}.* in {folder}. "
                f"Add it, or rename {folder.name} to have LR made from HR."
            )
        source[f"lr_x{scale}"] = _file(lr)


def sample_pictures(names: Sequence[str]) -> list[Source]:
    """The pictures of these names in the scikit-image package."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [{"name": name, "hr": _file(folder / name)} for name in names]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())


def describe_kinds(folder: Path) -> str:
    """Says which pictures below a folder are not read, or not as a whole; "" if there are none."""
    read = picture_files(folder)
    said = [describe_unread(picture_files(folder, tuple(UNREAD)), len(read))]
    if gifs := sum(path.suffix.lower() == ".gif" for path in read):
        said.append(f"Of {plural(gifs, 'GIF')} the first frame is read.")
    return " ".join(filter(None, said))


def picture_files(folder: Path, endings: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """Lists all files below a folder with the ending of a picture, sorted; follows links."""
    paths, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder further up
            folders.clear()
            continue
        seen.add(real)
        paths += [Path(parent, name) for name in names if name.lower().endswith(endings)]
    return sorted(path for path in paths if not path.name.startswith("."))


def _file(path: Path) -> dict[str, Any]:
    return {"path": os.path.realpath(path), "bytes": None}
