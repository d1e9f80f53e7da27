"""Training pictures from the Hugging Face Hub, or from a folder in the layout of a data set there.

    sources, identity, roots, lr = hub_pictures("yangtao9009/DIV2K", [2])

Nothing from there is run as code.
"""

import fnmatch
import glob
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
from filelock import FileLock

from common.data.degradation import MADE
from common.data.find import Listing, check_unpaired, lr_in_words, splits_of
from common.data.layouts import picture_files
from common.errors import UserError
from common.files import checksum, replace_file
from common.hub_api import ask_hub, why
from common.tables import enumerate_first

if TYPE_CHECKING:
    import datasets

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
WAYS_OUT = (
    "Without the Hub, use --train_data_dir FOLDER for your own pictures, or --dataset_name sample "
    "for the embedded ones."
)


def hub_pictures(
    name: str,
    scales: Sequence[int],
    config: str | None = None,
    column: str | None = None,
    split: str = "train",
    data_files: Sequence[str] = (),
    revision: str | None = None,
    streaming: bool = False,
) -> Listing:
    """Finds a split of a data set on the Hub, downloaded but not decoded.

    Where a repository has archives of HR and of LR, as DIV2K's has, those of HR are taken.

    Args:
        name: `user/name`, or a folder in the layout of such a data set.
        scales: Factors that are wanted. Columns of pictures `lr_x2` and so on, beside HR, hold the
            LR; a column `lr` holds it for the only scale. None at all: LR is left alone.
        config: Configuration, where the data set has several.
        column: Column of the HR pictures. Default: `hr`, or the only column of pictures.
        split: Name of the split.
        data_files: Files of the repository that make up this split; may have wildcards.
        revision: Branch, tag or commit. Default: the main branch.
        streaming: Whether to read over the network and keep nothing, instead of a download.

    Raises:
        UserError: The Hub or the data set cannot be had, or a column is not clear.
    """
    import datasets

    identity = [name, config, column, split, list(data_files)]
    identity += [] if scales else ["HR alone"]  # another table, whose LR is made
    files: list[str] = []
    try:
        if Path(name).is_dir():
            if reason := cannot_be_data_set(Path(name)):
                raise UserError(
                    f"The data set {name} {reason}. Rename the folder, or name pictures by "
                    "--train_data_dir."
                )
            revision = None
            version = _state_of(Path(name)) if streaming else ""
        else:
            record = _record_of(name, config, split, data_files, revision)
            version, files = _ask_for_data(name, revision)
            _check_patterns(data_files, files, name)
            if not version and not streaming and record.exists():
                table, version, roots = _downloaded_before(record)
                table = _choose_columns(table, name, scales, column)
                return Listing(table, [*identity, version], roots, _lr_in(table, scales))
            if not version and revision:  # `datasets` would take another
                raise UserError(
                    f"The data set {name} at revision {revision} was not downloaded by an earlier "
                    "start, and HF_HUB_OFFLINE allows no download."
                )
            if streaming:
                revision = version  # the branch might move on in the middle
        chosen = list(data_files) or _hr_archives(files, split)
        table = datasets.load_dataset(
            name,
            config,
            data_files={split: chosen} if chosen else None,
            split=split,
            revision=revision,
            streaming=streaming,
        )
        if streaming:
            # Before columns are chosen: the pictures would be decoded and encoded again otherwise.
            table = table.decode(False)
        else:
            version = table._fingerprint  # no public name; caches of earlier versions have it
        if table.info.builder_name == "imagefolder" and Path(name).is_dir() and not data_files:
            for part in splits_of(Path(name)).values() or [Path(name)]:
                check_unpaired(part, picture_files(part))
        roots = _roots(name, revision, table.info.builder_name)
        if files and not streaming:
            paths = [file["filename"] for file in table.cache_files]
            with FileLock(f"{record}.lock"):
                replace_file(record, json.dumps([paths, version, roots]).encode())
        table = _choose_columns(table, name, scales, column)
    except UserError:
        raise
    except Exception as error:  # a repository can fail to be a data set in many ways
        cause = error.__cause__ or error
        raise UserError(f"Cannot load the data set {name}: {why(cause)} {WAYS_OUT}") from None
    return Listing(table, [*identity, version], roots, _lr_in(table, scales))


def cannot_be_data_set(folder: Path) -> str:
    """Says why `datasets` would not find a folder by its name; "" if it would."""
    real = os.path.realpath(folder)
    if glob.has_magic(real) or "::" in real:
        return f"lies in {real}, and `datasets` takes [ ] * ? :: for patterns"
    return ""


def _roots(name: str, revision: str | None, builder: str | None) -> list[str]:
    """Folders and addresses in which the rows of a data set may name files.

    Args:
        name: Data set, or a folder in the layout of one.
        revision: Commit on the Hub, if it is read as a stream.
        builder: Kind of the data set, by the name that `datasets` gives it.
    """
    import datasets

    if Path(name).is_dir():
        return [os.path.realpath(name)]
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}")
    roots = [f"hf://datasets/{name}@{revision}/", os.path.realpath(cache)]
    if builder in ("imagefolder", "webdataset"):
        # These list the files by themselves, some in archives that `datasets` has unpacked here. In
        # other kinds a file of the data set says where the pictures are.
        roots.append(os.path.realpath(datasets.config.DOWNLOADED_DATASETS_PATH))
    return roots


def _record_of(*facts: object) -> Path:
    """File that records where a data set was downloaded to, for a start without a network.

    (`datasets` finds its files again only by what the Hub tells of them.)
    """
    folder = huggingface_hub.cached_assets_path("super-resolution", "data", "tables-2")
    return folder / f"{checksum(facts)}.json"


def _downloaded_before(record: Path) -> tuple["datasets.Dataset", str, list[str]]:
    """(data set, fingerprint, roots) as `record` has them."""
    import datasets

    paths, version, roots = json.loads(record.read_text())
    table = datasets.concatenate_datasets([datasets.Dataset.from_file(path) for path in paths])
    return table, version, roots


def _state_of(folder: Path) -> str:
    """Key of a folder: another one when a file below it changes."""
    files = [
        (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    ]
    return checksum(files)


def _ask_for_data(name: str, revision: str | None) -> tuple[str, list[str]]:
    """(commit, names of the files) of a data set; both are empty if the Hub may not be asked.

    Raises:
        UserError: There is no such data set, or it is a script.
    """
    try:
        commit, files = ask_hub("dataset", name, revision) or ("", [])
    except UserError as error:
        raise UserError(f"--dataset_name {name}: {error} {WAYS_OUT}") from None
    if f"{name.partition('/')[2]}.py" in files:
        raise UserError(
            f"The data set {name} is a loading script, and `datasets` no longer runs code from the "
            "Hub. Use one of plain files, as yangtao9009/DIV2K or yangtao9009/Flickr2K, and for "
            "benchmarks `evaluate.py --benchmarks`; or download its archives, and give the "
            "unpacked folder as --train_data_dir."
        )
    return commit, files


def _check_patterns(patterns: Sequence[str], files: Sequence[str], name: str) -> None:
    unknown = [
        pattern for pattern in patterns if not fnmatch.filter(files, pattern.replace("**/", "*"))
    ]
    if files and unknown:
        raise UserError(
            f"The data set {name} has no file {' and no '.join(unknown)}. Its files: "
            f"{enumerate_first(files)}."
        )


def _hr_archives(files: Sequence[str], split: str) -> list[str]:
    """Archives of HR pictures of a split, where a repository has archives of LR as well."""
    archives = [file for file in files if file.endswith(ARCHIVES)]
    hr, lr = (
        [file for file in archives if re.search(rf"(?<![a-z]){kind}(?![a-z])", file, re.I)]
        for kind in ("hr", "lr")
    )
    if not hr or not lr:
        return []
    is_validation = [bool(re.search("val|test", file, re.I)) for file in hr]
    wanted = split != "train"
    return [file for file, other in zip(hr, is_validation, strict=True) if other == wanted]


def _lr_in(table: "datasets.Dataset | datasets.IterableDataset", scales: Sequence[int]) -> str:
    """Where the LR of a data set comes from, in words."""
    origins = [
        "read from the data set" if f"lr_x{scale}" in table.features else MADE for scale in scales
    ]
    return lr_in_words(origins, scales)


def _choose_columns(
    table: "datasets.Dataset | datasets.IterableDataset",
    name: str,
    scales: Sequence[int],
    column: str | None,
) -> "datasets.Dataset | datasets.IterableDataset":
    """Keeps the columns of HR and of the LR of these scales, undecoded, under our names."""
    import datasets

    image_columns = [
        key for key, kind in table.features.items() if isinstance(kind, datasets.Image)
    ]
    hr = column or (
        "hr" if "hr" in image_columns else image_columns[0] if image_columns else "none"
    )
    if hr not in image_columns or (column is None and hr != "hr" and len(image_columns) > 1):
        raise UserError(
            f"The columns of pictures in {name} are {image_columns}. Name one with --image_column."
        )
    columns = {"hr": hr}
    columns |= {key: key for key in (f"lr_x{scale}" for scale in scales) if key in image_columns}
    if "lr" in image_columns and hr != "lr" and scales:
        if len(scales) > 1:
            raise UserError(
                f"The column lr of {name} is of one scale, not of {scales}. Name it with --scale."
            )
        columns[f"lr_x{scales[0]}"] = "lr"
    table = table.select_columns(list(columns.values())).rename_columns(
        {old: new for new, old in columns.items() if new != old}
    )
    for key in columns:
        table = table.cast_column(key, datasets.Image(decode=False))
    return table
