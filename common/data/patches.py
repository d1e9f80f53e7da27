"""Training patches, each a function of seed and number, and whole pictures to evaluate on.

    lr, hr = PatchDataset(pictures, [2], patch_size=128, batch_size=32, seed=0)[7]
    name, lr, hr = BenchmarkDataset(pictures, scale=2)[0]

All pixels are uint8. They become floats on the device (`common.images.tensors.to_float`).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from common.data.cache import Pictures
from common.data.degradation import (
    GRID,
    LEAST_MARGIN,
    MADE,
    Degradation,
    patch_generator,
    picture_generator,
)
from common.errors import UserError
from common.images.resize import crop_to_multiple
from common.images.tensors import to_tensor
from common.metrics import can_be_scored
from common.tables import plural

# Orders of the color channels; the first leaves them as they are.
CHANNEL_ORDERS = np.array(list(permutations(range(3))))


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """An endless sequence of training patches: patch `i` is a function of pictures, seed and i.

    There is no epoch, no shuffling and no state of a worker. The same numbers give the same bytes
    for any number of workers and processes, and a run that resumes starts at a later number. Every
    picture is equally likely, then every position in it, then each of the 8 flips and rotations,
    and, where channels are permuted, each of their 6 orders. The patches of a batch have one scale,
    a function of seed and step.
    """

    def __init__(
        self,
        pictures: Pictures,
        scales: Sequence[int],
        patch_size: int,
        batch_size: int,
        seed: int,
        degradation: Degradation | None = None,
        permutes_channels: bool = False,
    ) -> None:
        """
        Args:
            pictures: Decoded pictures with the LR of these scales.
            scales: Factors from LR to HR, each as likely as another.
            patch_size: Side of an HR patch in pixels, a multiple of every scale.
            batch_size: Patches of a step, over all processes.
            seed: Whole number, at least 0.
            degradation: Degradation that makes LR from HR. Default: the LR of the pictures.
            permutes_channels: Whether a patch has its color channels in any order (J. Yoo et al.,
                "Rethinking data augmentation for image super-resolution", 2020, "RGB permute").

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
        self.degradation, self.permutes_channels = degradation, permutes_channels
        self.positions: dict[int, Sequence[int]] = {}  # a stream has some (`common.data.stream`)

    def portions(
        self,
        begin: int,
        end: int,
        agree: Callable[[str], str],
        deletes: bool,
        stops: Callable[[], object] = bool,
    ) -> Iterator[tuple["PatchDataset", range]]:
        """Gives one portion for all steps; `PatchStream.portions` explains the arguments."""
        if begin < end:  # a phase without steps loads nothing
            yield self, range(begin, end)

    def fingerprint(self) -> list[int | str]:
        """Number and checksum of the pictures, by which a checkpoint knows them."""
        return [len(self.pictures), self.pictures.checksum()]

    def difference_from(self, fingerprint: Sequence[int | str]) -> str:
        """Says how these pictures differ from those of a fingerprint; "" if they do not."""
        number, checksum = fingerprint
        if number != len(self.pictures):
            return f"there were {number} training pictures and are {len(self.pictures)}"
        if checksum != self.pictures.checksum():
            return "the names or sizes of the training pictures have changed"
        return ""

    def in_banner(self) -> str:
        megapixels = self.pictures.sizes.prod(axis=1).sum() / 1e6
        return f"{len(self.pictures)} to train on ({megapixels:.1f} megapixels)"

    def in_card(self, source: str) -> str:
        return f"{plural(len(self.pictures), 'picture')} of {source}"

    def scale(self, step: int) -> int:
        """Scale of all patches of a step."""
        # The third number gives other draws than those of `_uniform`.
        generator = np.random.default_rng((self.seed, step, 1))
        return self.scales[int(generator.integers(len(self.scales)))]

    def places(self, indices: Sequence[int], scale: int) -> np.ndarray:
        """For each patch (5, N): picture, top and left of its LR, orientation, order of channels.

        There are 8 orientations and the 6 of `CHANNEL_ORDERS`.
        """
        numbers = np.array([_uniform(self.seed, i // 4096)[i % 4096] for i in indices])
        choice, corner, view = numbers[:, 0], numbers[:, 1:3], numbers[:, 3] * 8
        picture = (choice * len(self.pictures)).astype(np.int64)
        corners = self.pictures.sizes[picture] // scale - self.patch_size // scale + 1
        top, left = (corner * corners).astype(np.int64).T
        orientation = view.astype(np.int64)
        order = ((view - orientation) * len(CHANNEL_ORDERS) * self.permutes_channels).astype(int)
        return np.stack([picture, top, left, orientation, order])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Cuts patch `index`: LR and HR, uint8, (3, side, side) each; HR has side `patch_size`."""
        lr, hr = self.__getitems__([index])
        return lr[0], hr[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cuts patches of one step: LR (N, 3, h, w) and HR (N, 3, H, W), uint8, channels last."""
        scale = self.scale(indices[0] // self.batch_size)
        lr_size = self.patch_size // scale
        lr = np.empty((len(indices), lr_size, lr_size), "V3")
        hr = np.empty((len(indices), self.patch_size, self.patch_size), "V3")
        places = self.places(indices, scale).T.tolist()
        for number, (picture, top, left, orientation, order) in enumerate(places):
            hr_pixels, corner = self.pictures.hr(picture), (top * scale, left * scale)
            patch = _crop(hr_pixels, *corner, self.patch_size, orientation)
            hr[number] = _reorder(patch, order)
            if self.degradation is None:
                patch = _crop(self.pictures.lr(picture, scale), top, left, lr_size, orientation)
                lr[number] = _reorder(patch, order)
            else:
                index = indices[number]
                lr[number] = self._degrade(index, hr_pixels, corner, orientation, order, scale)
        lr_batch, hr_batch = (
            to_tensor(pixels.view(np.uint8).reshape(*pixels.shape, 3)) for pixels in (lr, hr)
        )
        return lr_batch, hr_batch

    def _degrade(
        self,
        index: int,
        hr_pixels: np.ndarray,
        corner: tuple[int, int],
        orientation: int,
        order: int,
        scale: int,
    ) -> np.ndarray:
        """Makes the LR of a patch, (h, w) elements of three bytes.

        Args:
            index: Number of the patch.
            hr_pixels: HR picture.
            corner: Top and left of the patch in the picture.
            orientation: Number of the orientation, in which the patch is degraded: a camera and
                JPEG know up and down.
            order: Number of the order of the channels, which JPEG knows apart.
            scale: Factor from LR to HR.
        """
        assert self.degradation is not None
        generator = patch_generator(self.seed, index)
        down, right = generator.integers(GRID, size=2).tolist()  # where JPEG's grid begins
        margin = LEAST_MARGIN + GRID
        size = self.patch_size // scale
        window = _crop_mirrored(hr_pixels, corner, self.patch_size, margin * scale, orientation)
        side = (size + margin + LEAST_MARGIN) * scale
        window = _reorder(window[down * scale :, right * scale :][:side, :side], order)
        lr = self.degradation(_as_bytes(window), scale, generator)
        lr = lr[margin - down :, margin - right :][:size, :size]
        return np.ascontiguousarray(lr).view("V3")[..., 0]


def too_small_to_score(pictures: Pictures, scales: Sequence[int]) -> list[str]:
    """Names of the pictures that the metrics cannot score at one of the scales."""
    return [
        name
        for name, (height, width) in zip(pictures.names, pictures.sizes, strict=True)
        if not all(can_be_scored(height, width, scale) for scale in scales)
    ]


class BenchmarkDataset(Dataset[tuple[str, Tensor, Tensor]]):
    """Whole pictures: `(name, lr, hr)`, uint8, (3, h, w) and (3, h * scale, w * scale).

    Attributes:
        degradation: Degradation that makes LR from HR, by the name of a picture; None: the LR of
            the pictures.
        lr: Where LR comes from, in words.
    """

    def __init__(
        self,
        pictures: Pictures,
        scale: int,
        degradation: Degradation | None = None,
        lr: str = MADE,
    ) -> None:
        self.pictures, self.scale = pictures, scale
        self.degradation, self.lr = degradation, lr
        # A validation needs the same LR again and again; 100 are a benchmark set.
        self._lr = lru_cache(maxsize=100)(self._make_lr)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor]:
        hr = crop_to_multiple(to_tensor(_as_bytes(self.pictures.hr(index))), self.scale)
        if self.degradation is None:
            lr = to_tensor(_as_bytes(self.pictures.lr(index, self.scale)))
        else:
            lr = self._lr(index).clone()
        return self.pictures.names[index], lr, hr

    def lr_checksum(self) -> str:
        """Eight digits for all pixels of LR."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            _, lr, _ = self[index]
            digest.update(f"{tuple(lr.shape)}".encode() + lr.numpy().tobytes())
        return digest.hexdigest()[:8]

    def _make_lr(self, index: int) -> Tensor:
        assert self.degradation is not None
        height, width = (side // self.scale * self.scale for side in self.pictures.sizes[index])
        hr = _as_bytes(self.pictures.hr(index)[:height, :width])
        generator = picture_generator(self.pictures.names[index])
        return to_tensor(self.degradation(hr, self.scale, generator))


@lru_cache(maxsize=2)
def _uniform(seed: int, block: int) -> np.ndarray:
    """Four random numbers in [0, 1) for each patch of a block of 4096, drawn at once for speed."""
    return np.random.default_rng((seed, block)).random((4096, 4))


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Copy of (H, W) elements of three bytes as uint8, (H, W, 3)."""
    return np.array(pixels, order="C").view(np.uint8).reshape(*pixels.shape, 3)


def _reorder(pixels: np.ndarray, order: int) -> np.ndarray:
    """Puts the channels of (H, W) elements of three bytes into another order."""
    if not order:
        return pixels
    channels = _as_bytes(pixels)[..., CHANNEL_ORDERS[order]]
    return np.ascontiguousarray(channels).view("V3")[..., 0]


def _crop(pixels: np.ndarray, top: int, left: int, size: int, orientation: int) -> np.ndarray:
    """Cuts a square of pixels and turns it into one of 8 orientations."""
    patch = pixels[top : top + size, left : left + size]
    if orientation:
        patch = patch.copy()  # rows of a large picture lie far apart, which makes turning slow
    return _turn(patch, orientation)


def _crop_mirrored(
    pixels: np.ndarray, corner: tuple[int, int], size: int, margin: int, orientation: int
) -> np.ndarray:
    """Cuts and turns a square with a margin around it; outside of the picture it is mirrored."""
    for axis, first in enumerate(corner):
        side = pixels.shape[axis]
        numbers = np.arange(first - margin, first + size + margin) % (2 * side)
        numbers = np.minimum(numbers, 2 * side - 1 - numbers)
        begin, end = numbers.min(), numbers.max() + 1
        pixels = pixels[begin:end] if axis == 0 else pixels[:, begin:end]
        if end - begin < len(numbers):
            pixels = pixels.take(numbers - begin, axis)
    return _turn(pixels.copy(), orientation)


def _turn(patch: np.ndarray, orientation: int) -> np.ndarray:
    if orientation & 1:
        patch = patch[:, ::-1]
    if orientation & 2:
        patch = patch[::-1]
    return patch.T if orientation & 4 else patch
