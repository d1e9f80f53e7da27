"""Scores models on degraded pictures: the tables of docs/degradation.md.

    python -m results.degraded Set14 --benchmark_dir DIR
    python -m results.degraded B100 --benchmark_dir DIR --pictures 10
    make results

The first two write results/degraded_sets/Set14.json and B100.json, the last one puts their tables
into the page. Every figure is what evaluate.py gives, for example with `--model a2n-x2
--degradation jpeg:75`.
"""

import common.start

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from common.data.benchmarks import open_benchmark
from common.data.patches import BenchmarkDataset
from common.evaluation import evaluate, load_subject, mean_scores
from common.files import CHECKSUMS, replace_file, shorten_command
from common.machine import set_up_cpu, versions
from common.options import whole
from common.pretrained import FOLDER
from common.tables import format_score, markdown_table, plural

SETS = Path(__file__).resolve().parent / "degraded_sets"
SCALE = 2
BICUBIC = "bicubic"
MODELS = ("a2n-x2", "a2n-x2-photo")
# Values of --degradation, and how the table names them.
DEGRADATIONS = {
    "none": "not saved",
    "jpeg:95": "quality 95",
    "jpeg:85": "quality 85",
    "jpeg:75": "quality 75",
    "jpeg:50": "quality 50",
    "jpeg": "`jpeg`",
    "photo": "`photo`",
}


def checksum_of_weights(model: str) -> str:
    """SHA-256 of the weights in `pretrained/`, as their SHA256SUMS has it."""
    lines = (FOLDER / model / CHECKSUMS).read_text().splitlines()
    return next(line.split()[0] for line in lines if line.endswith(".safetensors"))


def measure(name: str, folder: Path | None, most: int | None) -> dict[str, Any]:
    """Scores of the models on all degradations of a benchmark.

    Args:
        name: Name of the benchmark.
        folder: Folder of benchmarks. Default: the set is downloaded.
        most: Number of pictures, the first by name. Default: all.

    Raises:
        UserError: The benchmark or a model cannot be had.
    """
    device = PartialState().device
    subjects = {model: load_subject(model, SCALE, device) for model in (BICUBIC, *MODELS)}
    scores: dict[str, dict[str, Any]] = {}
    for degradation in DEGRADATIONS:
        whole_set = open_benchmark(name, SCALE, folder, degradation)
        numbers = range(len(whole_set))[:most]
        pictures = whole_set.pictures.subset(numbers)
        benchmark = BenchmarkDataset(pictures, SCALE, whole_set.degradation, whole_set.lr)
        found = scores[degradation] = {"lr_checksum": benchmark.lr_checksum()}
        for model, network in subjects.items():
            means = mean_scores(evaluate(network.enlarge, benchmark, device))
            found[model] = {key: round(means[key], 8) for key in ("psnr_y", "ssim_y")}
            print(f"{degradation}, {model}: {found[model]}", flush=True)
    return {
        "benchmark": name,
        "pictures": len(numbers),
        "of": len(whole_set),
        "weights": {model: checksum_of_weights(model) for model in MODELS},
        "degradations": scores,
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown: PSNR and SSIM by degradation and model, and what the models gain over bicubic."""
    number = plural(figures["pictures"], "picture")
    if figures["pictures"] < figures["of"]:
        number = f"the first {number} of {figures['of']}"
    lines = [[f"{figures['benchmark']}, {number}", BICUBIC, *(f"`{model}`" for model in MODELS)]]
    for degradation, scores in figures["degradations"].items():
        cells = []
        for model in (BICUBIC, *MODELS):
            cell = " / ".join(format_score(key, value) for key, value in scores[model].items())
            gain = scores[model]["psnr_y"] - scores[BICUBIC]["psnr_y"]
            cells.append(cell if model == BICUBIC else f"{gain:+.2f}: {cell}")
        lines.append([DEGRADATIONS[degradation], *cells])
    return markdown_table(lines)


def tables() -> str:
    """The tables of all benchmarks that were measured, Set14 first."""
    files = sorted(SETS.glob("*.json"), key=lambda file: (file.stem != "Set14", file.stem))
    return "\n".join(table(json.loads(file.read_text())) for file in files)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", help="as of evaluate.py: Set14, for example")
    parser.add_argument("--benchmark_dir", type=Path, help="as of evaluate.py")
    parser.add_argument("--pictures", type=whole(), metavar="N", help="the first N (default: all)")
    args = parser.parse_args(argv)
    set_up_cpu()
    words = ["python", "-m", "results.degraded", *(sys.argv[1:] if argv is None else argv)]
    # The code's state now: hours may pass until the figures are there.
    content = {"command": shorten_command(shlex.join(words)), **versions()}
    content |= measure(args.benchmark, args.benchmark_dir, args.pictures)
    file = SETS / f"{args.benchmark}.json"
    file.parent.mkdir(exist_ok=True)
    replace_file(file, (json.dumps(content, indent=2) + "\n").encode())
    print(f"Written to {file}. `make results` puts it into docs/degradation.md.")


if __name__ == "__main__":
    main()
