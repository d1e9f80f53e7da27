"""Evaluates a model folder at all its scales and writes a row of the README's table.

    python -m results.record out/vdsr --row "VDSR, trained here" --benchmark_dir DIR
    make results

writes results/vdsr.json: PSNR and SSIM, and if the folder is that of a run, how it was trained.
Its wall time is the last one in `times.jsonl`, so let it be done. `--also=--self_ensemble` measures
the model with these options of evaluate.py as well.
"""

import common.start

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.errors import UserError
from common.files import last_name, read_json_lines, shorten_command
from common.hub import find_here, load_model
from common.machine import ROOT, versions
from common.pretrained import name_of
from common.record import RECORD, read_record

RESULTS = Path(__file__).resolve().parent


def evaluate(
    model: str, scale: int, args: argparse.Namespace, more: Sequence[str] = ()
) -> dict[str, Any]:
    """The report of evaluate.py, with more options of it."""
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["--benchmark_dir", args.benchmark_dir, "--benchmarks", *args.benchmarks]
        process = subprocess.run(
            [
                *(sys.executable, ROOT / "evaluate.py", "--model", model, "--scale", str(scale)),
                *(*options, *more, "--output", report),
            ]
        )
        if process.returncode:
            raise SystemExit(process.returncode)  # it has said why
        return json.loads(report.read_text())


def means(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Scores of each benchmark in a report."""
    return {
        name: {key: round(scores[key], 8) for key in ("psnr_y", "ssim_y")}
        for name, scores in report["benchmarks"].items()
    }


def wall_time(folder: Path) -> float:
    """Seconds that a run took, over all its starts, with validation and checkpoints.

    Raises:
        UserError: The folder does not tell.
    """
    file = folder / "times.jsonl"
    lines = list(read_json_lines(file).lines.values()) if file.is_file() else []
    if not lines or "seconds" not in lines[-1]:
        raise UserError(f"{file} does not tell how long the run took. Record it from its folder.")
    return lines[-1]["seconds"]


def training(folder: Path) -> dict[str, Any]:
    """Facts on how a run was trained; under `init_from` those of the run that it began from.

    Raises:
        UserError: Nobody could repeat it, or its time is not known.
    """
    run = read_record(folder, "how to repeat it. Train it again.", "command", "commit")
    if not re.fullmatch(r"[0-9a-f]{40}", run["commit"] or ""):
        raise UserError(
            f"{folder} was trained by the code {run['commit']}, which nobody else has. Train it "
            "again from a clone without changes."
        )
    seconds = round(wall_time(folder))
    command = shorten_command(run["command"])
    facts = {key: value for key, value in run.items() if key not in ("command", "args")}
    if start := run["args"].get("init_from"):
        here = find_here(start)
        if here is None:
            raise UserError(
                f"{folder} began from {start}, which is not on this machine, with how it was "
                "trained: it is gone, or a model on the Hub."
            )
        if before := training_before(here, run["commit"]):
            facts["init_from"] = before
    return {"command": command, "seconds": seconds, **facts}


def training_before(start: Path, commit: str) -> dict[str, Any] | None:
    """Facts on how weights were trained that a run began from; None where they are of no run.

    Args:
        start: A model of `pretrained/`, a folder of a run, or a file or folder in one of them.
        commit: Commit of the run that began from it.
    """
    if name := name_of(start):
        return training_of_pretrained(name, commit)
    start = start.resolve()
    for folder in (start, *start.parents[:2]):
        # (A checkpoint has an args.json of its own, without the command.)
        if (folder / RECORD).exists() and not folder.name.startswith("checkpoint-"):
            step = re.search(r"checkpoint-(\d+)", "/".join(start.parts[-2:]))
            return training(folder) | ({"ended_at_step": int(step[1])} if step else {})
    return None


def training_of_pretrained(name: str, commit: str) -> dict[str, Any]:
    """Facts on how a model of `pretrained/` was trained, as a commit has it.

    Raises:
        UserError: That commit, or its record of the model, is not there.
    """
    words = ["git", "show", f"{commit}:results/{name}.json"]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8")
    if process.returncode:
        raise UserError(
            f"How {name} was trained stands in the commit of the run that began from it; "
            f"`{shlex.join(words)}` does not show it. Fetch that commit."
        )
    return json.loads(process.stdout)["training"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder, or `bicubic`")
    parser.add_argument("--row", required=True, help="how the table names it")
    parser.add_argument("--benchmark_dir", required=True, help="as of evaluate.py")
    parser.add_argument("--benchmarks", nargs="+", default=["Set5", "Set14", "B100"])
    parser.add_argument("--note", help="what the table says below")
    parser.add_argument(
        "--also", action="append", default=[], help="options of evaluate.py to measure as well"
    )
    parser.add_argument("--output", type=Path, help="default: the folder's name, .json, in results")
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    if "Set5" not in args.benchmarks:
        parser.error("--benchmarks lacks Set5, by which the table is sorted")

    folder = Path(args.model)
    scales = [2, 3, 4] if args.model == "bicubic" else load_model(folder).scales
    row: dict[str, Any] = {"row": args.row, "parameters": None}
    row |= {"note": args.note} if args.note else {}
    command = ["python", "-m", "results.record", *map(last_name, words)]
    row |= {"measured": {"command": shlex.join(command), **versions()}, "scales": {}}
    for scale in scales:
        report = evaluate(args.model, scale, args)
        row["parameters"] = report.get("parameters")
        row["scales"][scale] = means(report)
        for options in args.also:
            also = evaluate(args.model, scale, args, shlex.split(options))
            row.setdefault("also", {}).setdefault(options, {})[scale] = means(also)
    if (folder / RECORD).exists():
        row["training"] = training(folder)
    file = args.output or RESULTS / f"{folder.name}.json"
    file.write_text(json.dumps(row, indent=2) + "\n")
    print(f"Written to {file}. `make results` puts it into the README.")


if __name__ == "__main__":
    main()
