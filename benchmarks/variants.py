r"""Variants of one training, with several seeds in turn, scored when all is over.

    python -m benchmarks.variants --benchmark_dir DIR --output out/recipes.json \
        --variant="--recipe paper" --variant="--recipe modern" -- \
        train_a2n.py --train_data_dir T91 --max_train_steps 1000 --batch_size 8

trains by the command with the options of each variant behind it, and scores the last weights on
benchmarks x2. So "is it better?" has an answer with its spread. The differences are those of the
same seed, by which both see the same patches unless the variant changes them.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

from benchmarks.speedrun import check_training, measure, score
from common.errors import UserError
from common.files import cannot_write, replace_file, shorten_command
from common.machine import versions
from common.options import whole
from common.tables import markdown_table


def compare(
    training: Sequence[str],
    variants: Sequence[str],
    seeds: int,
    benchmark_dir: Path | None,
    benchmarks: Sequence[str],
    output: Path,
) -> dict[str, Any]:
    """Trains and scores every variant with every seed.

    Returns:
        The facts of it, which are written to `output` after each run: hours may be lost otherwise.
    """
    code = versions()  # of now: hours may pass
    score("bicubic", benchmark_dir, benchmarks)  # before the trainings: are they there?
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for seed in range(seeds):
        for variant in variants:
            values, record = measure(
                [*training, *shlex.split(variant)], seed, benchmark_dir, benchmarks
            )
            runs[variant].append(values)
            print(f"{variant}, seed {seed}: {values}", flush=True)
            facts = {
                "command": shorten_command(shlex.join(["python", *training])),
                "date": date.today().isoformat(),
                "hardware": record["hardware"],
                "versions": code,
                "benchmarks": list(benchmarks),
                "variants": runs,
            }
            replace_file(output, (json.dumps(facts, indent=2) + "\n").encode())
    return facts


def table(facts: dict[str, Any]) -> str:
    """Markdown: the mean of each variant in dB, and how far it is from the first, seed by seed."""
    first, *_ = facts["variants"].values()
    lines = [["variant", *facts["benchmarks"], "seconds"]]
    for variant, runs in facts["variants"].items():
        line = [f"`{variant}`"]
        for name in facts["benchmarks"]:
            cell = f"{fmean(values[name] for values in runs):.2f}"
            if runs is not first:
                differences = (new[name] - old[name] for new, old in zip(runs, first, strict=True))
                cell += f" ({', '.join(f'{value:+.2f}' for value in differences)})"
            line.append(cell)
        lines.append([*line, f"{fmean(values['seconds'] for values in runs):.0f}"])
    return markdown_table(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--variant",
        action="append",
        required=True,
        metavar="OPTIONS",
        help="options of a variant, in quotes after an equals sign; twice or more often",
    )
    parser.add_argument(
        "--seeds", type=whole(), default=2, help="trainings of each variant (default: %(default)s)"
    )
    parser.add_argument(
        "--benchmark_dir", type=Path, help="as of evaluate.py (default: they are downloaded)"
    )
    parser.add_argument(
        "--benchmarks", nargs="+", default=["Set5", "Set14", "B100"], help="default: %(default)s"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out/variants.json"), help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    parser.add_argument("training", nargs="+", help="after `--`: a training script and its options")
    args = parser.parse_args(argv)
    for variant in args.variant:
        try:
            words = shlex.split(variant)
        except ValueError as error:
            raise UserError(f"--variant {variant!r} cannot be read: {error}.") from None
        check_training([*args.training, *words])
    if len(set(args.variant)) < len(args.variant):
        raise UserError("A --variant is named twice. Give each once; --seeds repeats them.")
    if reason := cannot_write(args.output, args.overwrite):
        raise UserError(f"--output {args.output} {reason}.")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    facts = compare(
        args.training, args.variant, args.seeds, args.benchmark_dir, args.benchmarks, args.output
    )
    print(f"\n{table(facts)}\nn = {args.seeds}. Written to {args.output}.")


if __name__ == "__main__":
    main()
