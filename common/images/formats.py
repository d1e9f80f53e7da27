"""Files of pictures: their formats, and what is read from and written to them.

picture = read_picture(Path("photo.png"))       # gray or color, transparent or not, 8 or 16 bits
write_picture(picture._replace(pixels=larger), Path("larger.png"))
pixels = read_rgb("photo.png")                  # 8-bit RGB, as networks are trained on
"""

import io
import os
import stat
import struct
import zlib
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from common.files import replace_file

# The formats that are looked for in folders and written, under the names that Pillow gives them.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
EXTENSIONS = tuple(FORMATS)
# A data set of the Hub may have others, which Pillow decodes without another program. (It would
# have PostScript, for one, run by an interpreter.)
DECODED = (*FORMATS.values(), "GIF", "PPM", "JPEG2000")
ORIENTATION, ICC_PROFILE = 0x0112, 0x8773  # tags of EXIF and TIFF
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
MOST_EXIF_IN_JPEG = 65533
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # its first bytes


class Picture(NamedTuple):
    """A decoded picture, upright.

    Attributes:
        pixels: Gray or RGB, uint8 or uint16, (h, w, 1) or (h, w, 3).
        alpha: Opacity of the same type, (h, w), or None.
        icc_profile: Meaning of its colors, or None for sRGB.
        exif: Camera, date and so on, without the orientation; may be empty.
        subsampling: How a JPEG stores its colors, by Pillow's number: 0 is 4:4:4, 2 is 4:2:0. None
            for other formats.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes = b""
    subsampling: int | None = None


def check_regular(path: Path | str) -> None:
    """Refuses what is no file of bytes, before it is opened: a FIFO would be waited for for ever.

    Raises:
        ValueError: It is a FIFO, a device, a socket or a folder.
        OSError: There is no such file, or its link leads in a circle.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no file of bytes, but a folder, FIFO, device or socket")


def read_rgb(file: str | Path | io.BytesIO) -> np.ndarray:
    """Decodes a picture as a viewer would show it: upright, in color, transparency over white.

    Args:
        file: Anything that Pillow opens: 1 to 16 bits, gray, palette, RGB(A), CMYK.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        OSError, ValueError: The file is no picture, is damaged, or has 32 bits a channel.
    """
    if isinstance(file, str | Path):
        check_regular(file)
    with Image.open(file, formats=DECODED) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):  # Pillow would clip these to 255
            gray = np.asarray(image).astype(np.float32) / 257
            return np.repeat(gray.round().astype(np.uint8)[..., None], 3, axis=2)
        if image.mode in ("I", "F"):
            raise ValueError("32 bits a channel; save it with 8 or 16")
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return np.array(image.convert("RGB"))


def read_picture(path: Path, max_megapixels: float = 200) -> Picture:
    """Reads a PNG, JPEG, BMP, WebP or TIFF file with all that it holds.

    Args:
        path: The file.
        max_megapixels: Limit of the size, which protects the memory.

    Raises:
        ValueError: The picture is too large, or of a kind that is not enlarged.
        Exception: Errors of many kinds, if the file is no picture or is damaged.
    """
    check_regular(path)
    with open(path, "rb") as file:
        header = file.read(25)
    if header[:4] in TIFF:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            if page.bitspersample > 8:  # Pillow reads some kinds of these only, and as 8 bits
                return _read_tiff(page, len(tiff.pages), max_megapixels)
    try:
        opened = Image.open(path, formats=tuple(FORMATS.values()))
    except UnidentifiedImageError:
        raise ValueError("it is no PNG, JPEG, BMP, WebP or TIFF, or it is damaged") from None
    with opened as image:
        # (MPO: a JPEG file of a telephone, with another one for its own use.)
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        _check(*image.size, pages, max_megapixels)
        tags, profile = image.getexif(), image.info.get("icc_profile")
        sampling = JpegImagePlugin.get_sampling(image) if image.format in ("JPEG", "MPO") else -1
        orientation = tags.pop(ORIENTATION, 1)
        # Those of TIFF tell where its bytes are.
        exif = _exif(tags) if image.format != "TIFF" else b""
        if image.format == "PNG" and header[24] == 16:  # Pillow would read RGB as 8 bits
            array = imagecodecs.png_decode(path.read_bytes())
        else:
            if image.mode in ("CMYK", "LAB"):
                profile = None  # it describes CMYK or LAB, and the picture becomes RGB
            mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
            array = np.array(image.convert(mode + "A" if image.has_transparency_data else mode))
    picture = _picture(array, orientation, profile, exif)
    return picture._replace(subsampling=sampling if sampling >= 0 else None)


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
        pixels = _to_8_bits(pixels)
        alpha = alpha if alpha is None else _to_8_bits(alpha)
    if alpha is not None and kind in ("JPEG", "BMP"):
        opacity = alpha[..., None] / 255
        pixels = (pixels * opacity + 255 * (1 - opacity)).round().astype(np.uint8)
        alpha = None
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
            "give another --format"
        )


def _exif(tags: Image.Exif) -> bytes:
    """EXIF as bytes; empty where Pillow cannot write it, since the picture matters more."""
    try:
        return tags.tobytes() if tags else b""
    except Exception:  # errors of many kinds, from the numbers in the tags
        return b""


def _check(width: int, height: int, pages: int, max_megapixels: float) -> None:
    if width * height > max_megapixels * 1e6:
        raise ValueError(
            f"it is {width}x{height}, {width * height / 1e6:.0f} megapixels, more than "
            f"--max_megapixels {max_megapixels:g}"
        )
    if pages > 1:
        raise ValueError("it has several frames or pages; only single pictures are enlarged")


def _read_tiff(page: Any, pages: int, max_megapixels: float) -> Picture:
    """Reads a page of 16 bits a channel."""
    _check(page.imagewidth, page.imagelength, pages, max_megapixels)
    kind = page.photometric.name
    channels = {"MINISBLACK": (1, 2), "RGB": (3, 4)}.get(kind, ())
    if (page.bitspersample, page.dtype) != (16, np.uint16) or page.samplesperpixel not in channels:
        raise ValueError(
            f"it has {page.samplesperpixel} channels {kind} of {page.bitspersample} bits, "
            f"{page.dtype}; save it as RGB, or as gray with black as 0, of 8 or 16 bits"
        )
    if ASSOCIATED_ALPHA in page.extrasamples:
        raise ValueError("its colors are multiplied by its opacity; save it without that")
    if page.samplesperpixel in (2, 4) and tuple(page.extrasamples) != (UNASSOCIATED_ALPHA,):
        raise ValueError("its last channel is not marked as opacity; save it without, or as PNG")
    array = page.asarray()
    if page.axes.startswith("S"):  # one channel after the other
        array = np.moveaxis(array, 0, -1)
    tags = page.tags
    profile = tags[ICC_PROFILE].value if ICC_PROFILE in tags else None
    return _picture(array, tags[ORIENTATION].value if ORIENTATION in tags else 1, profile, b"")


def _picture(array: np.ndarray, orientation: int, profile: bytes | None, exif: bytes) -> Picture:
    """Picture from an array of 1 to 4 channels, (h, w) or (h, w, c)."""
    array = _upright(array.reshape(*array.shape[:2], -1), orientation)
    if array.shape[2] in (2, 4):
        return Picture(array[..., :-1], array[..., -1], profile, exif)
    return Picture(array, None, profile, exif)


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


def _to_8_bits(array: np.ndarray) -> np.ndarray:
    return (array / 257).round().astype(np.uint8)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Picture as a viewer shows it, (h, w, c), by the orientation of EXIF, 1 to 8."""
    if orientation in (5, 6, 7, 8):  # rows and columns change places
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array
