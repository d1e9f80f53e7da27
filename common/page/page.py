"""A page of pictures before and after, with a border to move between them, as one file of HTML.

    page = Page("A2N x2")
    page.add(PagePicture.of("baby", [("Bicubic", pixels), ("A2N", pixels)]))
    page.write(Path("page.html"))

It needs no server and no network, and nothing in it can run but its own script. Names are text in
it, whatever they hold.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from common.files import cannot_write, replace_file
from common.terminal import printable

FOLDER = Path(__file__).resolve().parent
MARK = b'<meta name="generator" content="super-resolution-on-accelerate">'
MOST_BYTES = 2**26  # of the pictures in a page, so that a telephone can open it
MOST_LOSSLESS = 2**22  # pixels; larger pictures are JPEG of quality 95


class PagePicture(NamedTuple):
    """One picture in several versions of one size.

    Attributes:
        name: Name.
        caption: Facts about it, its scores for example.
        size: Width and height.
        versions: Pairs of a label and a file, as a `data:` address.
        shown: Number of the version that is shown on the right at first.
    """

    name: str
    caption: str
    size: tuple[int, int]
    versions: list[tuple[str, str]]
    shown: int

    @classmethod
    def of(
        cls,
        name: str,
        versions: Sequence[tuple[str, np.ndarray]],
        shown: int = 1,
    ) -> "PagePicture":
        """Makes one of arrays (h, w, 3), uint8, all of one size."""
        height, width = versions[0][1].shape[:2]
        files = [(label, _as_address(pixels)) for label, pixels in versions]
        return cls(name, "", (width, height), files, shown)

    @property
    def bytes(self) -> int:
        return sum(len(source) for _, source in self.versions)


def _as_address(pixels: np.ndarray) -> str:
    file, kind = io.BytesIO(), "webp"
    image = Image.fromarray(pixels)
    if pixels.shape[0] * pixels.shape[1] <= MOST_LOSSLESS:
        image.save(file, "WEBP", lossless=True, method=0, quality=0)
    else:
        kind = "jpeg"
        image.save(file, "JPEG", quality=95, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


class Page:
    """A page that is being made.

    Attributes:
        title: Title, text.
        introduction: Paragraph below it, text.
        left_out: Number of pictures for which there was no room.
    """

    def __init__(self, title: str, introduction: str = "") -> None:
        self.title, self.introduction = title, introduction
        self._pictures: list[PagePicture] = []
        self._sections: list[str] = []
        self._bytes = 0
        self.left_out = 0

    def add(self, picture: PagePicture) -> None:
        """Adds a picture if there is room for it; the first one always."""
        if self._pictures and self._bytes + picture.bytes > MOST_BYTES:
            self.left_out += 1
            return
        self._pictures.append(picture)
        self._bytes += picture.bytes

    def add_section(self, title: str, content: str) -> None:
        """Adds a section below the pictures. Its content is HTML, as `as_table` makes it."""
        self._sections.append(f"<section><h2>{escape(title)}</h2>{content}</section>")

    def html(self) -> str:
        script = (FOLDER / "page.js").read_text()
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        data = [
            {
                "name": printable(picture.name),
                "caption": printable(picture.caption),
                "width": picture.size[0],
                "height": picture.size[1],
                "shown": picture.shown,
                "versions": [
                    {"label": printable(label), "source": source}
                    for label, source in picture.versions
                ],
            }
            for picture in self._pictures
        ]
        number = len(self._pictures) + self.left_out
        shown = f"{len(self._pictures)} of {number} pictures are shown, for which there was room."
        hint = shown if self.left_out else ""
        introduction = f"<p>{escape(self.introduction)}</p>" if self.introduction else ""
        page = (FOLDER / "template.html").read_text()
        # No part can hold the mark of a later one: "<" is escaped in all that is not our own.
        for mark, part in (
            ("TITLE", escape(self.title)),
            ("HASH", f"sha256-{digest}"),
            ("INTRODUCTION", introduction),
            ("HINT", hint),
            ("SECTIONS", "".join(self._sections)),
            ("DATA", json.dumps(data).replace("<", "\\u003c")),
            ("SCRIPT", script),
        ):
            page = page.replace(f"<!--{mark}-->", part)
        return page

    def write(self, path: Path) -> None:
        """Writes the page, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, self.html().encode())


def cannot_write_page(path: Path, overwrite: bool) -> str:
    """Says why a page cannot be written to a file, as `cannot_write` does.

    The ending keeps --overwrite from replacing a picture that was meant as an input.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        return "must end in .html; a page is a file of HTML"
    return cannot_write(path, overwrite)


def is_page(path: Path) -> bool:
    """Whether a file is a page of this program."""
    with open(path, "rb") as file:
        return MARK in file.read(2000)


def escape(text: object) -> str:
    """Text as HTML that shows it as it is."""
    return html.escape(printable(text, keep="\n"))


def as_table(rows: Sequence[Sequence[object]], marked: Sequence[int] = ()) -> str:
    """Table in HTML.

    Args:
        rows: Cells, text or numbers. The first row holds the headings; empty ones are left out.
        marked: Numbers of rows in bold, 0 for the first below the headings.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0] if any(rows[0]))
    lines = [
        f"<tr{' class=marked' if number in marked else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows[1:])
    ]
    start = "<table>" if head else "<table class=facts>"
    return f"{start}<tr>{head}</tr>{''.join(lines)}</table>"


def as_code(text: str) -> str:
    """Text of a terminal in HTML."""
    return f"<pre>{escape(text)}</pre>"
