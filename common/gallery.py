"""What people look at after many pictures: a sheet of strips, and a page with all of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image

from common.images.formats import Picture
from common.images.strip import Versions, make_strip, stack_strips
from common.images.writing import write_picture
from common.page.page import MOST_BYTES, Page, PagePicture

SHEET_LENGTH = 20  # strips


class Gallery:
    """Collects pictures on all processes, each of which adds its own, by number.

    Attributes:
        pictures: Pictures of this process for the page, by number; None where there is no room.
        strips: Strips of this process for the sheet, by number.
    """

    def __init__(self, *, sheet: bool, page: bool) -> None:
        self._sheet, self._page, self._bytes = sheet, page, 0
        self.pictures: dict[int, PagePicture | None] = {}
        self.strips: dict[int, Image.Image] = {}

    def takes(self, number: int) -> bool:
        """Whether `add` has a use for the picture of that number."""
        return self._page or self._is_on_sheet(number)

    def add(self, number: int, name: str, versions: Versions) -> None:
        """Adds a picture. Threads may do so at the same time."""
        if self._is_on_sheet(number):
            self.strips[number] = make_strip(versions)
        if self._page and self._bytes > MOST_BYTES:
            self.pictures[number] = None
        elif self._page:
            picture = on_page(name, versions)
            self._bytes += picture.bytes
            self.pictures[number] = picture

    def _is_on_sheet(self, number: int) -> bool:
        return self._sheet and number < SHEET_LENGTH

    def write_sheet(self, path: Path) -> bool:
        """Writes the strips of all processes below one another; all processes call it.

        Returns:
            Whether there are any.
        """
        found = {i: strip for part in gather_object([self.strips]) for i, strip in part.items()}
        if PartialState().is_main_process and found:
            sheet = stack_strips([found[number] for number in sorted(found)])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(Picture(np.asarray(sheet)), path)
        return bool(found)

    def gathered(self) -> list[PagePicture | None]:
        """Pictures of all processes, in the order of their numbers; all processes call it."""
        found = {i: each for part in gather_object([self.pictures]) for i, each in part.items()}
        return [found[number] for number in sorted(found)]


def on_page(name: str, versions: Versions) -> PagePicture:
    """A picture in its versions, as a page shows it."""
    named = [(label, image.permute(1, 2, 0).numpy()) for label, image in versions.named]
    return PagePicture.of(name, named, versions.shown)


def fill(page: Page, pictures: Iterable[PagePicture | None]) -> None:
    """Adds pictures to a page; counts those for which there was no room."""
    for picture in pictures:
        if picture is None:
            page.left_out += 1
        else:
            page.add(picture)
