"""The reader of picture files, one for all commands.

picture = read_picture(Path("photo.png"))       # gray or color, transparent or not, 8 or 16 bits
pixels = read_rgb("photo.png")                  # the same as 8-bit RGB, as networks are trained on
"""

import logging
import os
import stat
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from PIL import (
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    UnidentifiedImageError,
)

from common.images.kinds import DECODED, KINDS, UNREAD

ORIENTATION, ICC_PROFILE, SUB_IFDS = 0x0112, 0x8773, 0x014A  # tags of EXIF and TIFF
SIDEWAYS = (5, 6, 7, 8)  # orientations that let rows and columns change places
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # its first bytes
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAX_MEGAPIXELS = 200.0

Image.MAX_IMAGE_PIXELS = None  # `_check` takes its place, before a pixel is decoded
PngImagePlugin.MAX_TEXT_CHUNK = 2**24  # of a profile as well; 1 MB is too little for some
# What is wrong with a file is said by an error, what is odd in its tags is nobody's concern.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class PictureError(ValueError):
    """A file that cannot be read as a picture; the reason, in words that follow its name."""


class TooLargeError(PictureError):
    """A picture of more pixels than are allowed."""


class Picture(NamedTuple):
    """A decoded picture, upright.

    Attributes:
        pixels: Gray or RGB, uint8 or uint16, (h, w, 1) or (h, w, 3).
        alpha: Opacity of the same type, (h, w), or None.
        icc_profile: Meaning of its colors, or None for sRGB.
        exif: Camera, date and so on, without the orientation; may be empty.
        subsampling: How a JPEG stores its colors, by Pillow's number: 0 is 4:4:4, 2 is 4:2:0. None
            for other formats.
        frames: Number of frames of the animation whose first one this is, or 1.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes = b""
    subsampling: int | None = None
    frames: int = 1


def check_regular(path: Path | str) -> None:
    """Refuses what is no file of bytes, before it is opened: a FIFO would be waited for for ever.

    Raises:
        PictureError: It is a FIFO, a device, a socket or a folder.
        OSError: There is no such file, or its link leads in a circle.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise PictureError("it is no file of bytes, but a folder, FIFO, device or socket")


def read_rgb(file: str | Path | BinaryIO) -> np.ndarray:
    """Reads a picture as a viewer would show it: upright, in color, on white, of 8 bits.

    Args:
        file: A file that `read_picture` takes.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        PictureError: The file cannot be read.
    """
    return to_rgb(read_picture(file))


def to_rgb(picture: Picture) -> np.ndarray:
    """RGB of a picture, on white, uint8, (H, W, 3)."""
    pixels = to_8_bits(picture.pixels)
    if picture.alpha is not None:
        pixels = over_white(pixels, to_8_bits(picture.alpha))
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """Pixels of 16 bits as the nearest ones of 8 bits; such ones stay as they are."""
    return (
        array if array.dtype == np.uint8 else ((array.astype(np.uint32) + 128) // 257).astype("u1")
    )


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Pixels (h, w, c) of a transparent picture of 8 bits on white, to the nearest value."""
    white = (255 - pixels).astype(np.uint16) * alpha[..., None] + 128
    return 255 - ((white + (white >> 8)) >> 8).astype(np.uint8)


def read_picture(file: str | Path | BinaryIO, max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """Reads a picture with all that its file holds.

    Args:
        file: A file, or its bytes, of one of the formats in DECODED: gray, palette, RGB, CMYK, with
            opacity or without, of 1 to 8 or 16 bits. Of an animation it is the first frame; a TIFF
            must have one page, apart from smaller copies and masks that are marked as such.
        max_megapixels: Limit of the size, which protects the memory.

    Raises:
        PictureError: The file cannot be read, whatever the reason.
    """
    try:
        if not isinstance(file, str | Path):
            return _read(file, max_megapixels)
        check_regular(file)
        with open(file, "rb") as opened:
            return _read(opened, max_megapixels)
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("the memory is too small for it") from None
    except Exception as error:  # decoders raise errors of many kinds for a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"it cannot be read: {error.strerror}") from None
        text = " ".join(f"{error}".split())[:150] or type(error).__name__
        raise PictureError(f"it is damaged: {text}") from None


def _read(file: BinaryIO, max_megapixels: float) -> Picture:
    header, page = file.read(64), 0
    file.seek(0)
    if header[:4] in TIFF:
        with tifffile.TiffFile(file) as tiff:
            page = _number_of_page(tiff)
            found: Any = tiff.pages[page]
            _check(found.imagewidth, found.imagelength, max_megapixels)
            if found.bitspersample > 8 or found.sampleformat != tifffile.SAMPLEFORMAT.UINT:
                return _read_deep_tiff(found)  # Pillow reads some of these only, and as 8 bits
        file.seek(0)
    try:
        opened = Image.open(file, formats=DECODED)
    except UnidentifiedImageError:
        raise PictureError(_what_it_is(header)) from None
    with opened as image:
        kind = image.format
        if kind == "TIFF":
            image.seek(page)
        _check(*image.size, max_megapixels)
        if kind in ("PNG", "TIFF"):  # EXIF may be at the end; Pillow turns a TIFF by itself
            image.load()
        orientation, exif = _metadata(image)
        profile = image.info.get("icc_profile")
        sampling = JpegImagePlugin.get_sampling(image) if kind in ("JPEG", "MPO") else -1
        # A TIFF has pages, and an MPO, from a telephone, other pictures for its own use.
        frames = 1 if kind in ("TIFF", "MPO") else getattr(image, "n_frames", 1)
        if image.mode in ("CMYK", "LAB"):
            profile = None  # it describes CMYK or LAB, and the picture becomes RGB
        array = _pixels(image, file, header, max_megapixels)
    picture = _picture(array, orientation, profile, exif)
    return picture._replace(subsampling=sampling if sampling >= 0 else None, frames=frames)


def _pixels(image: Image.Image, file: BinaryIO, header: bytes, max_megapixels: float) -> np.ndarray:
    """Decodes a picture: by Pillow, except where that would read 16 bits as 8, or opacity wrongly.

    Returns:
        Gray or RGB, perhaps with opacity, uint8 or uint16, (h, w) or (h, w, c).
    """
    if image.format == "PNG":
        has_transparent_color = image.mode != "P" and "transparency" in image.info
        if header[24] == 16 or has_transparent_color:
            file.seek(0)
            return np.asarray(imagecodecs.png_decode(file.read()))
    if image.format == "JPEG2000" and (content := _deep_jpeg2000(file, max_megapixels)):
        return np.asarray(imagecodecs.jpeg2k_decode(content))
    if image.format == "PPM" and image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        how = image.tile[0].args  # (mode, largest value), or the mode alone
        if isinstance(how, tuple) and how[-1] > 255:  # which Pillow would read as 8 bits
            raise PictureError("it is a color PPM of 16 bits; save it as PNG or TIFF")
    if image.mode.startswith(("I", "F")):
        raise PictureError("it has 32 bits a channel; save it with 8 or 16")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    mode += "A" if image.has_transparency_data else ""
    return np.array(image if image.mode == mode else image.convert(mode))


def _check(width: int, height: int, max_megapixels: float) -> None:
    if width * height > max_megapixels * 1e6:
        raise TooLargeError(
            f"it is {width}x{height}, {width * height / 1e6:.0f} megapixels, and at most "
            f"{max_megapixels:g} are read"
        )


def _what_it_is(header: bytes) -> str:
    """Says what a file is that is not known to be a picture."""
    if not header:
        return "it is empty"
    if header.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs in place of the picture; get it by `git lfs pull`"
    if header[4:8] == b"ftyp":
        brand = header[8:12]
        for ending, brands in ((".avif", (b"avif", b"avis")), (".heic", HEIC_BRANDS)):
            if brand in brands and ending in UNREAD:
                return f"it is {ending[1:].upper()}: {UNREAD[ending]}, or save it as PNG"
    return f"it is no {', '.join(KINDS[:-1])} or {KINDS[-1]}, or it is damaged"


def _metadata(image: Image.Image) -> tuple[int, bytes]:
    """(orientation, EXIF without it). EXIF that is damaged is left out: the picture matters more.

    (Pillow cannot write again all EXIF that it reads. The orientation is known all the same.)
    """
    orientation = 1
    try:
        tags = image.getexif()
        orientation = tags.pop(ORIENTATION, 1)
        # Those of TIFF tell where its bytes are.
        return orientation, tags.tobytes() if tags and image.format != "TIFF" else b""
    except Exception:  # errors of many kinds, from the numbers in the tags
        return orientation, b""


def _deep_jpeg2000(file: BinaryIO, max_megapixels: float) -> bytes:
    """Content of a JPEG 2000 file of 16 bits, which Pillow would read as 8; else nothing."""
    file.seek(0)
    content = file.read()
    start = content.find(b"\xff\x4f\xff\x51")  # the markers SOC and SIZ
    right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
    _check(right - left, bottom - top, max_megapixels)  # the file's header may say otherwise
    bits = (content[start + 42] & 127) + 1
    if bits <= 8:
        return b""
    if bits != 16 or content[start + 42] & 128:
        raise PictureError(f"it has {bits} bits a channel; save it with 8 or 16")
    return content


def _number_of_page(tiff: tifffile.TiffFile) -> int:
    """Number of the one page of a TIFF file that is no smaller copy (thumbnail) and no mask."""
    whole = []
    for number, page in enumerate(tiff.pages):
        found: Any = page
        if not (found.is_reduced or found.is_mask):
            whole.append(number)
        elif SUB_IFDS in found.tags:
            raise PictureError("it is a raw picture; develop it to TIFF")
        if len(whole) > 1:
            raise PictureError("it has several pages; save each as a file of its own")
    return whole[0] if whole else 0


def _read_deep_tiff(page: Any) -> Picture:
    """Reads a page of 16 bits a channel."""
    kind = page.photometric.name
    channels = {"MINISBLACK": (1, 2), "MINISWHITE": (1, 2), "RGB": (3, 4)}.get(kind, ())
    expected = (16, np.uint16, 1)
    if (page.bitspersample, page.dtype, page.imagedepth) != expected or (
        page.samplesperpixel not in channels
    ):
        raise PictureError(
            f"it has {page.samplesperpixel} channels {kind} of {page.bitspersample} bits, "
            f"{page.dtype}; save it as RGB or gray of 8 or 16 bits"
        )
    if ASSOCIATED_ALPHA in page.extrasamples:
        raise PictureError("its colors are multiplied by its opacity; save it without that")
    if page.samplesperpixel in (2, 4) and tuple(page.extrasamples) != (UNASSOCIATED_ALPHA,):
        raise PictureError("its last channel is not marked as opacity; save it without, or as PNG")
    array = page.asarray()
    if page.axes.startswith("S"):  # one channel after the other
        array = np.moveaxis(array, 0, -1)
    tags = page.tags
    profile = tags[ICC_PROFILE].value if ICC_PROFILE in tags else None
    orientation = tags[ORIENTATION].value if ORIENTATION in tags else 1
    picture = _picture(array, orientation, profile, b"")
    if kind == "MINISWHITE":
        picture = picture._replace(pixels=65535 - picture.pixels)
    return picture


def _picture(array: np.ndarray, orientation: int, profile: bytes | None, exif: bytes) -> Picture:
    """Picture from an array of 1 to 4 channels, (h, w) or (h, w, c)."""
    array = _upright(array.reshape(*array.shape[:2], -1), orientation)
    if array.shape[2] in (2, 4):
        return Picture(array[..., :-1], array[..., -1], profile, exif)
    return Picture(array, None, profile, exif)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Picture as a viewer shows it, (h, w, c), by the orientation of EXIF, 1 to 8."""
    if orientation in SIDEWAYS:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array
