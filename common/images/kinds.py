"""Kinds of picture files: which are read, which are written, and what to do about the others."""

from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from PIL import features

# The formats that are written, under the names that Pillow gives them.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
# All kinds that are read, in words: AVIF and HEIC where what they need is installed.
KINDS = ("PNG", "JPEG", "BMP", "WebP", "TIFF", "GIF", "JPEG 2000", "PPM", "AVIF", "HEIC")
# What Pillow decodes without another program. (It would have PostScript, for one, run by an
# interpreter.)
DECODED = [*dict.fromkeys(FORMATS.values()), "GIF", "PPM", "JPEG2000"]
# The endings of pictures that are looked for in folders, and of others, with the way out.
EXTENSIONS = (*FORMATS, ".apng", ".jpe", ".jfif", ".mpo", ".gif", ".jp2", ".j2k", ".jpf", ".jpx")
EXTENSIONS += (".j2c", ".jpc", ".pbm", ".pgm", ".ppm", ".pnm")
RAW = "3fr arw cr2 cr3 crw dng erf iiq kdc mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
OTHERS = "ai bpg cur dds dib emf eps exr hdr icns ico jng jxl jxr kra pcx pfm psb psd"
OTHERS += " qoi sgi svg svgz tga wdp wmf xbm xcf xpm"
UNREAD = {f".{ending}": "save it as PNG" for ending in OTHERS.split()}
UNREAD |= {f".{ending}": "develop it to TIFF" for ending in RAW.split()}
if "avif" in features.modules and features.check_module("avif"):
    EXTENSIONS += (".avif",)
    DECODED.append("AVIF")
else:
    UNREAD[".avif"] = "install Pillow 11.3 or newer"
if find_spec("pillow_heif"):
    import pillow_heif  # type: ignore[import-not-found, unused-ignore]

    pillow_heif.register_heif_opener()
    EXTENSIONS += (".heic", ".heif", ".hif")
    DECODED.append("HEIF")
else:
    UNREAD |= dict.fromkeys((".heic", ".heif", ".hif"), "install pillow-heif")


def describe_unread(paths: Iterable[Path], number_read: int) -> str:
    """Says what was left out: `Left out 3 of 10: 2 .heic (install pillow-heif), 1 .svg (...).`

    Args:
        paths: Files, of which those count that are pictures by their ending and cannot be read.
        number_read: Number of pictures beside them that can be read.
    """
    counts = Counter(end for path in paths if (end := path.suffix.lower()) in UNREAD)
    parts = [f"{count} {ending} ({UNREAD[ending]})" for ending, count in sorted(counts.items())]
    total = counts.total()
    return f"Left out {total} of {total + number_read}: {', '.join(parts)}." if total else ""
