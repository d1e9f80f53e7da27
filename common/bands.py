"""Pictures too large for a network's memory, in bands of whole rows, one after the other."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Pixels of SR in a band. The networks here take 0.1 to 0.7 KB for each.
BAND = 2**20


def band_height(height: int, width: int, scale: int) -> int:
    """Rows of LR to enlarge at once: all of them, but for pictures of more than two bands."""
    rows = max(1, BAND // (width * scale**2))
    return height if height <= 2 * rows else rows


def map_in_bands(
    function: Callable[..., Tensor],
    images: Sequence[Tensor],
    rows: int,
    margin: int,
    *,
    scale: int = 1,
    out: Tensor | None = None,
) -> Tensor:
    """Applies a function of images band by band: the result is that of the whole, but for rounding.

    Args:
        function: Function of bands of the images, each (N, C, h, w), that gives
            (N, C', h * scale, w * scale). A pixel depends on those up to `margin` rows away.
        images: Images of the same height, at least one.
        rows: Rows of a band.
        margin: Rows around a band that have a part in its result.
        scale: Factor from the rows of the images to those of the result.
        out: Tensor for the result, which may be one of the images. Default: a new one.

    Returns:
        `out`.
    """
    height = images[0].shape[-2]
    above = [image[..., :0, :] for image in images]  # rows as they were before `out` changed them
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        bands = [
            torch.cat([before, image[..., top : bottom + margin, :]], dim=-2)
            for before, image in zip(above, images, strict=True)
        ]
        first = above[0].shape[-2]
        last = first + bottom - top
        above = [band[..., max(0, last - margin) : last, :] for band in bands]
        result = function(*bands)[..., first * scale : last * scale, :]
        if out is None:
            shape = (*result.shape[:-2], height * scale, result.shape[-1])
            out = torch.empty(
                shape,
                dtype=result.dtype,
                device=result.device,
                memory_format=torch.channels_last
                if images[0].is_contiguous(memory_format=torch.channels_last)
                else torch.contiguous_format,
            )
        out[..., top * scale : bottom * scale, :] = result
    assert out is not None  # as no image is without rows
    return out
