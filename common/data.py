"""Pictures: found, decoded once into a memory-mapped cache, and cut into training patches.

    pictures, errors = decode_pictures(find_pictures(Path("photos"), [2]), [2])
    lr, hr = PatchDataset(pictures, [2], patch_size=128, batch_size=32, seed=0)[7]
    name, lr, hr = BenchmarkDataset(pictures, scale=2)[0]

Everything here is uint8. Bytes become floats on the device, once (`to_float`).
"""

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from common.errors import UserError
from common.files import checksum
from common.resize import crop_to_multiple, imresize

DIV2K = "yangtao9009/DIV2K"
# Those that Pillow decodes by itself. (PostScript, for one, it would have run by another program.)
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# The photographs in the scikit-image package. The benchmark `sample` is never trained on; the last
# training picture is the one that validation takes, so neither view of the motorcycle is last.
SAMPLE_TRAIN = (
    *("brick.png", "camera.png", "coins.png", "grass.png", "gravel.png", "motorcycle_left.png"),
    *("motorcycle_right.png", "rocket.jpg", "chelsea.png"),
)
SAMPLE_BENCHMARK = ("astronaut.png", "coffee.png")

# A picture before it is decoded: {"name": ..., "hr": file, "lr_x2": file}, where a file is
# {"path": ..., "bytes": ...} as in an undecoded Image column of `datasets`; one of the two is None.
# An LR that is not there is made from HR.
Source = dict[str, Any]


# ---------------------------------------------------------------------------------------- reading


def read_picture(file: str | Path | io.BytesIO) -> np.ndarray:
    """Decodes a picture as a viewer would show it: upright, in color, transparency over white.

    Args:
        file: Anything that Pillow opens: 1 to 16 bits, gray, palette, RGB(A), CMYK.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        OSError, ValueError: The file is no picture, is damaged, or has 32 bits a channel.
    """
    with Image.open(file, formats=FORMATS) as opened:
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


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) or (N, H, W, 3) array -> tensor (3, H, W) or (N, 3, H, W) on the same memory."""
    return torch.from_numpy(pixels).movedim(-1, -3)


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """uint8 on the CPU, any shape -> float32 in [0, 1] on the device."""
    return images.to(device, non_blocking=True).float() / 255


# ---------------------------------------------------------------------------------------- finding


def find_pictures(folder: Path, scales: Sequence[int]) -> list[Source]:
    """Lists the pictures below a folder, in the order of their names.

    A folder with one subfolder `hr`, `*_HR` or `target` holds that one's pictures. The LR pictures
    beside it (`lr`, `*_LR` or `*_LR_bicubic`, `data` beside `target`, directly or in `X2`, `X3`,
    `X4`) go with those of the same name, which may end in `x2`; where there are none of a scale, LR
    is made from HR when it is decoded. Of a folder with `SRF_4`, that is what counts at x4.

    Raises:
        UserError: There is no such folder, no picture in it, or an HR picture without its LR.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Check the path.")
    if len(scales) == 1 and (folder / f"SRF_{scales[0]}").is_dir():
        folder = folder / f"SRF_{scales[0]}"
    hr_folders = [
        child for child in _subfolders(folder) if re.fullmatch(r"(.*_)?hr|target", child.name, re.I)
    ]
    if len(hr_folders) > 1:
        names = ", ".join(child.name for child in hr_folders)
        raise UserError(f"{folder} holds several sets of HR pictures ({names}). Name one of them.")

    hr_folder, lr_folder = folder, None
    if hr_folders:
        hr_folder = hr_folders[0]
        lr_name = re.escape(hr_folder.name[:-2]) + r"lr(_bicubic)?"
        if hr_folder.name.lower() == "target":
            lr_name = "data"
        lr_folder = next(
            (c for c in _subfolders(folder) if re.fullmatch(lr_name, c.name, re.I)), None
        )
    sources: list[Source] = [
        {"name": str(path.relative_to(hr_folder)), "hr": _file(path)}
        for path in picture_files(hr_folder)
    ]
    if not sources:
        endings = " ".join(EXTENSIONS)
        raise UserError(f"There is no picture in {hr_folder} or below. Known endings: {endings}.")
    if lr_folder:
        for scale in scales:
            _add_lr(sources, lr_folder, scale, of_one_scale=len(scales) == 1)
    return sources


def _add_lr(sources: list[Source], folder: Path, scale: int, of_one_scale: bool) -> None:
    """Finds the LR picture of each source, if there are any of this scale."""
    if any(re.fullmatch(r"X\d", child.name) for child in _subfolders(folder)):
        folder, of_one_scale = folder / f"X{scale}", True
    files = {str(path.relative_to(folder).with_suffix("")): path for path in picture_files(folder)}
    for source in sources if files else []:
        stem = str(Path(source["name"]).with_suffix(""))
        names = [stem] * of_one_scale + [f"{stem}x{scale}"]
        lr = next((files[name] for name in names if name in files), None)
        if lr is None:
            raise UserError(
                f"{source['hr']['path']} has no LR picture {'.* or '.join(names)}.* in {folder}. "
                f"Add it, or rename {folder.name} to have LR made from HR."
            )
        source[f"lr_x{scale}"] = _file(lr)


def sample_pictures(names: Sequence[str]) -> list[Source]:
    """The pictures of these names in the scikit-image package."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [{"name": name, "hr": _file(folder / name)} for name in names]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())


def picture_files(folder: Path) -> list[Path]:
    """All files below a folder with the ending of a picture, sorted; follows links to folders."""
    paths, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder further up
            folders.clear()
            continue
        seen.add(real)
        paths += [Path(parent, name) for name in names if name.lower().endswith(EXTENSIONS)]
    return sorted(path for path in paths if not path.name.startswith("."))


def _file(path: Path) -> dict[str, Any]:
    return {"path": str(path.resolve()), "bytes": None}


# ------------------------------------------------------------------------------- decoding, caching


class Pictures:
    """Decoded pictures, HR and LR, in a memory-mapped Arrow file.

    A picture is a view of the file, (H, W) elements of three bytes, R, G and B. As elements, pixels
    are cropped, flipped and transposed several times as fast as a third axis of single bytes would
    be.
    """

    def __init__(self, table: datasets.Dataset, rows: Sequence[int]) -> None:
        self.table = table
        self.rows = list(rows)
        facts = table.select_columns(["name", "height", "width"])[self.rows]
        self.names: list[str] = facts["name"]
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
        """Of their names and sizes, as checkpoints have it."""
        return checksum([self.names, self.sizes.tolist()])[:8]

    def subset(self, indices: Sequence[int]) -> "Pictures":
        """The pictures of these numbers, in the same file."""
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
) -> tuple[Pictures, dict[str, str]]:
    """Decodes pictures and makes their LR, or finds the result of an earlier start in the cache.

    Processes that start together wait for the one that decodes.

    Args:
        sources: The pictures.
        scales: Of HR to LR.
        identity: What the result is found again by: JSON values. Default: the paths, sizes and
            times of the files, or the fingerprint of the data set.
        folder: For the cache. Default: that of `datasets` (`HF_DATASETS_CACHE`).

    Returns:
        The pictures, and for each that could not be read its name and the reason.

    Raises:
        UserError: The cache cannot be written.
    """
    identity = (
        identity
        or getattr(sources, "_fingerprint", None)
        or [
            [key, value if key == "name" else _state(value)]
            for source in sources
            for key, value in source.items()
        ]
    )
    layout = 1  # of the table: another number where `_decode` or MATLAB's bicubic changes
    fingerprint = checksum([layout, identity, list(scales)])
    columns = {"name": "string", "error": "string", "height": "int32", "width": "int32"}
    columns |= dict.fromkeys(("hr", *(f"lr_x{scale}" for scale in scales)), "large_binary")
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
                },
                features=datasets.Features(
                    {key: datasets.Value(kind) for key, kind in columns.items()}
                ),
                fingerprint=fingerprint,
                cache_dir=str(cache),
                writer_batch_size=4,  # pictures in memory; the default of 1000 takes gigabytes
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
        name: error for name, error in zip(facts["name"], facts["error"], strict=True) if error
    }
    return Pictures(table, [row for row, error in enumerate(facts["error"]) if not error]), errors


def _state(file: dict[str, Any]) -> list[Any]:
    """What changes when a file does; a link into nowhere has no more than a path."""
    if not os.path.exists(file["path"]):
        return [file["path"]]
    status = os.stat(file["path"])
    return [file["path"], status.st_size, status.st_mtime_ns]


def _decode(sources: Iterable[Source], scales: Sequence[int]) -> Iterator[dict[str, Any]]:
    workers = min(16, count_cores())  # threads: Pillow and PyTorch let go of the interpreter
    decode = partial(_decode_one, scales)
    numbered = enumerate(sources)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=len(sources) if isinstance(sources, Sized) else None,
            desc="Decoding",
            unit=" pictures",
            leave=False,
            disable=None,
        ) as bar,
    ):
        while some := list(islice(numbered, 2 * workers)):
            for row in pool.map(decode, *zip(*some, strict=True)):
                yield row
                bar.update()


def _fetch(file: dict[str, Any]) -> dict[str, Any]:
    """A file that is on the Hub, with its bytes; any other as it is.

    Raises:
        UserError: It cannot be had, which says nothing of the picture.
    """
    if file["bytes"] is None and "hf://" in (file["path"] or ""):
        try:
            with fsspec.open(file["path"]) as opened:
                return file | {"bytes": opened.read()}
        except Exception as error:
            raise UserError(f"Cannot read {file['path']}: {error}") from None
    return file


def _read_file(file: dict[str, Any]) -> np.ndarray:
    if file["bytes"] is not None:
        return read_picture(io.BytesIO(file["bytes"]))
    with fsspec.open(file["path"]) as opened:  # also inside of an archive: zip://a.png::b.zip
        return read_picture(opened)


def _decode_one(scales: Sequence[int], number: int, source: Source) -> dict[str, Any]:
    """One row of the table. A picture that cannot be used is a row with the reason."""
    source = source | {key: _fetch(source[key]) for key in source if key != "name" and source[key]}
    file = source["hr"] or {"path": None, "bytes": b""}  # an empty cell of a data set
    path = (file["path"] or "").partition("::")[0]  # in an archive: zip://a.png::b.zip
    name = source.get("name") or f"row {number} ({Path(path).name})"
    row: dict[str, Any] = {"name": name, "error": None, "height": 0, "width": 0, "hr": b""}
    row |= {f"lr_x{scale}": b"" for scale in scales}
    try:
        hr = _read_file(file)
        pixels = {"hr": hr}
        for scale in scales:
            if not source.get(f"lr_x{scale}"):
                small = imresize(crop_to_multiple(to_tensor(hr), scale), 1 / scale)
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
    except Exception as error:  # whatever a decoder makes of a damaged file
        return row | {"error": f"{error}" or type(error).__name__}


# ---------------------------------------------------------------------------------------- data sets


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """An endless sequence of training patches: patch `i` is a function of pictures, seed and i.

    There is no epoch, no shuffling and no state of a worker: any number of workers and processes
    that take the same numbers take the same bytes, and a run that resumes starts at a later number.
    Every picture is equally likely, then every position in it, then each of the 8 flips and
    rotations. The patches of a batch are of one scale, a function of seed and step.
    """

    def __init__(
        self,
        pictures: Pictures,
        scales: Sequence[int],
        patch_size: int,
        batch_size: int,
        seed: int,
    ) -> None:
        """
        Args:
            pictures: Decoded with these scales among others.
            scales: Of HR to LR, each as likely as another.
            patch_size: Side of an HR patch in pixels, a multiple of every scale.
            batch_size: Patches of a step, over all processes.
            seed: At least 0.

        Raises:
            ValueError: `patch_size` is no multiple of a scale.
            UserError: All pictures are smaller than a patch.
        """
        for scale in scales:
            if patch_size % scale:
                raise ValueError(f"patch_size {patch_size} is not a multiple of scale {scale}")
        large = np.all(pictures.sizes >= patch_size, axis=1)
        self.too_small = [name for name, ok in zip(pictures.names, large, strict=True) if not ok]
        if not large.any():
            raise UserError(
                f"All {len(pictures)} training pictures are smaller than a patch of {patch_size}x"
                f"{patch_size} pixels. Choose a smaller --patch_size or larger pictures."
            )
        self.pictures = pictures.subset(np.flatnonzero(large).tolist())
        self.scales, self.patch_size = scales, patch_size
        self.batch_size, self.seed = batch_size, seed

    def scale(self, step: int) -> int:
        """The scale of the patches of a step."""
        # (A third number, to draw others than `_uniform` does.)
        generator = np.random.default_rng((self.seed, step, 1))
        return self.scales[int(generator.integers(len(self.scales)))]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """LR and HR patch `index`, uint8, (3, patch_size / scale, ...) and (3, patch_size, ...)."""
        lr, hr = self.__getitems__([index])
        return lr[0], hr[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Patches of one step: LR (N, 3, h, w) and HR (N, 3, H, W), uint8, channels last."""
        scale = self.scale(indices[0] // self.batch_size)
        lr_size = self.patch_size // scale
        lr = np.empty((len(indices), lr_size, lr_size), "V3")
        hr = np.empty((len(indices), self.patch_size, self.patch_size), "V3")
        for number, index in enumerate(indices):
            choice, row, column, orientation = _uniform(self.seed, index // 4096)[index % 4096]
            picture = int(choice * len(self.pictures))
            lr_pixels = self.pictures.lr(picture, scale)
            top = int(row * (lr_pixels.shape[0] - lr_size + 1))
            left = int(column * (lr_pixels.shape[1] - lr_size + 1))
            orientation = int(orientation * 8)
            lr[number] = _crop(lr_pixels, top, left, lr_size, orientation)
            hr[number] = _crop(
                self.pictures.hr(picture),
                top * scale,
                left * scale,
                self.patch_size,
                orientation,
            )
        lr_batch, hr_batch = (
            to_tensor(pixels.view(np.uint8).reshape(*pixels.shape, 3)) for pixels in (lr, hr)
        )
        return lr_batch, hr_batch


def too_small_to_score(pictures: Pictures, scales: Sequence[int]) -> list[str]:
    """The names of the pictures in which SSIM's window of 11x11 does not fit inside the border."""
    cropped = np.stack([pictures.sizes // scale * scale - 2 * scale for scale in scales])
    fits = np.all(cropped >= 11, axis=(0, 2))
    return [name for name, ok in zip(pictures.names, fits, strict=True) if not ok]


class BenchmarkDataset(Dataset[tuple[str, Tensor, Tensor]]):
    """Whole pictures to evaluate on.

    `(name, lr, hr)`, uint8, (3, h, w) and (3, h * scale, w * scale).
    """

    def __init__(self, pictures: Pictures, scale: int) -> None:
        self.pictures, self.scale = pictures, scale

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor]:
        lr, hr = (
            to_tensor(np.array(pixels).view(np.uint8).reshape(*pixels.shape, 3))
            for pixels in (self.pictures.lr(index, self.scale), self.pictures.hr(index))
        )
        return self.pictures.names[index], lr, crop_to_multiple(hr, self.scale)


@lru_cache(maxsize=2)
def _uniform(seed: int, block: int) -> np.ndarray:
    """Four random numbers in [0, 1) for each patch of a block of 4096, drawn together for speed."""
    return np.random.default_rng((seed, block)).random((4096, 4))


def _crop(pixels: np.ndarray, top: int, left: int, size: int, orientation: int) -> np.ndarray:
    """A square of pixels in one of its 8 orientations."""
    patch = pixels[top : top + size, left : left + size]
    if orientation:
        patch = patch.copy()  # its columns lie far apart in a large picture: slow to read backwards
    if orientation & 1:
        patch = patch[:, ::-1]
    if orientation & 2:
        patch = patch[::-1]
    return patch.T if orientation & 4 else patch
