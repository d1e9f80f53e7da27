"""Writes the README's table of results from the JSON files beside this script, and the tables of
docs/degradation.md from those in `degraded_sets`.

    python -m results.table
"""

import common.start

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import replace_file
from common.machine import ROOT
from common.tables import format_score, markdown_table, plural
from results import degraded

RESULTS = Path(__file__).resolve().parent
BEGIN, END = "<!-- results: made by `make results` -->\n", "<!-- end of results -->\n"
BENCHMARKS = ("Set5", "Set14", "B100")


def read_row(file: Path) -> Any:
    """Reads a file of results.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is missing or damaged: {error}. Get it by `git checkout`, or measure again by "
            "`python -m results.record`."
        ) from None


def rows() -> list[dict[str, Any]]:
    """Reads the rows that were measured, and those of the papers (`papers.json`, a list)."""
    found = []
    for file in sorted(RESULTS.glob("*.json")):
        content = read_row(file)
        found += content if isinstance(content, list) else [content]
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each scale its rows, by their PSNR on Set5; below it the notes of the rows."""
    notes: dict[str, int] = {}
    lines = [["", "", "parameters", *BENCHMARKS, "training"]]
    cells = [
        (int(scale), benchmarks[BENCHMARKS[0]]["psnr_y"], row, benchmarks)
        for row in rows
        for scale, benchmarks in row["scales"].items()
    ]
    for scale, _, row, benchmarks in sorted(cells, key=lambda cell: cell[:2]):
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        figures = [_figures(benchmarks.get(name)) for name in BENCHMARKS]
        training = training_in_words(row["training"]) if "training" in row else ""
        name = row["row"]
        if note := row.get("note"):
            name += f" [{notes.setdefault(note, len(notes) + 1)}]"
        lines.append([f"x{scale}", name, parameters, *figures, training])
    below = (f"\n[{number}] {note}\n" for note, number in notes.items())
    return markdown_table(lines) + "".join(below)


def _figures(scores: dict[str, float] | None) -> str:
    if not scores:
        return ""
    keys = [key for key in ("psnr_y", "ssim_y") if key in scores]
    return " / ".join(format_score(key, scores[key]) for key in keys)


def training_in_words(facts: dict[str, Any]) -> str:
    """Time of all runs together, and the hardware of the longest."""
    runs = runs_of(facts)
    hours, minutes = divmod(round(sum(run["seconds"] for run in runs) / 60), 60)
    time = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    hardware = max(runs, key=lambda run: run["seconds"])["hardware"]
    processes = hardware["processes"]
    if "gpu" in hardware:
        return f"{time}, {processes} {hardware['gpu']}"
    cores = processes * hardware["threads"]
    return f"{time}, {plural(cores, 'core')} of {hardware['cpu']}"


def runs_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A run, and those from whose weights it began, one after the other; the first is the last."""
    before = facts.get("init_from")
    return [facts, *(runs_of(before) if before else [])]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    pages = {ROOT / "README.md": table(rows()), ROOT / "docs" / "degradation.md": degraded.tables()}
    for page, tables in pages.items():
        before, rest = page.read_text().split(BEGIN)
        _, after = rest.split(END)
        replace_file(page, f"{before}{BEGIN}\n{tables}\n{END}{after}".encode())


if __name__ == "__main__":
    main()
