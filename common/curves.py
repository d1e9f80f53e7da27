"""Curves as SVG text, which needs no other package: of runs, from their logs, and of any values.

`draw_curves` makes a picture of its own, for the card of a run; `draw_panel` a part of a page.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from common.errors import UserError
from common.files import read_json_lines
from common.terminal import printable

METRICS, TIMES, CURVES = "metrics.jsonl", "times.jsonl", "curves.svg"
# Okabe and Ito: can be told apart by everybody.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
WIDTH, HEIGHT = 460, 270  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 58, 32, 34, 46  # its margins, for the labels
NAME = 20  # height of a name below a panel
GRID = "#8886"  # on white and on black
MOST_POINTS = 300  # of a line, whose values are means of so many parts
MOST_DOTS = 40  # of a line of more points only the last is marked

Points = Sequence[tuple[float, float]]


class Curves(NamedTuple):
    """Values of one run: `loss` and `psnr_y` by step, and the minutes of training at a step."""

    loss: Points
    psnr_y: Points
    minutes: Points


def read_curves(folder: Path) -> Curves:
    """Reads the logs of a run.

    Raises:
        UserError: The folder has none.
    """
    try:
        rows = list(read_json_lines(folder / METRICS).lines.values())
        times = list(read_json_lines(folder / TIMES).lines.values())
    except OSError as error:
        raise UserError(
            f"{folder} has no logs of a run ({error}). Give a folder that a training script wrote, "
            f"with {METRICS} and {TIMES}."
        ) from None
    loss, psnr = (
        sorted((row["step"], row[key]) for row in rows if isinstance(row.get(key), float))
        for key in ("loss", "psnr_y")
    )
    minutes = [
        (row["step"], row["seconds"] / 60)
        for row in times
        if isinstance(row.get("seconds"), int | float) and isfinite(row["seconds"])
    ]
    if not loss:
        raise UserError(f"{folder / METRICS} has no loss yet: the run has not logged.")
    return Curves(loss, psnr, sorted(minutes))


def draw_curves(runs: Mapping[str, Curves]) -> str:
    """Draws four panels: loss and PSNR, over steps and over minutes.

    Args:
        runs: Curves by the name of their run, as many as are to be compared.

    Returns:
        An SVG picture, a file of its own.
    """
    width, height = 2 * WIDTH, 2 * _height(runs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for row, key, title in ((0, "loss", "Loss"), (1, "psnr_y", "PSNR-Y in dB, validation")):
        for column, unit in enumerate(("steps", "minutes")):
            lines = {
                name: _over(unit, _thinned(getattr(run, key)), run.minutes)
                for name, run in runs.items()
            }
            panel = draw_panel(lines, unit, title, logarithmic=key == "loss")
            place = f"translate({column * WIDTH} {row * _height(runs)})"
            parts.append(f'<g transform="{place}">{panel}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _over(unit: str, points: Points, minutes: Points) -> Points:
    """The points, over steps or over the minutes of their steps, between two logs by proportion."""
    if unit == "steps":
        return points
    found, marks = [], [(0.0, 0.0), *minutes]
    for step, value in points:
        after = next((i for i, (at, _) in enumerate(marks) if at >= step and i), len(marks) - 1)
        if after:
            (first, start), (last, end) = marks[after - 1], marks[after]
            share = min(1.0, (step - first) / max(last - first, 1))
            found.append((start + share * (end - start), value))
    return found


def draw_panel(
    lines: Mapping[str, Points],
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
    logarithmic: bool = False,
) -> str:
    """Draws lines into one panel, an `<svg>` for a page of HTML or for another picture.

    Values that are no finite numbers are left out, and of many points means are drawn.

    Args:
        lines: Points (x, y) by the name of the line. Of several lines the names stand below.
        x_label: What x is.
        y_label: What y is, with its unit.
        level: Name and value of a horizontal line to compare with.
        logarithmic: Whether y is drawn by its logarithm, where all values are positive.
    """
    height = _height(lines)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{_text(y_label)}" font-family="sans-serif" font-size="12" '
        f'fill="currentColor"><text x="{LEFT}" y="22" font-weight="bold">{_text(y_label)}</text>'
    ]
    thinned = [_thinned([point for point in line if isfinite(point[1])]) for line in lines.values()]
    xs = [x for points in thinned for x, _ in points]
    ys = [y for points in thinned for _, y in points]
    if not ys:
        return f'{parts[0]}<text x="{LEFT}" y="60">Nothing has been logged yet.</text></svg>'
    ys += [level[1]] if level else []
    scale: Callable[[float], float] = log10 if logarithmic and min(ys) > 0 else float
    left, right = min(0.0, *xs), max(xs)
    low, high = (scale(value) for value in (min(ys), max(ys)))
    room = (high - low) * 0.05 or 0.5  # one value alone lies in the middle
    low, high = low - room, high + room
    bottom, end = HEIGHT - BOTTOM, WIDTH - RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (end - LEFT) * (x - left) / (right - left or 1)
        down = TOP + (bottom - TOP) * (high - scale(y)) / (high - low)
        return round(across, 1), round(down, 1)

    for tick in ticks(left, right, 6):
        x, _ = place(tick, ys[0])
        parts.append(f'<path d="M{x} {TOP}V{bottom}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_short(tick)}</text>')
    parts.append(f'<text x="{end}" y="{bottom + 34}" text-anchor="end">{_text(x_label)}</text>')
    ends = (10**low, 10**high) if scale is log10 else (low, high)
    for tick in ticks(*ends, octaves=scale is log10 and ends[1] > 5 * ends[0]):
        _, y = place(left, tick)
        parts.append(f'<path d="M{LEFT} {y}H{end}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_short(tick)}</text>')
    if level:
        _, y = place(left, level[1])
        parts.append(f'<path d="M{LEFT} {y}H{end}" stroke="currentColor" stroke-dasharray="6 4"/>')
        parts.append(f'<text x="{end}" y="{y - 5}" text-anchor="end">{_text(level[0])}</text>')
    for number, (name, points) in enumerate(zip(lines, thinned, strict=True)):
        color = COLORS[number % len(COLORS)]
        places = [place(x, y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}"/>' if path else "")
        for x, y in places if len(places) < MOST_DOTS else places[-1:]:
            parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>')
        if len(lines) > 1:
            y = HEIGHT + NAME * number + 10
            parts.append(f'<path d="M{LEFT} {y - 4}h24" stroke="{color}" stroke-width="3"/>')
            parts.append(f'<text x="{LEFT + 32}" y="{y}">{_text(name)}</text>')
    return "\n".join([*parts, "</svg>"])


def _height(lines: Mapping[str, object]) -> int:
    """Height of a panel: the names of several lines stand below it."""
    return HEIGHT + (NAME * len(lines) if len(lines) > 1 else 0)


def _thinned(points: Points) -> Points:
    size = ceil(len(points) / MOST_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if points else []
    return [(group[-1][0], fmean(value for _, value in group)) for group in groups]


def ticks(low: float, high: float, most: int = 5, octaves: bool = False) -> list[float]:
    """Round numbers between two: 1, 2 or 5 times powers of ten, evenly spaced, or all of them."""
    if octaves:
        powers = range(floor(log10(low)), ceil(log10(high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        inside = [tick for tick in found if low <= tick <= high]
        return inside if len(inside) <= 2 * most else inside[::3]
    rough = (high - low) / most or 1.0
    power = 10.0 ** floor(log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    return [number * step for number in range(ceil(low / step), floor(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _text(text: str) -> str:
    return escape(printable(text))
