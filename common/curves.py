"""Curves of runs: loss and PSNR over steps and over minutes, from the logs, as a picture.

The picture is SVG text, so that the card of every run can have one without another package.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from common.errors import UserError
from common.files import read_json_lines

METRICS, TIMES, CURVES = "metrics.jsonl", "times.jsonl", "curves.svg"
# Okabe and Ito: can be told apart by everybody.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 270, 58, 34, 46  # of a panel, and within it
MOST_POINTS = 300  # of a line, whose values are means of so many parts

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
        if isinstance(row.get("seconds"), int | float)
    ]
    if not loss:
        raise UserError(f"{folder / METRICS} has no loss yet: the run has not logged.")
    return Curves(loss, psnr, sorted(minutes))


def draw_curves(runs: Mapping[str, Curves]) -> str:
    """Draws four panels: loss and PSNR, over steps and over minutes.

    Args:
        runs: Curves by the name of their run, as many as are to be compared.

    Returns:
        An SVG picture.
    """
    height = 2 * HEIGHT + 24 * len(runs) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {height}" '
        f'width="{2 * WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for row, key, title in ((0, "loss", "Loss"), (1, "psnr_y", "PSNR-Y in dB, validation")):
        for column, unit in enumerate(("steps", "minutes")):
            lines = [_over(unit, _thinned(getattr(run, key)), run.minutes) for run in runs.values()]
            panel = _panel(f"{title}, over {unit}", lines, logarithmic=key == "loss")
            parts += [f'<g transform="translate({column * WIDTH} {row * HEIGHT})">', panel, "</g>"]
    for number, name in enumerate(runs):
        y = 2 * HEIGHT + 20 + 24 * number
        color = COLORS[number % len(COLORS)]
        parts.append(f'<path d="M{LEFT} {y - 4}h24" stroke="{color}" stroke-width="3"/>')
        parts.append(f'<text x="{LEFT + 32}" y="{y}">{escape(name)}</text>')
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


def _thinned(points: Points) -> Points:
    size = ceil(len(points) / MOST_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if points else []
    return [(group[-1][0], fmean(value for _, value in group)) for group in groups]


def _panel(title: str, lines: Sequence[Points], logarithmic: bool) -> str:
    """One panel, with a line for each run."""
    parts = [f'<text x="{LEFT}" y="22" font-weight="bold">{title}</text>']
    xs = [x for points in lines for x, _ in points]
    ys = [y for points in lines for _, y in points]
    if not ys:
        return parts[0] + f'<text x="{LEFT}" y="60">nothing logged</text>'
    scale: Callable[[float], float] = log10 if logarithmic and min(ys) > 0 else float
    left, right = min(0.0, *xs), max(xs)
    low, high = (scale(value) for value in (min(ys), max(ys)))
    room = (high - low) * 0.05 or 0.5  # one value alone lies in the middle
    low, high = low - room, high + room

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 16) * (x - left) / (right - left or 1)
        down = TOP + (HEIGHT - TOP - BOTTOM) * (high - scale(y)) / (high - low)
        return round(across, 1), round(down, 1)

    bottom = HEIGHT - BOTTOM
    for tick in _ticks(left, right, 6):
        x, _ = place(tick, ys[0])
        parts.append(f'<path d="M{x} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_short(tick)}</text>')
    ends = (10**low, 10**high) if scale is log10 else (low, high)
    for tick in _ticks(*ends, 5, octaves=scale is log10 and ends[1] > 5 * ends[0]):
        _, y = place(left, tick)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - 16}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_short(tick)}</text>')
    for number, points in enumerate(lines):
        if points:
            color = COLORS[number % len(COLORS)]
            places = [place(x, y) for x, y in points]
            path = " ".join(f"{x},{y}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}"/>')
            parts.append(
                f'<circle cx="{places[-1][0]}" cy="{places[-1][1]}" r="3" fill="{color}"/>'
            )
    return "\n".join(parts)


def _ticks(low: float, high: float, most: int, octaves: bool = False) -> list[float]:
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
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
