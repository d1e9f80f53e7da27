"""Writes the README's table of results from the JSON files beside this script.

python -m results.table
"""

import json
from pathlib import Path
from typing import Any

from common.hub import ROOT, replace_file

RESULTS = Path(__file__).resolve().parent
BEGIN, END = "<!-- results: made by `make results` -->\n", "<!-- end of results -->\n"
BENCHMARKS = ("Set5", "Set14", "B100")


def rows() -> list[dict[str, Any]]:
    """What was measured, and what the papers print (`papers.json`, a list)."""
    found = []
    for file in sorted(RESULTS.glob("*.json")):
        content = json.loads(file.read_text())
        found += content if isinstance(content, list) else [content]
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each scale its rows, by their PSNR on Set5."""
    lines = [
        f"| | | parameters | {' | '.join(BENCHMARKS)} | training |",
        "|---|---|---|" + "---|" * len(BENCHMARKS) + "---|",
    ]
    cells = [
        (int(scale), benchmarks[BENCHMARKS[0]]["psnr_y"], row, benchmarks)
        for row in rows
        for scale, benchmarks in row["scales"].items()
    ]
    for scale, _, row, benchmarks in sorted(cells, key=lambda cell: cell[:2]):
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        figures = [_figures(benchmarks.get(name)) for name in BENCHMARKS]
        words = [f"x{scale}", row["row"], parameters, *figures, _training(row.get("training"))]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


def _figures(scores: dict[str, float] | None) -> str:
    if not scores:
        return ""
    ssim = f" / {scores['ssim_y']:.4f}" if "ssim_y" in scores else ""
    return f"{scores['psnr_y']:.2f}{ssim}"


def _training(facts: dict[str, Any] | None) -> str:
    if not facts:
        return ""
    runs = _runs(facts)
    hours, minutes = divmod(round(sum(run["seconds"] for run in runs) / 60), 60)
    time = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    hardware = max(runs, key=lambda run: run["seconds"])["hardware"]
    processes = hardware["processes"]
    if "gpu" in hardware:
        return f"{time}, {processes} {hardware['gpu']}"
    cores = processes * hardware["threads"]
    return f"{time}, {cores} core{'s' * (cores > 1)} of {hardware['cpu']}"


def _runs(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A run and those from whose weights it began."""
    return [facts, *(_runs(facts["init_from"]) if "init_from" in facts else [])]


def main() -> None:
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    replace_file(readme, f"{before}{BEGIN}\n{table(rows())}\n{END}{after}".encode())


if __name__ == "__main__":
    main()
