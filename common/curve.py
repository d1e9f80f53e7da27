"""Curves: a score over the steps of a run as an SVG picture, for the model card."""

from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN = 720, 300, 56  # pixels


def curve(points: Sequence[tuple[int, float]], baseline: float, name: str) -> str:
    """Draws a score by step, and a dashed line for bicubic.

    Args:
        points: Steps and scores, at least one pair.
        baseline: Score of bicubic.
        name: Name of the score.
    """
    last = max(step for step, _ in points) or 1
    values = [value for _, value in points] + [baseline]
    low, high = min(values), max(values)
    span = high - low or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        x = MARGIN + step / last * (WIDTH - 2 * MARGIN)
        return round(x, 1), round(HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2 * MARGIN), 1)

    def words(x: float, y: float, text: str, anchor: str = "end") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'

    line = " ".join("{},{}".format(*place(*point)) for point in points)
    dots = "".join('<circle cx="{}" cy="{}" r="2"/>'.format(*place(*point)) for point in points)
    left, level = place(0, baseline)
    right, _ = place(last, baseline)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="13" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{left} {MARGIN / 2}V{HEIGHT - MARGIN}H{right}" stroke="#999" fill="none"/>',
        f'<path d="M{left} {level}H{right}" stroke="#999" stroke-dasharray="6 4"/>',
        f'<polyline points="{line}" stroke="#1f6feb" stroke-width="2" fill="none"/>',
        f'<g fill="#1f6feb">{dots}</g>',
        words(right, level - 5, "bicubic"),
        words(WIDTH / 2, 18, name, "middle"),
        words(right, HEIGHT - MARGIN + 20, f"step {last:,}"),
        *(words(left - 6, place(0, value)[1] + 4, f"{value:.2f}") for value in {low, high}),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
