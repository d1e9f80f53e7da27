"""Benchmark sets of the papers: from a folder, from the Hub, or the embedded photographs.

    benchmark = open_benchmark("Set5", scale=2, folder=None)  # None: downloaded once

No archive can write outside of its folder.
"""

import shutil
import tarfile
import tempfile
from pathlib import Path

import huggingface_hub
from filelock import FileLock

from common.data.cache import decode_pictures
from common.data.degradation import NONE, lr_in_words, open_degradation
from common.data.find import SAMPLE_BENCHMARK, find_pictures, picture_files, sample_pictures
from common.data.patches import BenchmarkDataset, too_small_to_score
from common.errors import UserError
from common.hub_api import ask_hub

# The benchmark sets under the names of the papers, and how many pictures they have.
BENCHMARKS = {"Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100}
ALIASES = {"B100": "BSD100"}


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
        sources = sample_pictures(SAMPLE_BENCHMARK)
    else:
        sources = find_pictures(
            folder / name if folder else hub_benchmark(name),
            [scale] if degradation == NONE else [],
        )
    pictures, errors = decode_pictures(sources, [scale])
    errors |= dict.fromkeys(too_small_to_score(pictures, [scale]), "too small for SSIM")
    if errors:
        reasons = ", ".join(f"{picture} ({reason})" for picture, reason in errors.items())
        raise UserError(
            f"Cannot score {len(errors)} of {len(sources)} pictures of {name}: {reasons}."
        )
    comes_with_hr = any(f"lr_x{scale}" in source for source in sources)
    lr_by = lr_in_words(degradation, comes_with_hr)
    return BenchmarkDataset(pictures, scale, open_degradation(degradation), lr_by)


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
    except (UserError, Exception) as error:  # errors of many kinds: network, archive, disk
        raise UserError(
            f"The benchmark {name} ({repository} on the Hub) cannot be had: {error} With its "
            f"pictures in DIR/{name}/HR, use --benchmark_dir DIR."
        ) from None
