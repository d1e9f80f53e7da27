"""Curves as SVG, to stand in a page.

svg = curves({"loss": [(100, 0.04), (200, 0.03)]}, "step", "loss")
"""

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite, log10

from common.page.page import escape

WIDTH, HEIGHT = 680, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 40  # room for the labels
COLORS = ("#2f6fde", "#d1495b", "#2a9d5c", "#b07d00")
MOST_POINTS = 1000  # of a curve; more do not show


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two, at distances of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** floor(log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * most >= high - low)
    return [number * step for number in range(ceil(low / step), floor(high / step) + 1)]


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
) -> str:
    """Draws curves; what is no finite number is left out.

    Args:
        lines: Points (x, y) by the name of the curve.
        x_label: What x is.
        y_label: What y is, with its unit.
        level: Name and value of a horizontal line to compare with.
    """
    found = {
        name: [(x, y) for x, y in points if isfinite(y)][:: len(points) // MOST_POINTS + 1]
        for name, points in lines.items()
    }
    found = {name: points for name, points in found.items() if points}
    if not found:
        return "<p>Nothing has been logged yet.</p>"
    xs = [x for points in found.values() for x, _ in points]
    ys = [y for points in found.values() for _, y in points]
    ys += [level[1]] if level else []
    (left, right), (low, high) = (_widened(min(values), max(values)) for values in (xs, ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        down = TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    parts = []
    for y in ticks(low, high):
        _, down = place(left, y)
        parts.append(
            f'<path d="M{LEFT} {down}H{WIDTH - RIGHT}" stroke="#8886"/>'
            f'<text x="{LEFT - 6}" y="{down + 4}" text-anchor="end">{y:.6g}</text>'
        )
    for x in ticks(left, right):
        across, _ = place(x, low)
        parts.append(
            f'<text x="{across}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,.6g}</text>'
        )
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>'
        f'<text x="4" y="14">{escape(y_label)}</text>'
    )
    if level:
        _, down = place(left, level[1])
        parts.append(
            f'<path d="M{LEFT} {down}H{WIDTH - RIGHT}" stroke="currentColor" '
            f'stroke-dasharray="6 4"/><text x="{WIDTH - RIGHT}" y="{down - 5}" '
            f'text-anchor="end">{escape(level[0])}</text>'
        )
    for number, (name, points) in enumerate(found.items()):
        color = COLORS[number % len(COLORS)]
        spots = [place(x, y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in spots)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
            + "".join(
                f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>'
                for x, y in (spots if len(spots) < 40 else ())
            )
        )
        if len(found) > 1:
            parts.append(
                f'<text x="{LEFT + 90 + 120 * number}" y="14" fill="{color}">{escape(name)}</text>'
            )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


def _widened(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis: a little apart, where there is one value only."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
