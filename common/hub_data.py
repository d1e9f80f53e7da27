"""Pictures from the Hugging Face Hub: data sets by name, and the benchmark sets of the papers.

    sources = hub_pictures("yangtao9009/DIV2K", [2])
    folder = hub_benchmark("Set5")

Nothing from there is run as code, and no archive can write outside of its folder.
"""

import fnmatch
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
from filelock import FileLock

from common.data import picture_files
from common.errors import UserError
from common.files import checksum, replace_file
from common.hub import ask_hub

# The benchmark sets under the names of the papers, and how many pictures they have.
BENCHMARKS = {"Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100}
ALIASES = {"B100": "BSD100"}
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
) -> tuple[datasets.Dataset | datasets.IterableDataset, list[Any]]:
    """A split of a data set on the Hub, downloaded but not decoded.

    Of archives that hold HR and LR, as DIV2K's, those of HR are taken.

    Args:
        name: `user/name`, or a folder in the layout of such a data set.
        scales: Wanted. Columns of pictures `lr_x2` and so on, beside HR, are taken for their LR,
            and `lr` for that of the only one.
        config: Its configuration, where it has several.
        column: The column of the HR pictures. Default: `hr`, or the only column of pictures.
        split: Its name.
        data_files: Of the repository, for this split; may have wildcards.
        revision: Branch, tag or commit. Default: the main branch.
        streaming: Whether to read it over the network and keep nothing, instead of a download.

    Returns:
        The pictures, and what tells them from others (JSON values).

    Raises:
        UserError: The Hub or the data set cannot be had, or a column is not clear.
    """
    identity = [name, config, column, split, list(data_files)]
    files: list[str] = []
    try:
        if Path(name).is_dir():
            revision = None
            version = _state_of(Path(name)) if streaming else ""
        else:
            record = _record_of(name, config, split, data_files, revision)
            version, files = _ask_for_data(name, revision)
            _check_patterns(data_files, files, name)
            if not version and not streaming and record.exists():
                table, version = _downloaded_before(record)
                return _choose_columns(table, name, scales, column), [*identity, version]
            if not version and revision:  # `datasets` would take another
                raise UserError(
                    f"The data set {name} at revision {revision} was not downloaded by an earlier "
                    "start, and HF_HUB_OFFLINE allows no download."
                )
            if streaming:
                revision = version  # else the branch might move on in the middle
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
            # Here, for its pictures would otherwise be decoded and encoded again.
            table = table.decode(False)
        else:
            version = table._fingerprint
            if files:
                paths = [file["filename"] for file in table.cache_files]
                with FileLock(f"{record}.lock"):
                    replace_file(record, json.dumps([paths, version]).encode())
        table = _choose_columns(table, name, scales, column)
    except UserError:
        raise
    except Exception as error:  # any of the many ways in which a repository can be no data set
        cause = error.__cause__ or error
        raise UserError(f"Cannot load the data set {name}: {cause}. {WAYS_OUT}") from None
    return table, [*identity, version]


def _record_of(*facts: object) -> Path:
    """Where it is kept which files a data set was downloaded to, for a start without a network.

    (`datasets` finds them again only by what the Hub tells of its files.)
    """
    folder = huggingface_hub.cached_assets_path("super-resolution", "data", "tables")
    return folder / f"{checksum(facts)}.json"


def _downloaded_before(record: Path) -> tuple[datasets.Dataset, str]:
    """The data set, and its fingerprint of then."""
    paths, version = json.loads(record.read_text())
    return datasets.concatenate_datasets([datasets.Dataset.from_file(p) for p in paths]), version


def _state_of(folder: Path) -> str:
    """Changes when a file below it does."""
    files = [
        (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    ]
    return checksum(files)


def _ask_for_data(name: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit of a data set and the names of its files, neither if it may not be asked for.

    Raises:
        UserError: There is none, or it is a script.
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
        others = f" (and {len(files) - 10} more)" if len(files) > 10 else ""
        raise UserError(
            f"The data set {name} has no file {' and no '.join(unknown)}. Its files: "
            f"{', '.join(files[:10])}{others}."
        )


def _hr_archives(files: Sequence[str], split: str) -> list[str]:
    """The archives of HR pictures of a split, where a repository has archives of LR as well."""
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


def _choose_columns(
    table: datasets.Dataset | datasets.IterableDataset,
    name: str,
    scales: Sequence[int],
    column: str | None,
) -> datasets.Dataset | datasets.IterableDataset:
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
    if "lr" in image_columns and hr != "lr":
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


def hub_benchmark(name: str) -> Path:
    """The folder of a benchmark set's HR pictures, downloaded and unpacked once.

    Args:
        name: One of `BENCHMARKS` or `ALIASES`.

    Raises:
        UserError: There is no such benchmark, or it cannot be had.
    """
    known = ALIASES.get(name, name)
    if known not in BENCHMARKS:
        names = ", ".join(BENCHMARKS)
        raise UserError(
            f"{name} is none of the benchmarks that are on the Hub ({names}), and not `sample`. "
            "Name the folder that it is in by --benchmark_dir."
        )
    folder = huggingface_hub.cached_assets_path("super-resolution", "benchmarks", known)
    with FileLock(folder.with_name(f"{known}.lock")):
        if not (folder / "HR").is_dir():
            _unpack_benchmark(known, folder)
    return folder


def _unpack_benchmark(name: str, folder: Path) -> None:
    repository, file = f"eugenesiow/{name}", f"data/{name}_HR.tar.gz"
    try:
        ask_hub("dataset", repository)
        archive = huggingface_hub.hf_hub_download(repository, file, repo_type="dataset")
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
            flat = Path(unpacked, "HR")
            flat.mkdir(exist_ok=True)
            for picture in picture_files(Path(unpacked)):
                picture.rename(flat / picture.name)
            if (count := len(picture_files(flat))) != BENCHMARKS[name]:
                raise ValueError(f"it has {count} pictures, not {BENCHMARKS[name]}.")
            shutil.move(flat, folder / "HR")
    except (UserError, Exception) as error:  # of the network, the archive, the disk
        raise UserError(
            f"The benchmark {name} ({repository} on the Hub) cannot be had: {error} With its "
            f"pictures in DIR/{name}/HR, use --benchmark_dir DIR."
        ) from None
