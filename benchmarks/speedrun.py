"""How many seconds a training takes to a PSNR on Set5 x2: several runs of one command, scored.

    python -m benchmarks.speedrun --benchmark_dir DIR --output out/speedrun.json -- \
        train_a2n.py --dataset_name sample --recipe cpu

trains as often as --rounds says, each time with another seed, in a process of its own, with an
empty cache of decoded pictures. The time goes from the start of the process to its end, by which
the weights are saved. The last weights of each run are scored when all of it is over. The rules
are in docs/speedrun.md. `python -m benchmarks.speedrun --table` writes the table there from
benchmarks/speedruns.
"""

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

from common.errors import UserError
from common.files import cannot_write, replace_file, shorten_command
from common.machine import ROOT, versions
from common.options import whole
from common.tables import markdown_table

RECORDS = Path(__file__).resolve().parent / "speedruns"
PAGE = ROOT / "docs" / "speedrun.md"
BEGIN, END = (
    "<!-- records: made by `python -m benchmarks.speedrun --table` -->\n",
    "<!-- end of records -->\n",
)
LEVELS = (36.5, 37.0, 37.5)  # dB on Set5 x2, mean of the rounds
LEAST_ROUNDS = 3  # of a record
MOST_PARAMETERS = 1_100_000
# Options that the benchmark sets itself, or that would break a rule.
REFUSED = {
    "--output_dir": "which the benchmark names",
    "--seed": "which the benchmark sets, another for each round",
    "--resume_from_checkpoint": "as a run begins at its beginning",
    "--init_from": "as a run begins with fresh weights",
    "--max_train_minutes": "as the length of a run is a number of steps, fixed beforehand",
    "--push_to_hub": "which is no part of a training",
}


def check_training(words: Sequence[str]) -> argparse.Namespace:
    """Checks the command of a training by the rules, and returns its options.

    Raises:
        UserError: It breaks one.
    """
    if not words or not (ROOT / words[0]).is_file() or not words[0].startswith("train_"):
        raise UserError("Give a training after `--`: train_a2n.py and its options.")
    for word in words[1:]:
        given = word.partition("=")[0]
        for name, reason in REFUSED.items():
            if len(given) > len("--") and name.startswith(given):  # it may be abbreviated
                raise UserError(f"{name} cannot be given here, {reason}. Leave it out.")
        if re.search(r"(?<!sub)set5(?!\d)", word, re.I):
            raise UserError(
                f"{word}: no training may look at Set5, by which it is scored. Name other pictures."
            )
    args = importlib.import_module(words[0].removesuffix(".py")).parse_args(words[1:])
    if 2 not in (args.scale if isinstance(args.scale, list) else [args.scale]):
        raise UserError(f"Trainings are scored on Set5 x2, not x{args.scale}. Give --scale 2.")
    return args


def run(words: Sequence[str | Path], **variables: str) -> None:
    """Runs a script of this repository in a process of its own."""
    process = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=os.environ | variables
    )
    if process.returncode:
        raise UserError(f"{words[0]} ended with status {process.returncode}; it has said why.")


def score(
    model: str | Path, benchmark_dir: Path | None, benchmarks: Sequence[str]
) -> dict[str, Any]:
    """The report of evaluate.py on benchmarks x2."""
    with TemporaryDirectory(prefix="speedrun-") as folder:
        report = Path(folder, "report.json")
        words: list[str | Path] = ["evaluate.py", "--model", model, "--scale", "2"]
        words += ["--benchmarks", *benchmarks, "--output", report]
        words += ["--benchmark_dir", benchmark_dir] if benchmark_dir else []
        run(words)
        return json.loads(report.read_text())


def measure(
    words: Sequence[str],
    seed: int,
    benchmark_dir: Path | None,
    benchmarks: Sequence[str] = ("Set5",),
) -> tuple[dict[str, float], dict[str, Any]]:
    """Trains once and scores the last weights.

    Returns:
        (seed, seconds, load of the machine before it, and PSNR in dB by benchmark; record of the
        run).
    """
    with TemporaryDirectory(prefix="speedrun-") as folder:
        output = Path(folder, "run")
        load = os.getloadavg()[0]
        start = perf_counter()
        options: list[str | Path] = [*words, "--seed", f"{seed}", "--output_dir", output]
        run(options, HF_DATASETS_CACHE=f"{folder}/cache")
        seconds = perf_counter() - start
        checkpoints = output.glob("checkpoint-*")
        last = max(checkpoints, key=lambda path: int(path.name.removeprefix("checkpoint-")))
        scores = score(last, benchmark_dir, benchmarks)
        record = json.loads((output / "args.json").read_text())
    record["parameters"] = scores["parameters"]
    found = {"seed": seed, "seconds": round(seconds, 2), "load_before": round(load, 2)}
    for name in benchmarks:
        found[name] = round(scores["benchmarks"][name]["psnr_y"], 4)
    return found, record


def speedrun(words: Sequence[str], rounds: int, benchmark_dir: Path | None) -> dict[str, Any]:
    """Trains and scores several times; the facts of a record.

    Raises:
        UserError: The network is too large.
    """
    code = versions()  # of now: hours may pass
    score("bicubic", benchmark_dir, ["Set5"])  # before the trainings, since Set5 may not be there
    found = []
    for seed in range(rounds):
        values, record = measure(words, seed, benchmark_dir)
        if record["parameters"] > MOST_PARAMETERS:
            raise UserError(
                f"The network has {record['parameters']:,} parameters, more than the "
                f"{MOST_PARAMETERS:,} of the rules."
            )
        found.append(values)
        print(f"Seed {seed}: {values['Set5']:.2f} dB after {values['seconds']:.1f} s.")
    return {
        "command": shorten_command(shlex.join(["python", *words])),
        "date": date.today().isoformat(),
        "hardware": record["hardware"],
        "versions": code,
        "parameters": record["parameters"],
        "steps": record["args"]["max_train_steps"],
        "rounds": found,
        "psnr_y": round(fmean(values["Set5"] for values in found), 4),
        "seconds": round(fmean(values["seconds"] for values in found), 2),
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each figure and each machine, the record that is there first."""
    lines = [["dB", "seconds", "Set5 x2 of each run", "command", "commit", "machine"]]
    for level in LEVELS:
        best: dict[str, dict[str, Any]] = {}
        for record in sorted(records, key=lambda record: record["seconds"]):
            if record["psnr_y"] >= level and len(record["rounds"]) >= LEAST_ROUNDS:
                best.setdefault(_machine(record["hardware"]), record)
        for machine, record in best.items():
            times = [values["seconds"] for values in record["rounds"]]
            lines.append(
                [
                    f"{level}",
                    f"**{record['seconds']:.0f}** ({min(times):.0f} to {max(times):.0f})",
                    ", ".join(f"{values['Set5']:.2f}" for values in record["rounds"]),
                    f"`{record['command']}`",
                    (record["versions"]["commit"] or "")[:8],
                    machine,
                ]
            )
        if not best:
            lines.append([f"{level}", "no record yet", "", "", "", ""])
    return markdown_table(lines)


def _machine(hardware: dict[str, Any]) -> str:
    if "gpu" in hardware:
        return f"{hardware['gpu']}"
    return f"{hardware['threads']} threads of {hardware['cpu']}"


def read_records() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))]


def write_table() -> None:
    """Writes the table of records into docs/speedrun.md."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    replace_file(PAGE, f"{before}{BEGIN}\n{table(read_records())}\n{END}{after}".encode())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="write the table of records, no more")
    parser.add_argument(
        "--rounds", type=whole(), default=LEAST_ROUNDS, help="trainings (default: %(default)s)"
    )
    parser.add_argument(
        "--benchmark_dir", type=Path, help="as of evaluate.py (default: Set5 is downloaded)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out/speedrun.json"), help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    parser.add_argument("training", nargs="*", help="after `--`: a training script and its options")
    args = parser.parse_args(argv)
    if args.table:
        write_table()
        return
    check_training(args.training)
    if reason := cannot_write(args.output, args.overwrite):
        raise UserError(f"--output {args.output} {reason}.")
    facts = speedrun(args.training, args.rounds, args.benchmark_dir)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    replace_file(args.output, (json.dumps(facts, indent=2) + "\n").encode())
    print(
        f"{facts['psnr_y']:.2f} dB in {facts['seconds']:.1f} s, means of {args.rounds}. Written to "
        f"{args.output}."
    )


if __name__ == "__main__":
    main()
