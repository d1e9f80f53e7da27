"""Training patches cut on the device, from pictures that lie there as bytes.

    patches = DevicePatches(PatchDataset(...), torch.device("cuda"))
    lr, hr = patches.batch(range(0, 32))  # the bytes of the data set's own

No loader, no worker and no copy of pixels is in the way of a step: a small table for each patch
goes to the device, and one read by indices cuts, flips and turns them all.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.data.patches import CHANNEL_ORDERS, PatchDataset


class DevicePatches:
    """Pictures of a data set on a device, HR and the LR of its scales, and patches of them."""

    def __init__(self, patches: PatchDataset, device: torch.device) -> None:
        """
        Args:
            patches: Data set, which says where patches lie.
            device: Any device. Raises what it raises when the memory is too small.
        """
        self.patches, self.device = patches, device
        pictures, scales = patches.pictures, sorted({1, *patches.scales})
        self._sizes = {scale: pictures.sizes // scale for scale in scales}
        self._starts: dict[int, np.ndarray] = {}
        self._pixels: dict[int, Tensor] = {}
        for scale, sizes in self._sizes.items():
            ends = sizes.prod(axis=1).cumsum()
            self._starts[scale] = np.concatenate([[0], ends[:-1]])
            self._pixels[scale] = torch.empty(int(ends[-1]), 3, dtype=torch.uint8, device=device)
            for number, (start, end) in enumerate(zip(self._starts[scale], ends, strict=True)):
                pixels = pictures.hr(number) if scale == 1 else pictures.lr(number, scale)
                copy = torch.from_numpy(np.array(pixels).view(np.uint8).reshape(-1, 3))
                self._pixels[scale][start:end] = copy.to(device)
        sides = {patches.patch_size // scale for scale in scales}
        self._sides = {side: torch.arange(side, device=device) for side in sides}

    @staticmethod
    def bytes_needed(patches: PatchDataset) -> int:
        """Bytes of the pictures on a device."""
        sizes = patches.pictures.sizes
        scales = {1, *patches.scales}
        return int(sum(3 * (sizes // scale).prod(axis=1).sum() for scale in scales))

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cuts patches of one step: `PatchDataset.__getitems__`, on the device."""
        scale = self.patches.scale(numbers[0] // self.patches.batch_size)
        picture, top, left, orientation, order = self.patches.places(numbers, scale)
        tables = np.stack(
            [
                self._table(scale, picture, top, left, orientation, order),
                self._table(1, picture, top * scale, left * scale, orientation, order),
            ]
        )
        table = torch.from_numpy(tables)
        if self.device.type == "cuda":
            table = table.pin_memory()  # else the copy would wait for the device
        lr, hr = table.to(self.device, non_blocking=True)
        return self._read(scale, lr), self._read(1, hr)

    def _table(
        self,
        scale: int,
        picture: np.ndarray,
        top: np.ndarray,
        left: np.ndarray,
        orientation: np.ndarray,
        order: np.ndarray,
    ) -> np.ndarray:
        """For each patch (6, N): first pixel, steps to the next row and column, three channels."""
        width = self._sizes[scale][picture, 1]
        last = self.patches.patch_size // scale - 1
        flips_columns, flips_rows, turns = (orientation & bit > 0 for bit in (1, 2, 4))
        first = self._starts[scale][picture]
        first = first + (top + last * flips_rows) * width + left + last * flips_columns
        down, right = np.where(flips_rows, -width, width), np.where(flips_columns, -1, 1)
        steps = np.where(turns, [right, down], [down, right])
        return np.stack([first, *steps, *CHANNEL_ORDERS[order].T])

    def _read(self, scale: int, table: Tensor) -> Tensor:
        side = self._sides[self.patches.patch_size // scale]
        first, down, right, *channels = table[:, :, None, None]
        pixels = self._pixels[scale][first + down * side[:, None] + right * side]
        if self.patches.permutes_channels:
            pixels = pixels.take_along_dim(torch.stack(channels, dim=-1), dim=-1)
        return pixels.movedim(-1, -3)  # (N, side, side, 3) -> (N, 3, side, side)
