"""Decoded pictures, made once and then memory-mapped: the file that patches are cut from.

pictures, errors = decode_pictures(find_pictures(Path("photos"), [2]), [2])
pixels = pictures.hr(0)  # (H, W) elements of three bytes; pictures.lr(0, scale=2)
"""

import inspect
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from common.data.find import Source
from common.errors import UserError
from common.files import checksum
from common.images import formats, resize
from common.images.formats import check_regular, read_rgb
from common.images.kinds import DECODED
from common.images.resize import crop_to_multiple, imresize
from common.images.tensors import to_tensor
from common.terminal import printable
from common.workers import Room, count_cores, trim_memory

if TYPE_CHECKING:
    import datasets

# Version of the table that `_decode` makes, part of its key. Who edits the code in DECODING gets
# other keys, so the cache never hides an edit. A commit that edits it sets KNOWN_CODE anew (a test
# says to what), and LAYOUT as well if it changes what is in a table.
LAYOUT = 3
KNOWN_CODE = "f8916f78fb5c8e1940615381e4d3098f"

# Pixels of the pictures that are decoded at once, 20 to 30 bytes each, or wait to be written.
PIXELS_AT_ONCE = 2**25
MOST_BYTES = 2**28  # of a picture on the Hub or in an archive, which could unpack to anything


class Pictures:
    """Decoded pictures, HR and LR, in a memory-mapped Arrow file.

    A picture is a view of the file: (H, W) elements of three bytes, R, G and B. Elements are
    cropped, flipped and transposed several times as fast as a third axis of single bytes.
    """

    def __init__(self, table: "datasets.Dataset", rows: Sequence[int]) -> None:
        self.table = table
        self.rows = list(rows)
        facts = table.select_columns(["name", "height", "width"])[self.rows]
        self.names = [printable(name) for name in facts["name"]]
        self.sizes = np.array([facts["height"], facts["width"]]).T  # (len(self), 2), of HR
        self._views: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:  # a view would travel to a worker as a copy
        return self.__dict__ | {"_views": {}}

    def hr(self, index: int) -> np.ndarray:
        """(H, W) pixels."""
        return self._pixels("hr", index, *self.sizes[index])

    def lr(self, index: int, scale: int) -> np.ndarray:
        """(H // scale, W // scale) pixels."""
        return self._pixels(f"lr_x{scale}", index, *self.sizes[index] // scale)

    def checksum(self) -> str:
        """Eight digits for their names and sizes, by which a checkpoint knows its pictures."""
        return checksum([self.names, self.sizes.tolist()])[:8]

    def subset(self, indices: Sequence[int]) -> "Pictures":
        """Selects pictures by their numbers; the file stays the same."""
        return Pictures(self.table, [self.rows[index] for index in indices])

    def _pixels(self, column: str, index: int, height: int, width: int) -> np.ndarray:
        if (column, index) not in self._views:
            # The buffers of the file itself: a single element of an Arrow array is a copy.
            cell = self.table.data.column(column).slice(self.rows[index], 1).chunk(0)
            _, offsets, data = cell.buffers()
            start = np.frombuffer(offsets, np.int64)[cell.offset]
            pixels = np.frombuffer(data, "V3", height * width, start)
            self._views[column, index] = pixels.reshape(height, width)
        return self._views[column, index]


def decode_pictures(
    sources: Iterable[Source],
    scales: Sequence[int],
    identity: Any = None,
    folder: Path | None = None,
    roots: Sequence[str] | None = None,
) -> tuple[Pictures, dict[str, str]]:
    """Decodes pictures and makes their LR, or finds the result of an earlier start in the cache.

    Where several processes start together, one decodes and the others wait.

    Args:
        sources: The pictures before they are decoded.
        scales: Factors from LR to HR.
        identity: Key of the cache, JSON values. The pictures are decoded again when it changes.
            Default: the paths, sizes and times of the files.
        folder: Folder of the cache. Default: that of `datasets` (`HF_DATASETS_CACHE`).
        roots: Folders and addresses in which the sources may name files, for sources from
            elsewhere. A picture that names another file is an error and is opened by nothing.
            Default: any file, for sources that this program has listed itself.

    Returns:
        (pictures, errors). errors: the reason for each picture that could not be read, by its name.

    Raises:
        UserError: The cache cannot be written.
    """
    identity = identity or [
        [key, value if key == "name" else _state(value)]
        for source in sources
        for key, value in source.items()
    ]
    # (A picture that could not be read can be when another decoder is installed.)
    fingerprint = checksum([_layout(), DECODED, identity, list(scales)])
    columns = {"name": "string", "error": "string", "height": "int32", "width": "int32"}
    columns |= dict.fromkeys(("hr", *(f"lr_x{scale}" for scale in scales)), "large_binary")
    import datasets  # takes a second, for which somebody who enlarges a picture need not wait

    cache = folder or Path(datasets.config.HF_DATASETS_CACHE)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        datasets.disable_progress_bars()  # its bar knows no total; ours does
        with FileLock(cache / f"pictures-{fingerprint}.lock"):
            table = datasets.Dataset.from_generator(
                _decode,
                # Tuples: `datasets` would take a list for shards and call us once for each element.
                gen_kwargs={
                    "sources": tuple(sources) if isinstance(sources, list) else sources,
                    "scales": tuple(scales),
                    "roots": None if roots is None else tuple(roots),
                },
                features=datasets.Features(
                    {key: datasets.Value(kind) for key, kind in columns.items()}
                ),
                fingerprint=fingerprint,
                cache_dir=str(cache),
                writer_batch_size=2,  # pictures in memory; the default of 1000 takes gigabytes
            )
    except (OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(
            f"Cannot write the decoded pictures to {cache}: {error.__cause__ or error}. "
            "Set HF_DATASETS_CACHE to a folder with room for them."
        ) from error
    finally:
        datasets.enable_progress_bars()

    facts = table.select_columns(["name", "error"])[:]
    errors = {
        printable(name): error
        for name, error in zip(facts["name"], facts["error"], strict=True)
        if error
    }
    return Pictures(table, [row for row, error in enumerate(facts["error"]) if not error]), errors


def _layout() -> int | str:
    """Version of the table: LAYOUT, or a key of its own for code that somebody has edited."""
    code = checksum([inspect.getsource(part) for part in DECODING])
    return LAYOUT if code == KNOWN_CODE else code


def _state(file: dict[str, Any]) -> list[Any]:
    """Path, size and time of a file; a broken link has a path only."""
    if not os.path.exists(file["path"]):
        return [file["path"]]
    status = os.stat(file["path"])
    return [file["path"], status.st_size, status.st_mtime_ns]


def _decode(
    sources: Iterable[Source], scales: Sequence[int], roots: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    workers = min(16, count_cores())  # threads do: Pillow and PyTorch release the interpreter
    numbered = enumerate(sources)
    with (
        ThreadPoolExecutor(workers) as pool,
        closing(Room(PIXELS_AT_ONCE)) as room,
        tqdm(
            total=len(sources) if isinstance(sources, Sized) else None,
            desc="Decoding",
            unit=" pictures",
            leave=False,
            disable=None,
        ) as bar,
    ):
        decode = partial(_decode_when_there_is_room, room, scales, roots)
        while some := list(islice(numbered, 2 * workers)):
            for row, pixels in pool.map(decode, *zip(*some, strict=True)):
                yield row
                room.leave(pixels)
                bar.update()


def is_inside(path: str, roots: Sequence[str]) -> bool:
    """Whether a file lies in one of these folders or addresses, with all links resolved.

    Args:
        path: Path, `hf://` address, or member of an archive, `zip://a.png::path`.
        roots: Real paths of folders, and addresses that end with a slash.
    """
    *members, file = path.split("::")
    if not all(re.match(r"(zip|tar)://", member) for member in members):
        return False
    if "://" in file:
        allowed = any(file.startswith(root) for root in roots if "://" in root)
        return allowed and ".." not in file.split("/")
    real = Path(os.path.realpath(file))
    return any(real.is_relative_to(root) for root in roots if "://" not in root)


def _fetch(file: dict[str, Any]) -> dict[str, Any]:
    """Adds its bytes to a file that is on the Hub or in an archive; any other stays as it is.

    Raises:
        UserError: The Hub does not give the file, or perhaps any other.
        ValueError: This file cannot be had, or is too large.
    """
    path = file["path"] or ""
    if file["bytes"] is None and "://" in path:
        try:
            with fsspec.open(path) as opened:  # zip://a.png::b.zip, for one
                content = opened.read(MOST_BYTES + 1)
        except Exception as error:
            kind = UserError if "hf://" in path else ValueError
            raise kind(f"Cannot read {path}: {error}") from None
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MB")
        return file | {"bytes": content}
    return file


def _read_file(file: dict[str, Any]) -> np.ndarray:
    return read_rgb(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"]))


def _count_pixels(file: dict[str, Any] | None) -> int:
    """Pixels of a picture, by its header; 0 where there is none, which decoding will say."""
    if not file:
        return 0
    try:
        if file["bytes"] is None:
            check_regular(file["path"])
        opened = file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])
        with Image.open(opened, formats=DECODED) as image:
            return image.width * image.height
    except Exception:
        return 0


def _decode_when_there_is_room(
    room: Room, scales: Sequence[int], roots: Sequence[str] | None, number: int, source: Source
) -> tuple[dict[str, Any], int]:
    """Decodes one picture into (row of the table, pixels for which it has taken room)."""
    refusal, pixels = "", 0
    try:
        files = {key: file for key, file in source.items() if key != "name" and file}
        for file in files.values():
            path = file["path"] or ""
            if roots is not None and file["bytes"] is None and not is_inside(path, roots):
                raise ValueError(f"{path} points outside of the data set")
        source = source | {key: _fetch(file) for key, file in files.items()}
        pixels = _count_pixels(source["hr"])
    except ValueError as error:
        refusal = f"{error}"
    finally:
        room.enter(number, pixels)  # in any case, since the next one waits for its turn
    row = _decode_one(scales, refusal, number, source)
    if pixels > PIXELS_AT_ONCE / 8:
        trim_memory()
    return row, pixels


def _decode_one(scales: Sequence[int], refusal: str, number: int, source: Source) -> dict[str, Any]:
    """Makes a row of the table of one picture, or a row with the reason why it cannot.

    Args:
        scales: Factors from LR to HR.
        refusal: Reason not to open its files, or "".
        number: Number of the picture.
        source: The picture.
    """
    file = source["hr"] or {"path": None, "bytes": b""}  # an empty cell of a data set
    path = (file["path"] or "").partition("::")[0]  # in an archive: zip://a.png::b.zip
    name = source.get("name") or f"row {number} ({Path(path).name})"
    row: dict[str, Any] = {"name": name, "error": None, "height": 0, "width": 0, "hr": b""}
    row |= {f"lr_x{scale}": b"" for scale in scales}
    if refusal:
        return row | {"error": refusal}
    try:
        hr = _read_file(file)
        pixels = {"hr": hr}
        for scale in scales:
            if not source.get(f"lr_x{scale}"):
                if min(hr.shape[:2]) < scale:  # no pixel of LR: smaller than any patch
                    pixels[f"lr_x{scale}"] = hr[:0]
                    continue
                # Channel by channel, as it is computed in double precision.
                channels = crop_to_multiple(to_tensor(hr), scale).split(1)
                small = torch.cat([imresize(channel, 1 / scale) for channel in channels])
                pixels[f"lr_x{scale}"] = small.movedim(0, -1).contiguous().numpy()
                continue
            lr = pixels[f"lr_x{scale}"] = _read_file(source[f"lr_x{scale}"])
            if any(
                high // scale != low for high, low in zip(hr.shape[:2], lr.shape[:2], strict=True)
            ):
                raise ValueError(
                    f"its LR picture is {lr.shape[1]}x{lr.shape[0]}, which is not 1/{scale} "
                    f"of {hr.shape[1]}x{hr.shape[0]}"
                )
        row |= {"height": hr.shape[0], "width": hr.shape[1]}
        return row | {key: value.tobytes() for key, value in pixels.items()}
    except Exception as error:  # decoders raise errors of many kinds for a damaged file
        return row | {"error": f"{error}" or type(error).__name__}


# All code that decides about a pixel of the table.
DECODING = (formats, resize, _read_file, _decode_one)
