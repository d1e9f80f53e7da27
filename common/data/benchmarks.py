"""Benchmark sets of the papers: from a folder, from the Hub, or the embedded photographs.

    benchmark = open_benchmark("Set5", scale=2, folder=None)  # None: downloaded once

No archive can write outside of its folder, or more than MOST_BYTES.
"""

import gzip
import shutil
import tarfile
import tempfile
from pathlib import Path

import huggingface_hub
from filelock import FileLock

from common.data.cache import decode_pictures
from common.data.degradation import MADE, NONE, open_degradation, origin_of_lr
from common.data.find import SAMPLE_BENCHMARK, list_folder, sample_pictures
from common.data.layouts import hr_folders, picture_files, subfolders
from common.data.patches import BenchmarkDataset, too_small_to_score
from common.errors import UserError
from common.hub_api import ask_hub, why
from common.tables import enumerate_first, plural

# The benchmark sets on the Hub under the names of the papers, and how many pictures they have.
BENCHMARKS = {"Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100}
MOST_BYTES = 2**29  # three times Urban100, the largest
ALIASES = {"B100": "BSD100", "BSDS100": "BSD100"}
# Sets of which a folder that bears the name, in capitals or not, must have as many pictures.
COUNTS = {name.lower(): count for name, count in (BENCHMARKS | {"Manga109": 109}).items()}
COUNTS |= {alias.lower(): BENCHMARKS[name] for alias, name in ALIASES.items()}


def open_benchmark(
    name: str, scale: int, folder: Path | None, degradation: str = NONE
) -> BenchmarkDataset:
    """Opens a benchmark set, of which every picture can be scored.

    Args:
        name: Name of a subfolder of `folder`, of a set on the Hub, or `sample`.
        scale: Factor from LR to HR.
        folder: Folder of benchmarks. Default: the sets are downloaded from the Hub.
        degradation: Name of the degradation that makes LR from HR. LR in the folder is then left
            alone.

    Raises:
        UserError: The set cannot be had, or a picture of it cannot be scored.
    """
    if name == "sample":
        sources, lr = sample_pictures(SAMPLE_BENCHMARK), MADE
    else:
        place = _set_in(folder, name) if folder else hub_benchmark(name)
        sources, _, _, lr = list_folder(place, [scale], reads_lr=degradation == NONE)
        if len(sources) != (count := COUNTS.get(name.lower(), len(sources))):
            raise UserError(
                f"{place} has {plural(len(sources), 'HR picture')}, and the benchmark {name} has "
                f"{count}. Complete it, remove what is not of it, or give the folder another name."
            )
    pictures, errors = decode_pictures(sources, [scale])
    errors |= dict.fromkeys(too_small_to_score(pictures, [scale]), "too small for SSIM")
    if errors:
        reasons = enumerate_first([f"{name} ({reason})" for name, reason in errors.items()], 3)
        raise UserError(
            f"Cannot score {len(errors)} of {len(sources)} pictures of {name}: {reasons}."
        )
    origin = origin_of_lr(lr, degradation)
    return BenchmarkDataset(pictures, scale, open_degradation(degradation), origin)


def _set_in(folder: Path, name: str) -> Path:
    """The folder of a set in a folder of benchmarks.

    Raises:
        UserError: One of the two is missing; or the folder is that of a set itself.
    """
    if (folder / name).is_dir():
        return folder / name
    rule = "--benchmark_dir names the folder that holds the sets, each in a folder of its name"
    way_out = f"{rule}; docs/evaluate.md shows it."
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. {way_out}")
    missing = f"There is no set {name} in {folder}"
    if hr_folders(folder) or any(path.parent == folder for path in picture_files(folder)):
        place = folder.resolve()
        raise UserError(
            f"{missing}, which is a set itself: pictures lie in it. {rule}, so give "
            f"--benchmark_dir {place.parent} --benchmarks {place.name}; docs/evaluate.md shows it."
        )
    found = enumerate_first([child.name for child in subfolders(folder)], 5) or "no folders at all"
    raise UserError(f"{missing}. There are: {found}. {way_out}")


def hub_benchmark(name: str) -> Path:
    """Folder of a benchmark set's HR pictures, downloaded and unpacked once.

    Args:
        name: Name among `BENCHMARKS` or `ALIASES`.

    Raises:
        UserError: There is no such benchmark, or it cannot be had.
    """
    known = ALIASES.get(name, name)
    if known not in BENCHMARKS:
        names = ", ".join(BENCHMARKS)
        raise UserError(
            f"{name} is none of the benchmarks that are on the Hub ({names}), and not `sample`. "
            "Name the folder that holds it by --benchmark_dir."
        )
    folder = huggingface_hub.cached_assets_path("super-resolution", "benchmarks", known)
    with FileLock(folder.with_name(f"{known}.lock")):
        if not (folder / "HR").is_dir():
            _unpack_benchmark(known, folder)
    return folder


class _Unpacked(gzip.GzipFile):
    """Content of a file that may unpack to `MOST_BYTES`, whatever sizes it announces."""

    left = MOST_BYTES

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MB.")
        return content


def _unpack_benchmark(name: str, folder: Path) -> None:
    repository, file = f"eugenesiow/{name}", f"data/{name}_HR.tar.gz"
    try:
        ask_hub("dataset", repository)
        archive = huggingface_hub.hf_hub_download(repository, file, repo_type="dataset")
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            with _Unpacked(archive) as content, tarfile.open(fileobj=content, mode="r|") as tar:
                tar.extractall(unpacked, filter="data")
            flat = Path(unpacked, "HR")
            flat.mkdir(exist_ok=True)
            for picture in picture_files(Path(unpacked)):
                picture.rename(flat / picture.name)
            if (count := len(picture_files(flat))) != BENCHMARKS[name]:
                raise ValueError(f"it has {count} pictures, not {BENCHMARKS[name]}.")
            shutil.move(flat, folder / "HR")
    except (UserError, Exception) as error:  # errors of many kinds: network, archive, disk
        raise UserError(
            f"The benchmark {name} ({repository} on the Hub) cannot be had: {why(error)} With its "
            f"pictures in DIR/{name}/HR, use --benchmark_dir DIR; or --benchmarks sample, which is "
            "here."
        ) from None
