"""Pictures are written, in the format of the file's ending, with all of them that it can hold.

write_picture(picture, Path("larger.png"))
"""

import io
import struct
import zlib
from math import inf
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from common.files import replace_file
from common.images.formats import Picture, over_white, to_8_bits
from common.images.kinds import FORMATS

LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
MOST_EXIF_IN_JPEG = 65533


def write_picture(picture: Picture, path: Path, quality: int = 95) -> None:
    """Writes a picture in the format of the path's ending, whole or not at all.

    What the format cannot hold is left out: 16 bits, but in PNG and TIFF; EXIF in BMP and TIFF, and
    more than 64 KB of it in JPEG; opacity in JPEG and BMP, where the picture is put on white.

    Args:
        picture: The picture.
        path: The file; one that is there is replaced.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        OSError: There is no room, for example.
        ValueError: The picture is too large for the format.
    """
    check_size(path, *picture.pixels.shape[:2])
    kind = FORMATS[path.suffix.lower()]
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.dtype == np.uint16 and kind not in ("PNG", "TIFF"):
        pixels = to_8_bits(pixels)
        alpha = alpha if alpha is None else to_8_bits(alpha)
    if alpha is not None and kind in ("JPEG", "BMP"):
        pixels, alpha = over_white(pixels, alpha), None
    array = pixels if alpha is None else np.dstack([pixels, alpha])
    file = io.BytesIO()
    if array.dtype == np.uint16 and kind == "PNG":
        file.write(_png_of_16_bits(array, picture))
    elif array.dtype == np.uint16:
        tifffile.imwrite(
            file,
            _without_axis(array),
            photometric="rgb" if array.shape[2] > 2 else "minisblack",
            planarconfig="contig" if array.shape[2] > 1 else None,
            extrasamples=None if alpha is None else ["unassalpha"],
            compression="zlib",
            iccprofile=picture.icc_profile,
        )
    else:
        options: dict[str, Any] = {"icc_profile": picture.icc_profile}
        if kind == "WEBP" and (picture.icc_profile or b"")[16:20] == b"GRAY":
            options.pop("icc_profile")  # a WebP is always RGB, which that profile would not fit
        if kind in ("PNG", "WEBP") or len(picture.exif) <= MOST_EXIF_IN_JPEG:
            options["exif"] = picture.exif if kind != "TIFF" else b""
        if kind in ("JPEG", "WEBP"):
            options["quality"] = quality
        if kind == "JPEG":
            # Half of the colors' resolution costs 20 dB at red edges. So only where the input had
            # no more, or where a small file was asked for.
            full = 0 if quality >= 90 else 2
            options["subsampling"] = full if picture.subsampling is None else picture.subsampling
        if kind == "TIFF":
            options["compression"] = "tiff_adobe_deflate"
        Image.fromarray(_without_axis(array)).save(
            file, kind, **{key: value for key, value in options.items() if value not in (None, b"")}
        )
    replace_file(path, file.getvalue())


def check_size(path: Path, height: int, width: int) -> None:
    """Checks that the format of a file can hold a picture of so many pixels.

    Raises:
        ValueError: The format of the path's ending does not allow it.
    """
    kind = FORMATS[path.suffix.lower()]
    largest = LARGEST_SIDE.get(kind, inf)
    if max(height, width) > largest:
        raise ValueError(
            f"it would be {width}x{height}, and a side of {kind} has at most {largest} pixels; "
            "give another ending or --format"
        )


def _png_of_16_bits(array: np.ndarray, picture: Picture) -> bytes:
    png = bytes(imagecodecs.png_encode(_without_axis(array)))
    chunks = b""
    if picture.icc_profile:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc_profile))
    if picture.exif:
        chunks += _png_chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0"))
    end_of_header = 8 + 25  # the signature, and the chunk IHDR
    return png[:end_of_header] + chunks + png[end_of_header:]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _without_axis(array: np.ndarray) -> np.ndarray:
    """Array (h, w) of a gray one, as libraries want it; others stay as they are."""
    return array[..., 0] if array.shape[2] == 1 else array
