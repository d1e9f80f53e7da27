"""Scores and tables as text, the same in a terminal, a model card and the README."""

from collections.abc import Mapping, Sequence

from common.terminal import printable


def score_name(key: str) -> str:
    """Heading of a score: `PSNR-Y` for `psnr_y`."""
    return key.replace("_", "-").upper()


def format_score(key: str, value: float) -> str:
    """A score in as many digits as the papers print: 2 for a PSNR in dB, else 4."""
    return f"{value:.{2 if key.startswith('psnr') else 4}f}"


def text_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Table for a terminal: the first column aligned left, the others right.

    Args:
        rows: Cells by the heading of their column, in the same order in all rows.
    """
    rows = [{key: printable(cell) for key, cell in row.items()} for row in rows]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = []
    for row in [{key: key for key in widths}, *rows]:
        first, *others = (
            row[key].rjust(width) if number else row[key].ljust(width)
            for number, (key, width) in enumerate(widths.items())
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown. The first row holds the headings; names in it went through `markdown`."""
    heading, *others = rows
    lines = [heading, ["---"] * len(heading), *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plural(number: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size_in_words(size: int) -> str:
    """`4.3 MB`, `33 kB`, `512 bytes`."""
    if size >= 1e6:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e3:.0f} kB" if size >= 1000 else plural(size, "byte")


def enumerate_first(items: Sequence[str], most: int = 10) -> str:
    """The first items of a list, and how many more there are."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(printable, items[:most])) + rest


def score_row(
    name: str, images: str, scores: dict[str, float], baseline: dict[str, float]
) -> dict[str, str]:
    """One row of the table: a benchmark set or one picture of it."""
    cells = {"": name, "images": images}
    for key, value in scores.items():
        if key == "seconds":
            cells["s/image"] = f"{value:.3f}"
        else:
            cells[score_name(key)] = format_score(key, value)
    return cells | {"over bicubic": f"{scores['psnr_y'] - baseline['psnr_y']:+.2f} dB"}
