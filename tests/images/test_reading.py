"""One reader for all commands: a table of kinds, against Pillow, tifffile and imagecodecs."""

import importlib.util
import io
import runpy
import struct
import sys
import types
import zipfile
import zlib
from pathlib import Path

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import BmpImagePlugin, Image, ImageOps, features

from common.data.cache import decode_pictures
from common.images.formats import (
    PictureError,
    TooLargeError,
    read_picture,
    read_rgb,
)
from common.images.kinds import EXTENSIONS, describe_unread
from common.images.tensors import to_float
from running import ROOT

GRADIENT = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
DEEP = (np.arange(7 * 9 * 3) * 347).astype(np.uint16).reshape(7, 9, 3)
OPACITY = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9) * 4
DEEP_OPACITY = OPACITY.astype(np.uint16) * 257 + 100
GRAY = GRADIENT[..., :1]


def saved(image: Image.Image | np.ndarray, format: str = "PNG", **options) -> bytes:
    """File that Pillow writes."""
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, format, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, photometric: str = "rgb", **options) -> bytes:
    """File that tifffile writes."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric=photometric, **options)
    return file.getvalue()


def pages(*images: tuple[np.ndarray, int]) -> bytes:
    """TIFF of several pages, (pixels, kind): 0 is a picture, 1 a smaller copy."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, kind in images:
            color = "rgb" if pixels.ndim == 3 else "minisblack"
            writer.write(pixels, photometric=color, subfiletype=kind, metadata=None)
    return file.getvalue()


def raw() -> bytes:
    """What cameras write: a smaller copy, and the picture at a place that only its tags name."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(GRADIENT[::2, ::2], photometric="rgb", subfiletype=1, subifds=1)
        writer.write(DEEP, photometric="rgb")
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """PNG with another chunk after its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def png(rows: list[bytes], width: int, bits: int, color: int, *chunks: bytes) -> bytes:
    """PNG made by hand; color 0 is gray, 2 RGB, 3 a palette."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def turned(pixels: np.ndarray, number: int) -> np.ndarray:
    """Pixels as Pillow turns them."""
    opened = Image.open(io.BytesIO(saved(pixels, exif=oriented(number))))
    return np.asarray(ImageOps.exif_transpose(opened))


def opened_by_pillow(content: bytes, mode: str = "RGB") -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert(mode))


# EXIF that Pillow reads and cannot write again: ResolutionUnit is a number of 16 bits; here it has
# 32, and needs them. The orientation, 6, is good.
BAD_EXIF = struct.pack("<2sHIH", b"II", 42, 8, 2) + struct.pack(
    "<HHIIHHIII", 0x0112, 3, 1, 6, 0x0128, 4, 1, 70000, 0
)
NO_EXIF = b"Exif\0\0II*\0\xff\xff\xff\xff"
JPEG = saved(GRADIENT, "JPEG")
PALETTE = Image.fromarray(GRADIENT).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
CMYK = Image.fromarray(GRADIENT).convert("CMYK")
BLOCKS = np.kron(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, np.ones((4, 4, 1), "u1"))
JP2, JP2_DEEP = saved(GRADIENT, "JPEG2000"), imagecodecs.jpeg2k_encode(DEEP, level=0)
FRAMES = [Image.new("RGB", (9, 7), color) for color in ("red", "blue", "green")]
MORE = {"save_all": True, "append_images": FRAMES[1:]}
RED = np.full((7, 9, 3), [255, 0, 0], np.uint8)

SUBFILE_TYPES = [struct.pack("<HHII", 254, 4, 1, kind) for kind in (1, 4)]

# (file, pixels, opacity), with pixels by another way than ours.
KINDS: dict[str, tuple[bytes, np.ndarray, np.ndarray | None]] = {
    "png gray": (saved(GRAY[..., 0]), GRAY, None),
    "png rgb": (saved(GRADIENT), GRADIENT, None),
    "png rgba": (saved(np.dstack([GRADIENT, OPACITY])), GRADIENT, OPACITY),
    "png gray, opacity": (saved(np.dstack([GRAY, OPACITY])), GRAY, OPACITY),
    "png 1 bit": (
        saved(GRAY[..., 0] > 99),
        np.where(GRAY > 99, 255, 0).astype(np.uint8),
        None,
    ),
    "png 2 bits": (
        png([bytes([0b00011011])], 4, 2, 0),
        np.array([[[0], [85], [170], [255]]], np.uint8),
        None,
    ),
    "png 4 bits": (png([bytes([0x3F])], 2, 4, 0), np.array([[[51], [255]]], np.uint8), None),
    "png palette": (saved(PALETTE), np.asarray(PALETTE.convert("RGB")), None),
    "png palette, opacity": (
        png([bytes([0, 1])], 2, 8, 3, chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\0\x80")),
        np.array([[[0, 1, 2], [3, 4, 5]]], np.uint8),
        np.array([[0, 128]], np.uint8),
    ),
    "png 16 bits": (imagecodecs.png_encode(DEEP), DEEP, None),
    "png 16 bits, gray": (saved(DEEP[..., 0]), DEEP[..., :1], None),
    "png 16 bits, opacity": (
        imagecodecs.png_encode(np.dstack([DEEP, DEEP_OPACITY])),
        DEEP,
        DEEP_OPACITY,
    ),
    "png 16 bits, tRNS": (
        png([struct.pack(">6H", 1, 2, 3, 1, 2, 4)], 2, 16, 2, chunk(b"tRNS", b"\0\1\0\2\0\3")),
        np.array([[[1, 2, 3], [1, 2, 4]]], np.uint16),
        np.array([[0, 65535]], np.uint16),
    ),
    "png 16 bits, gray, tRNS": (
        png([struct.pack(">2H", 300, 301)], 2, 16, 0, chunk(b"tRNS", struct.pack(">H", 300))),
        np.array([[[300], [301]]], np.uint16),
        np.array([[0, 65535]], np.uint16),
    ),
    "png 8 bits, tRNS": (
        png([bytes(range(6))], 2, 8, 2, chunk(b"tRNS", b"\0\0\0\1\0\2")),
        np.array([[[0, 1, 2], [3, 4, 5]]], np.uint8),
        np.array([[0, 255]], np.uint8),
    ),
    "png 4 bits, tRNS": (  # where Pillow sees no transparent pixel
        png([bytes([0x3F])], 2, 4, 0, chunk(b"tRNS", b"\0\3")),
        np.array([[[51], [255]]], np.uint8),
        np.array([[0, 255]], np.uint8),
    ),
    "png 1 bit, tRNS": (
        png([bytes([0b01000000])], 2, 1, 0, chunk(b"tRNS", b"\0\1")),
        np.array([[[0], [255]]], np.uint8),
        np.array([[255, 0]], np.uint8),
    ),
    "png, text of 2 MB": (
        with_chunk(saved(GRADIENT), b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        GRADIENT,
        None,
    ),
    "png, profile of 2 MB": (
        with_chunk(saved(GRADIENT), b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        GRADIENT,
        None,
    ),
    "png, broken exif": (with_chunk(saved(GRADIENT), b"eXIf", b"no exif"), GRADIENT, None),
    "png, exif at the end": (
        saved(GRADIENT)[:-12] + chunk(b"eXIf", oriented(6).tobytes()[6:]) + chunk(b"IEND", b""),
        turned(GRADIENT, 6),
        None,
    ),
    "png, bad exif": (
        with_chunk(saved(GRADIENT), b"eXIf", BAD_EXIF),
        turned(GRADIENT, 6),
        None,
    ),
    "apng": (saved(FRAMES[0], **MORE), RED, None),
    "jpeg": (JPEG, opened_by_pillow(JPEG), None),
    "jpeg gray": (
        saved(GRAY[..., 0], "JPEG"),
        opened_by_pillow(saved(GRAY[..., 0], "JPEG"), "L")[..., None],
        None,
    ),
    "jpeg progressive": (
        saved(GRADIENT, "JPEG", progressive=True),
        opened_by_pillow(saved(GRADIENT, "JPEG", progressive=True)),
        None,
    ),
    "jpeg cmyk": (saved(CMYK, "JPEG"), opened_by_pillow(saved(CMYK, "JPEG")), None),
    "jpeg, bad exif": (
        saved(GRADIENT, "JPEG", exif=b"Exif\0\0" + BAD_EXIF),
        turned(opened_by_pillow(JPEG), 6),
        None,
    ),
    "jpeg, broken exif": (saved(GRADIENT, "JPEG", exif=NO_EXIF), opened_by_pillow(JPEG), None),
    "jpeg 2000": (JP2, GRADIENT, None),
    "jpeg 2000, 16 bits": (JP2_DEEP, DEEP, None),
    "bmp": (saved(GRADIENT, "BMP"), GRADIENT, None),
    "bmp palette": (saved(PALETTE, "BMP"), np.asarray(PALETTE.convert("RGB")), None),
    "webp": (saved(GRADIENT, "WEBP", lossless=True), GRADIENT, None),
    "webp, opacity": (
        saved(np.dstack([GRADIENT, OPACITY]), "WEBP", lossless=True, exact=True),
        GRADIENT,
        OPACITY,
    ),
    "webp, animated": (saved(FRAMES[0], "WEBP", lossless=True, **MORE), RED, None),
    "gif": (saved(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")), None),
    "gif, animated": (saved(FRAMES[0], "GIF", **MORE), RED, None),
    "ppm": (saved(GRADIENT, "PPM"), GRADIENT, None),
    "ppm, text": (b"P3 1 1 15\n0 3 15\n", np.array([[[0, 51, 255]]], np.uint8), None),
    "pgm 16 bits": (
        b"P5 2 1 65535\n" + struct.pack(">2H", 300, 65535),
        np.array([[[300], [65535]]], np.uint16),
        None,
    ),
    "tiff": (tiff(GRADIENT), GRADIENT, None),
    "tiff gray": (tiff(GRAY[..., 0], "minisblack"), GRAY, None),
    "tiff, white is zero": (tiff(GRAY[..., 0], "miniswhite"), 255 - GRAY, None),
    "tiff 1 bit": (saved(GRAY[..., 0] > 99, "TIFF"), np.where(GRAY > 99, 255, 0), None),
    "tiff planar": (
        tiff(np.moveaxis(GRADIENT, -1, 0), planarconfig="separate"),
        GRADIENT,
        None,
    ),
    "tiff opacity": (
        tiff(np.dstack([GRADIENT, OPACITY]), extrasamples=["unassalpha"]),
        GRADIENT,
        OPACITY,
    ),
    "tiff palette": (saved(PALETTE, "TIFF"), np.asarray(PALETTE.convert("RGB")), None),
    "tiff cmyk": (saved(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB")), None),
    "tiff big endian": (tiff(DEEP, byteorder=">"), DEEP, None),
    "tiff of more than 4 GB": (tiff(GRADIENT, bigtiff=True), GRADIENT, None),
    "tiff 16 bits": (tiff(DEEP), DEEP, None),
    "tiff 16 bits, zlib": (tiff(DEEP, compression="zlib", predictor=True), DEEP, None),
    "tiff 16 bits, tiles": (tiff(DEEP, tile=(16, 16)), DEEP, None),
    "tiff 16 bits, gray": (tiff(DEEP[..., 0], "minisblack"), DEEP[..., :1], None),
    "tiff 16 bits, white is zero": (
        tiff(DEEP[..., 0], "miniswhite"),
        65535 - DEEP[..., :1],
        None,
    ),
    "tiff 16 bits, planar": (
        tiff(np.moveaxis(DEEP, -1, 0), planarconfig="separate"),
        DEEP,
        None,
    ),
    "tiff 16 bits, opacity": (
        tiff(np.dstack([DEEP, DEEP_OPACITY]), extrasamples=["unassalpha"]),
        DEEP,
        DEEP_OPACITY,
    ),
    "tiff, thumbnail second": (pages((GRADIENT, 0), (GRADIENT[::2, ::2], 1)), GRADIENT, None),
    "tiff, thumbnail first": (pages((GRADIENT[::2, ::2], 1), (GRADIENT, 0)), GRADIENT, None),
    "tiff 16 bits, thumbnail first": (pages((GRADIENT[::2, ::2], 1), (DEEP, 0)), DEEP, None),
    "tiff, mask second": (
        pages((GRADIENT, 0), (GRAY[..., 0], 1)).replace(*SUBFILE_TYPES),
        GRADIENT,
        None,
    ),
}


def reduced(pixels: np.ndarray, opacity: np.ndarray | None) -> np.ndarray:
    """8-bit RGB on white, in floats."""

    def of_8_bits(array):
        return (array / 257).round() if array.dtype == np.uint16 else array.astype(float)

    rgb = of_8_bits(pixels)
    if opacity is not None:
        share = of_8_bits(opacity)[..., None] / 255
        rgb = (rgb * share + 255 * (1 - share)).round()
    return np.broadcast_to(rgb, (*rgb.shape[:2], 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind(kind, tmp_path):
    content, pixels, opacity = KINDS[kind]
    found = read_picture(io.BytesIO(content))
    assert found.pixels.dtype == pixels.dtype or kind == "tiff 1 bit"
    assert np.array_equal(found.pixels, pixels)
    assert (found.alpha is None) == (opacity is None)
    assert opacity is None or np.array_equal(found.alpha, opacity)
    assert np.array_equal(read_rgb(io.BytesIO(content)), reduced(pixels, opacity))
    # What a training gets, from a file and from an archive.
    (tmp_path / "a.png").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    rgb = read_rgb(tmp_path / "a.png")
    assert rgb.flags.c_contiguous
    assert np.array_equal(rgb, reduced(pixels, opacity))
    for name in (f"{tmp_path}/a.png", f"zip://a.png::{tmp_path}/a.zip"):
        with fsspec.open(name) as opened:
            assert np.array_equal(read_rgb(opened), rgb)


@pytest.mark.parametrize("number", range(1, 9))
def test_an_orientation(number):
    for content in (
        saved(GRADIENT, exif=oriented(number)),
        saved(GRADIENT, "TIFF", exif=oriented(number)),
        saved(GRADIENT, "WEBP", lossless=True, exif=oriented(number)),
        tiff(GRADIENT, extratags=[(0x0112, 3, 1, number, True)]),
    ):
        found = read_picture(io.BytesIO(content))
        assert np.array_equal(found.pixels, turned(GRADIENT, number))
    deep = read_picture(io.BytesIO(tiff(DEEP, extratags=[(0x0112, 3, 1, number, True)])))
    assert np.array_equal(deep.pixels >> 8, turned((DEEP >> 8).astype(np.uint8), number))
    jpeg = read_rgb(io.BytesIO(saved(BLOCKS, "JPEG", exif=oriented(number))))
    assert np.array_equal(jpeg, turned(opened_by_pillow(saved(BLOCKS, "JPEG")), number))


def huge(png: bytes) -> bytes:
    """PNG whose header tells of 15,000 x 15,000 pixels, 225 megapixels."""
    header = struct.pack(">II", 15_000, 15_000) + png[24:29]
    return png[:8] + chunk(b"IHDR", header) + png[33:]


ZEROS = zlib.compress(bytes(10))
REFUSED = {
    "empty": (b"", "it is empty"),
    "text": (b"no picture", "it is no PNG, JPEG, BMP, WebP, TIFF, GIF, JPEG 2000, PPM, AVIF or H"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of git-lfs in p"),
    "png cut off": (saved(GRADIENT)[:-60], "it is damaged: "),
    "png, broken chunk": (saved(GRADIENT).replace(b"IDAT", b"IxAT"), "it is no PNG, JPEG, BMP,"),
    "png, broken second chunk": (  # a SyntaxError of Pillow
        png([bytes(9)], 9, 8, 0).replace(
            chunk(b"IDAT", ZEROS), chunk(b"IDAT", ZEROS[:5]) + chunk(b"\xffDAT", ZEROS[5:])
        ),
        "it is damaged: broken PNG file",
    ),
    "png, broken pixels": (
        saved(GRADIENT).replace(b"IDAT\x78", b"IDAT\x00"),
        "it is damaged: ",
    ),
    "png 16 bits, cut off": (saved(DEEP[..., 0])[:-60], "it is damaged: "),
    "png, 225 megapixels": (
        huge(saved(GRADIENT)),
        "it is 15000x15000, 225 megapixels, and at most 200 are read",
    ),
    "jpeg cut off": (JPEG[: len(JPEG) // 3], "it is damaged: "),
    "jpeg 2000 cut off": (JP2[:150], "it is damaged: "),
    "jpeg 2000 of 12 bits": (
        imagecodecs.jpeg2k_encode(DEEP >> 4, level=0, bitspersample=12),
        "it has 12 bits a channel; save it with 8 or 16",
    ),
    "webp cut off": (saved(GRADIENT, "WEBP")[:30], "it is "),
    "gif cut off": (saved(PALETTE, "GIF")[:30], "it is "),
    "tiff cut off": (tiff(GRADIENT)[:100], "it is damaged: "),
    "tiff 16 bits, cut off": (tiff(DEEP, compression="zlib")[:-100], "it is damaged: "),
    "tiff, 225 megapixels": (
        tiff(GRADIENT)
        .replace(struct.pack("<HHII", 256, 4, 1, 9), struct.pack("<HHII", 256, 4, 1, 15_000))
        .replace(struct.pack("<HHII", 257, 4, 1, 7), struct.pack("<HHII", 257, 4, 1, 15_000)),
        "it is 15000x15000, 225 megapixels, and at most 200 are read",
    ),
    "tiff, floats": (
        tiff(GRADIENT.astype(np.float32)),
        "it has 3 channels RGB of 32 bits, float32; save it as RGB or gray of 8 or 16 bits",
    ),
    "tiff, floats of 16 bits": (tiff(GRADIENT.astype(np.float16)), "it has 3 channels RGB of 16"),
    "tiff, 32 bits": (tiff(DEEP.astype(np.uint32)), "it has 3 channels RGB of 32 bits, uint32"),
    "tiff, signed": (tiff(GRADIENT.astype(np.int8)), "it has 3 channels RGB of 8 bits, int8; s"),
    "tiff 16 bits, cmyk": (
        tiff(np.dstack([DEEP, DEEP[..., :1]]), "separated"),
        "it has 4 channels SEPARATED of 16 bits, uint16; save it as RGB or gray of 8 or 16",
    ),
    "tiff, two pages": (
        pages((GRADIENT, 0), (GRADIENT, 0)),
        "it has several pages; save each as a file of its own",
    ),
    "tiff 16 bits, two pages": (pages((DEEP, 0), (DEEP, 0)), "it has several pages; save each"),
    "ppm 16 bits": (b"P6 1 1 65535\n" + bytes(6), "it is a color PPM of 16 bits; save it as PNG"),
    "ppm 10 bits, text": (b"P3 1 1 1023\n1 2 1023\n", "it is a color PPM of 16 bits; save it as"),
    "raw": (raw(), "it is a raw picture; develop it to TIFF"),
    "postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "it is no PNG, JPEG, BMP, WebP, TIFF, GIF, JPEG 2000, PPM, AVIF or HEIC, or it is damaged",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_refused(kind, tmp_path):
    content, message = REFUSED[kind]
    (tmp_path / "a.png").write_bytes(content)
    for file in (tmp_path / "a.png", io.BytesIO(content)):
        for read in (read_rgb, read_picture):
            with pytest.raises(PictureError) as error:
                read(file)
            assert f"{error.value}".startswith(message)
            assert len(f"{error.value}") < 200
            assert "object at" not in f"{error.value}"
            assert isinstance(error.value, TooLargeError) == ("megapixels" in kind)
            if isinstance(file, io.BytesIO):
                file.seek(0)
    source = {"name": "a.png", "hr": {"path": None, "bytes": content}}
    _, errors = decode_pictures([source], [2], identity=[kind], folder=tmp_path / "cache")
    assert errors["a.png"].startswith(message)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(PictureError, match=r"^it cannot be read: No such file or directory$"):
        read_rgb(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"^it is no file of bytes, but a folder, FIFO, device"):
        read_picture(tmp_path)


def test_frames_are_counted():
    counts = {kind: read_picture(io.BytesIO(KINDS[kind][0])).frames for kind in KINDS}
    assert {kind for kind, count in counts.items() if count == 3} == {
        *("apng", "webp, animated", "gif, animated")
    }
    assert set(counts.values()) == {1, 3}


def test_avif():
    if not features.check("avif"):
        pytest.skip("this Pillow cannot decode AVIF")
    assert ".avif" in EXTENSIONS
    content = saved(BLOCKS, "AVIF", quality=100, exif=oriented(6))
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == BLOCKS.swapaxes(0, 1).shape
    assert np.array_equal(read_rgb(io.BytesIO(content)), expected)


class HeifStandIn(BmpImagePlugin.BmpImageFile):
    """A bitmap behind the first bytes of HEIC."""

    format = "HEIF"

    def _open(self) -> None:
        self.fp.seek(16)
        self._bitmap()


@pytest.mark.parametrize("installed", [True, False])
def test_heic_is_for_an_optional_package(installed, tmp_path, monkeypatch):
    file = io.BytesIO(b"\0\0\0\x10ftypheic\0\0\0\0" + saved(RED[:1, :1], "BMP")[14:])
    package = types.ModuleType("pillow_heif")
    package.__spec__ = importlib.machinery.ModuleSpec("pillow_heif", None) if installed else None
    package.register_heif_opener = lambda: monkeypatch.setitem(
        Image.OPEN, "HEIF", (HeifStandIn, lambda prefix: prefix[4:12] == b"ftypheic")
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: package.__spec__)
        kinds = runpy.run_path(ROOT / "common" / "images" / "kinds.py")
    for name in ("DECODED", "UNREAD"):
        monkeypatch.setattr(f"common.images.formats.{name}", kinds[name])
    assert (".heic" in kinds["EXTENSIONS"], ".heic" in kinds["UNREAD"]) == (
        installed,
        not installed,
    )
    if installed:
        assert read_rgb(file).tolist() == [[[255, 0, 0]]]
    else:
        with pytest.raises(PictureError, match=r"^it is HEIC: install pillow-heif, or save it as "):
            read_rgb(file)


def test_what_is_said_of_files_that_are_not_read():
    names = ("a.png", "b.svg", "c.NEF", "C.nef", "notes.txt", "d.jfif", "e.gif")
    said = describe_unread(map(Path, names), 7)
    assert said == "Left out 3 of 10: 2 .nef (develop it to TIFF), 1 .svg (save it as PNG)."
    assert describe_unread([Path("a.png")], 7) == ""


def test_bytes_become_floats_in_0_1():
    floats = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.device("cpu"))
    assert torch.equal(floats, torch.tensor([0, 0.2, 1.0]))
