"""Files of pictures for the tests that find and decode them."""

from pathlib import Path

from PIL import Image


def write(path: Path, size: tuple[int, int] = (24, 20)) -> None:
    """Writes a black picture, and makes the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
