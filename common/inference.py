"""Enlarging pictures of any size: in tiles, and by the mean over flips and rotations."""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from math import inf, prod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from common.device import evaluating, forget, is_out_of_memory
from common.errors import UserError
from common.images.arrays import as_given, maximum_of, to_picture, to_type
from common.images.formats import Picture
from common.images.resize import imresize
from common.network import SuperResolutionModel
from common.sizes import Size, factor_of, passes

# A2N takes means over cells of this side when it is tiled, so that tiles begin where cells do.
ALIGNMENT = 8
# Side of what is made at once, in pixels of SR, if nobody says otherwise: 2 to 4 GB of memory.
AUTO_SIDE = 2048
SMALLEST_TILE = 64
MOST_PIXELS = 2**30  # of what is made on the way to another size, 13 GB in float32


class SelfEnsemble(nn.Module):
    """Mean of the SR of the 8 flips and rotations of an image, turned back.

    Timofte et al., "Seven ways to improve example-based single image super resolution" (2016).
    `forward(lr)`: (N, 3, h, w) -> (N, 3, h * scale, w * scale), as the network's.
    """

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model

    def forward(self, lr: Tensor) -> Tensor:
        return reduce(torch.add, self._results(lr)) / 8

    def _results(self, lr: Tensor) -> Iterator[Tensor]:
        for turns in range(4):
            for flip in (False, True):
                turned = torch.rot90(lr.flip(-1) if flip else lr, turns, (-2, -1))
                sr = torch.rot90(self.model(turned.contiguous()).float(), -turns, (-2, -1))
                yield sr.flip(-1) if flip else sr


class Enlarger:
    """Enlarges pictures by a network, in tiles where they are large, to any size.

        enlarger = Enlarger(load_model("out/a2n"))
        larger = enlarger(array_or_image)
        exactly = enlarger(array_or_image, size="1920x")

    A tile is enlarged together with so much around it, the network's `margin`, that its part of the
    result is as of the whole picture, but for the order in which float32 is summed.

    Attributes:
        tile: Side of a tile in LR pixels; 0 for whole pictures, None to choose by their size.
    """

    def __init__(
        self,
        network: SuperResolutionModel,
        device: torch.device | None = None,
        *,
        tile: int | None = None,
        attention_window: int | None = None,
        self_ensemble: bool = False,
        compiled: bool = False,
        dtype: torch.dtype | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """
        Args:
            network: Network on the device, in evaluation mode, at the wanted scale.
            device: Device that computes. Default: that of the network.
            tile: See above.
            attention_window: Side in LR pixels, up to 64, of the part of a picture over which an
                attention takes its mean; 0 for the whole picture, which then is never tiled.
                Default: 64 where there are tiles, otherwise 0.
            self_ensemble: Whether to take the mean over flips and rotations, see `SelfEnsemble`.
            compiled: Whether to compile the network by torch.compile.
            dtype: bfloat16 or float16, for autocast. Default: float32.
            say: Function that gets a line when the memory is too small for a tile.

        Raises:
            UserError: The network has no such attention, or no such tile or window is possible.
        """
        self.network, self.dtype, self.say = network, dtype, say
        self.device = device or next(network.parameters()).device
        self.tile, self.attention_window = tile, attention_window
        self._too_many = inf  # pixels at once for the memory, so far as is known
        if tile is not None and (tile < 0 or tile % ALIGNMENT):
            raise UserError(
                f"--tile {tile} is no multiple of {ALIGNMENT}. Give 64 for example, 0 for whole "
                "pictures, or nothing to choose by their size."
            )
        if attention_window is not None and not 0 <= attention_window <= 64:
            raise UserError(
                f"--attention_window {attention_window} is not from 0 to 64, which tiles allow for."
            )
        if attention_window is not None and network.attention_window is None:
            raise UserError(
                f"--attention_window is for networks that take the mean of the whole picture; "
                f"{type(network).__name__} does not. Leave it out."
            )
        if tile and attention_window == 0:
            raise UserError(
                f"--tile {tile} with --attention_window 0: a tile does not know the mean of the "
                "whole picture. Give a window, for example 64, or --tile 0."
            )
        model: Any = partial(network.enlarge, halves=False)
        if compiled:
            model = torch.compile(network, dynamic=True)
        self.model = SelfEnsemble(model) if self_ensemble else model

    def tile_of(self, height: int, width: int) -> int:
        """The side of the tiles of a picture of so many pixels, or 0 for the whole of it."""
        if self.attention_window == 0:
            return 0
        tile = self.tile
        if tile is None:
            side = AUTO_SIDE // self.network.scale
            if height * width <= side**2:
                tile = 0
            else:
                tile = (side - 2 * self._margin()) // ALIGNMENT * ALIGNMENT
                tile = max(SMALLEST_TILE, tile)
        tile = tile if tile < max(height, width) else 0
        while self._at_once(tile, height, width) >= self._too_many:
            side = tile or max(height, width)
            if side <= SMALLEST_TILE:
                break
            tile = max(SMALLEST_TILE, side // 2 // ALIGNMENT * ALIGNMENT)
        return tile

    def _at_once(self, tile: int, height: int, width: int) -> int:
        """Pixels that the network gets at once with such tiles."""
        if not tile:
            return height * width
        side = tile + 2 * self._margin()
        return min(side, height) * min(side, width)

    def __call__(
        self,
        picture: np.ndarray | Image.Image,
        on_pixels: Callable[[int], object] = lambda count: None,
        size: Size | str | float | None = None,
    ) -> Any:
        """Enlarges a picture that is in memory.

        Args:
            picture: What `common.images.arrays.to_picture` takes: gray or color, opaque or not.
            on_pixels: Function that gets the number of pixels enlarged since its last call.
            size: Size of the result: `4000x3000`, `4000x` or `x3000`, a factor as a number, or a
                `Size`. Default: `scale` times.

        Returns:
            The larger picture, of the kind, type and channels that were given; floats in [0, 1].

        Raises:
            torch.OutOfMemoryError: Or the error of another part for the same. Not even the smallest
                tiles fit.
            TypeError: It is no array of these types, and no image.
            ValueError: It is no picture, the size is none, or the network gives something that is
                no number.
        """
        given = to_picture(picture)
        wanted = None if size is None else Size.make(size).of(*given.pixels.shape[:2])
        return as_given(self.enlarge(given, on_pixels, wanted), picture)

    def enlarge(
        self,
        picture: Picture,
        on_pixels: Callable[[int], object] = lambda count: None,
        size: tuple[int, int] | None = None,
    ) -> Picture:
        """Enlarges a picture that may be gray or transparent; bicubic enlarges its opacity.

        Args:
            picture: Picture.
            on_pixels: Function that gets the number of pixels enlarged since its last call.
            size: Height and width of the result. Default: `scale` times those of the picture.
        """
        pixels, alpha = picture.pixels, picture.alpha
        height, width = (side * self.network.scale for side in pixels.shape[:2])
        size = size or (height, width)
        is_gray = pixels.shape[2] == 1
        if alpha is not None:
            pixels = _spread_colors(pixels, alpha)
        sr = self._to_size(np.repeat(pixels, 3, axis=2) if is_gray else pixels, size, on_pixels)
        if is_gray:
            sr = to_type(sr.mean(axis=2, keepdims=True, dtype=np.float64), sr.dtype)
        if alpha is not None:
            alpha = to_type(_resize(alpha[..., None], size)[..., 0], alpha.dtype)
        return picture._replace(pixels=sr, alpha=alpha)

    def factors(self, old: tuple[int, int], new: tuple[int, int]) -> list[int]:
        """Factors by which the network enlarges on the way from one size to another.

        What is left is done by bicubic, mostly to a smaller size.
        """
        for scale in self.network.scales:
            if new == (old[0] * scale, old[1] * scale):
                return [scale]
        return passes(self.network.scales, factor_of(old, new))

    def count_pixels(self, old: tuple[int, int], new: tuple[int, int]) -> int:
        """Pixels that the network gets on the way from one size to another, over all passes."""
        total, (height, width) = 0, old
        for factor in self.factors(old, new):
            total += height * width
            height, width = height * factor, width * factor
        return total

    @torch.inference_mode()
    def _to_size(
        self, pixels: np.ndarray, size: tuple[int, int], on_pixels: Callable[[int], object]
    ) -> np.ndarray:
        """Enlarges RGB to a size. On the way, the values are not rounded."""
        network, scale, window = self.network, self.network.scale, self.network.attention_window
        (height, width), dtype = pixels.shape[:2], pixels.dtype
        factors = self.factors((height, width), size)
        if not (len(factors) == 1 and size == (height * factors[0], width * factors[0])):
            if max(height * width * prod(factors) ** 2, prod(size)) > MOST_PIXELS:
                raise ValueError(
                    f"{size[1]}x{size[0]} takes more than {MOST_PIXELS / 1e6:,.0f} megapixels at "
                    "once; ask for a smaller size, or for a factor of the network"
                )
            pixels = (pixels / np.float32(maximum_of(dtype))).astype(np.float32, copy=False)
        try:
            for factor in factors:
                network.scale = factor
                pixels = self._in_tiles_that_fit(pixels, on_pixels)
        finally:
            network.scale, network.attention_window = scale, window
        if pixels.dtype == dtype and pixels.shape[:2] == size:
            return pixels
        return to_type(_resize(pixels, size) * np.float32(maximum_of(dtype)), dtype)

    def _in_tiles_that_fit(
        self, pixels: np.ndarray, on_pixels: Callable[[int], object]
    ) -> np.ndarray:
        (height, width), scale = pixels.shape[:2], self.network.scale
        sr = np.empty((height * scale, width * scale, 3), pixels.dtype)
        first: Exception | None = None
        while True:
            tile, done = self.tile_of(height, width), 0
            try:
                for count in self._enlarge(pixels, sr, tile):
                    on_pixels(count)
                    done += count
                return sr
            except Exception as error:
                first = first or error
                if not is_out_of_memory(error):
                    raise
            forget(first)  # outside of `except`, which would keep the tensors of the error
            on_pixels(-done)
            self._too_many = min(self._too_many, self._at_once(tile, height, width))
            smaller = self.tile_of(height, width)
            if smaller == tile:
                raise first
            has_attention = self.network.attention_window is not None
            becomes_local = has_attention and self.attention_window is None and not tile
            window = " with --attention_window 64" if becomes_local else ""
            self.say(f"Out of memory; going on in tiles of {smaller}{window}.")

    def _enlarge(self, pixels: np.ndarray, sr: np.ndarray, tile: int) -> Iterator[int]:
        """Fills `sr` tile by tile, and yields the number of pixels of each tile."""
        (height, width), scale = pixels.shape[:2], self.network.scale
        if self.network.attention_window is not None:
            window = self.attention_window
            self.network.attention_window = (64 if tile else 0) if window is None else window
        margin = self._margin() if tile else 0
        tile = tile or max(height, width)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                bottom, right = min(top + tile, height), min(left + tile, width)
                first_row, first_column = max(0, top - margin), max(0, left - margin)
                lr = pixels[first_row : bottom + margin, first_column : right + margin]
                rows = slice((top - first_row) * scale, (bottom - first_row) * scale)
                columns = slice((left - first_column) * scale, (right - first_column) * scale)
                sr[top * scale : bottom * scale, left * scale : right * scale] = self._pixels(
                    lr, rows, columns
                )
                yield (bottom - top) * (right - left)

    def _margin(self) -> int:
        margin = self.network.margin
        if margin is None:
            raise UserError(
                f"{type(self.network).__name__} cannot be applied in tiles, since it has no "
                "`margin`. Give --tile 0, or add that property to its class."
            )
        return -(-margin // ALIGNMENT) * ALIGNMENT

    def _pixels(self, lr: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Rows and columns of the SR that the network makes of these pixels."""
        maximum = maximum_of(lr.dtype)
        # Bytes go to the device and come back; uint16 has hardly any operations in PyTorch.
        numbers = np.ascontiguousarray(lr) if lr.dtype == np.uint8 else lr.astype(np.float32)
        images = torch.from_numpy(numbers).to(self.device).float().movedim(-1, 0)[None] / maximum
        with (
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None),
            evaluating(),
        ):
            part = self.model(images)[0, :, rows, columns].float()
        if not part.isfinite().all():
            raise ValueError(
                "the network gives values that are no numbers; if its weights are sound, use "
                "--mixed_precision no"
            )
        part = part.mul_(maximum)
        if maximum > 1:
            part = part.round_()
        part = part.clamp_(0, maximum).movedim(0, -1)
        if lr.dtype == np.uint8:
            part = part.to(torch.uint8)
        return part.cpu().numpy().astype(lr.dtype, copy=False)


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic resizing of (h, w, c) to a height and width, in float32, not clipped."""
    images = torch.from_numpy(pixels.astype(np.float32, copy=False)).movedim(-1, 0)
    return imresize(images, size).movedim(0, -1).numpy()


def _spread_colors(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Gives invisible pixels the color of the nearest visible one.

    Otherwise their own color, often black, would get into the visible edge.
    """
    if not alpha.any():
        return pixels
    from scipy.ndimage import distance_transform_edt  # half a second, for transparent pictures only

    nearest = distance_transform_edt(alpha == 0, return_distances=False, return_indices=True)
    return pixels[tuple(nearest)]
