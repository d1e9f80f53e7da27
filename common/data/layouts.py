"""The layouts of the field: how folders and pictures are named, and which are read."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from common.images.kinds import EXTENSIONS, UNREAD, describe_unread
from common.tables import plural

OF_SPLIT = "[_-](train(ing)?|val(id(ation)?)?|test(ing)?)"
# The layouts of the field: a folder of HR, and the folders of its LR beside it. `{}` stands for the
# beginning of the name of the HR folder. Upper and lower case are the same here and below.
LAYOUTS = (
    # DIV2K, Flickr2K, EDSR, DRealSR: DIV2K_train_HR, DIV2K_train_LR_bicubic/X2; HR_train, LR_train
    (rf"(.*[_ -]|)hr(_sub|_?x\d|_images?|{OF_SPLIT})?", r"{}lr.*"),
    # BasicSR, traiNNer: GTmod12, LRbicx2
    (rf"(.*[_ -]|)gt(mod\d+)?(_sub|{OF_SPLIT})?", r"{}(lq|lr).*"),
    (r"(.*[_ -]|)hq", r"{}(lq|lr).*"),  # KAIR
    (r"()target", r"data|inputs?"),  # tutorials of SRGAN: SRF_4/target, SRF_4/data
    (r"()original", r"lr.*"),  # Lornatang; a folder of HR only where there is LR beside it
)
# A folder of one scale: in a folder of LR, or with HR and LR of its own (SelfExSR, RealSR).
OF_ONE_SCALE = r"(?:image_srf_|srf_|lrbicx|x)?([2-8])(?:_sub)?"
# HR and LR in one folder, by their names: img_001_SRF_2_HR.png, Canon_001_LR2.png.
HR_NAME, LR_NAME = r"(.+)_hr(?:_?x[2-8])?", r"(.+)_lr[2-8]?"
# Names of the LR of an HR picture, without endings. The last of DIV2K are mild, difficult, wild.
LR_NAMES = (
    *("{stem}", "{base}_LR", "{base}_lr", "{stem}x{scale}", "{stem}_x{scale}"),
    *("{base}_LR{scale}", "{base}_lr{scale}", "{base}_LR_x{scale}"),
    *("{stem}x{scale}m", "{stem}x{scale}d", "{stem}x{scale}w", "{stem}x{scale}w1"),
)
SPLITS = {
    "train": "train(ing)?",
    "validation": "val|valid|validat(e|ion)|eval",
    "test": "test(ing)?",
}
# Folders of a split `{}`: train, train_data, trainsets; DIV2K_train_HR; HR_train
OF_ONE_SPLIT = (
    r"({})([_-]?(sets?|data|images?))?",
    r"(.*[_-])?({})[_-](hr|gt).*",
    r"(.*[_-])?(hr|gt)[_-]({})",
)
# Folders in which systems and programs keep previews and copies, beside those that begin with a dot
HIDDEN = {"@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN"}


def hr_folders(folder: Path) -> dict[Path, list[Path]]:
    """Subfolders of HR, by the LAYOUTS, and the folders of LR beside each."""
    children = {child.name: child for child in subfolders(folder)}
    names = pair_names(list(children))
    return {children[hr]: [children[name] for name in lr] for hr, lr in names.items()}


def pair_names(names: Sequence[str]) -> dict[str, list[str]]:
    """Names of HR folders and, for each, those of its LR folders."""
    found: dict[str, list[str]] = {}
    for hr, lr in LAYOUTS:
        for name in names:
            if (match := re.fullmatch(hr, name, re.I)) and name not in found:
                pattern = lr.replace("{}", re.escape(match[1]))
                beside = [n for n in names if n != name and re.fullmatch(pattern, n, re.I)]
                if beside or "original" not in hr:
                    found[name] = beside
    if len(found) > 1:
        found = {name: lr for name, lr in found.items() if name.lower() != "original"}
    return found


def split_names(names: Sequence[str]) -> dict[str, str]:
    """Names of the folders of each split; none, unless one is for training and one is not."""
    for pattern in OF_ONE_SPLIT:
        found = {
            split: name
            for split, words in SPLITS.items()
            for name in reversed(names)
            if re.fullmatch(pattern.replace("{}", words), name, re.I)
        }
        if "train" in found and len(found) > 1:
            return found
    return {}


def is_of_another_split(name: str, split: str) -> bool:
    """Whether the name of a folder has a word of another split, and none of this one: LR_val."""
    found = {
        other
        for other, words in SPLITS.items()
        if re.search(rf"(^|[_ -])({words})($|[_ -])", name, re.I)
    }
    return bool(found) and split not in found


def of_one_scale(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    matches = [
        (child, re.fullmatch(OF_ONE_SCALE, child.name, re.I)) for child in subfolders(folder)
    ]
    return [(child, match) for child, match in matches if match]


def subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry) for entry in entries if _is_read(entry.name) and _is_folder(entry)
        )


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    if entry.is_symlink():
        return os.path.isdir(entry)  # (which passes over a link in a circle)
    return entry.is_dir()


def _is_read(name: str) -> bool:
    """Whether a file or folder is none that systems and programs hide."""
    return not name.startswith(".") and name not in HIDDEN


def describe_kinds(folder: Path) -> str:
    """Says which pictures below a folder are not read, or not as a whole; "" if there are none."""
    found = picture_files(folder, (*EXTENSIONS, *UNREAD))
    read = [ending for path in found if (ending := path.suffix.lower()) not in UNREAD]
    said = [describe_unread(found, len(read))]
    if gifs := read.count(".gif"):
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
        folders[:] = filter(_is_read, folders)
        paths += [
            Path(parent, name) for name in filter(_is_read, names) if name.lower().endswith(endings)
        ]
    return sorted(paths, key=lambda path: path.parts)  # (as paths themselves, but fast)
