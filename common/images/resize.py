"""Bicubic resizing exactly as MATLAB's `imresize`, which made the LR images of every SR benchmark.

PyTorch's, OpenCV's and Pillow's bicubic differ from it in the kernel, in the antialiasing or in the
rounding. A network that is evaluated on another bicubic than the one it was trained on loses up to
8 dB, so every LR of a benchmark and every bicubic enlargement is made by this one.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor


def imresize(images: Tensor, size: float | Sequence[int]) -> Tensor:
    """Resizes images by bicubic interpolation with antialiasing, like MATLAB's `imresize`.

    A uint8 input gives the pixels that MATLAB gives for uint8: computed in double precision,
    rounded half up and clipped after each of the two passes. A floating-point input is neither
    rounded nor clipped, and the result is differentiable; it is computed in float32 (in float64 for
    float64), also under autocast.

    Args:
        images: Shape (..., H, W), any range if floating-point.
        size: Factor of both sides (the result has ceil(H * size) rows), or the new (height, width).

    Returns:
        Tensor of the shape (..., new height, new width), with the dtype and device of `images`.

    Raises:
        ValueError: A side of the input or of the result is empty.
    """
    if torch.onnx.is_in_onnx_export() and isinstance(size, int) and images.is_floating_point():
        return enlarge(images, size)
    if torch.compiler.is_compiling() and not torch.is_grad_enabled():
        # Pictures of any size: their matrices come from a cache, which a compiler would write out.
        # (A decorator would load the compiler in every program.) Training patches have one size,
        # whose matrices are constants of the graph.
        return torch.compiler.disable(_imresize)(images, size)
    return _imresize(images, size)


def _imresize(images: Tensor, size: float | Sequence[int]) -> Tensor:
    old = images.shape[-2:]
    if isinstance(size, Sequence):
        new = tuple(size)
        factors = [new[0] / old[0], new[1] / old[1]] if all(old) else [0.0, 0.0]
    else:
        new = tuple(ceil(side * size) for side in old)
        factors = [float(size)] * 2
    if min(*old, *new) < 1:
        raise ValueError(
            f"cannot resize {tuple(old)} to {new}: every side must be at least 1 pixel"
        )

    if images.is_meta:  # where networks are measured
        return images.new_empty(*images.shape[:-2], *new)
    eight_bits = images.dtype == torch.uint8
    if eight_bits and images.device.type == "mps":  # Apple's GPUs have no double precision
        return _imresize(images.cpu(), size).to(images.device)
    dtype = torch.float64 if eight_bits or images.dtype == torch.float64 else torch.float32
    with torch.autocast(images.device.type, enabled=False):
        result = images
        # MATLAB begins with the side that shrinks most; with equal factors, with the rows.
        for axis in sorted((0, 1), key=lambda axis: factors[axis]):
            result = _resize_axis(result, axis - 2, new[axis], factors[axis], dtype)
            if eight_bits:
                result = result.add_(0.5).floor_().clamp_(0, 255)
    return result.to(images.dtype)


def enlarge(images: Tensor, factor: int) -> Tensor:
    """Enlarges floating-point images by a whole factor, as `imresize` does, by one convolution.

    The filters are the same for all sizes, so `imresize` becomes this in an ONNX file. In PyTorch
    it takes up to four times as long on a CPU.

    Args:
        images: Shape (N, C, H, W), any range.
        factor: Factor of both sides.

    Returns:
        Tensor of the shape (N, C, H * factor, W * factor), with the dtype and device of `images`.
    """
    dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    # The `factor` new pixels of an old one lie at most half a pixel from it. So the kernel, which
    # reaches 2 pixels far, sees two neighbors on either side.
    centers = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    weights = _keys_cubic(centers[:, None] - torch.arange(-2, 3))  # (factor, 5)
    filters = weights[:, None, :, None] * weights[:, None, :]  # (factor, factor, 5, 5)
    channels = images.shape[1]
    filters = filters.view(-1, 1, 5, 5).repeat(channels, 1, 1, 1).to(images.device, dtype)
    with torch.autocast(images.device.type, enabled=False):
        padded = images.to(dtype)
        for axis in (2, 3):
            # Symmetric reflection, 1 0 | 0 1 2 ...; a single pixel is repeated.
            side = images.shape[axis]
            indices = torch.arange(-2, side + 2, device=images.device)
            indices = torch.maximum(indices, -1 - indices)
            indices = torch.minimum(indices, 2 * side - 1 - indices).clamp(min=0)
            padded = padded.index_select(axis, indices)
        result = F.pixel_shuffle(F.conv2d(padded, filters, groups=channels), factor)
    return result.to(images.dtype)


def crop_to_multiple(images: Tensor, scale: int) -> Tensor:
    """Drops rows at the bottom and columns at the right until `scale` divides both sides."""
    height, width = images.shape[-2:]
    return images[..., : height - height % scale, : width - width % scale]


def _resize_axis(
    images: Tensor, axis: int, length: int, factor: float, dtype: torch.dtype
) -> Tensor:
    """One pass: a product with the (new, old) matrix of weights, along axis -2 or -1."""
    parts = []
    blocks_of = _constant_blocks if torch.compiler.is_compiling() else _matrix_blocks
    for first, weights in blocks_of(images.shape[axis], length, factor, dtype, images.device):
        pixels = images.narrow(axis, first, weights.shape[1]).to(dtype)
        parts.append(weights @ pixels if axis == -2 else pixels @ weights.T)
    return torch.cat(parts, dim=axis)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a matrix made during evaluation must serve in training, too
def _matrix_blocks(
    old: int, new: int, factor: float, dtype: torch.dtype, device: torch.device, rows: int = 128
) -> list[tuple[int, Tensor]]:
    """Weights of `old` pixels (columns) in `new` ones (rows), `rows` rows at a time.

    The matrix is a narrow band: a block holds only the columns that its rows use, and comes with
    the number of the first of these columns. Every row sums to 1.
    """
    # Antialiasing: the kernel widens by as much as the image shrinks.
    stretch = max(1.0, 1.0 / factor)
    radius = 2.0 * stretch
    centers = (torch.arange(new, dtype=torch.float64) + 0.5) / factor - 0.5
    taps = torch.floor(centers - radius)[:, None] + torch.arange(ceil(2 * radius) + 2)
    weights = _keys_cubic((centers[:, None] - taps) / stretch)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # Borders by symmetric reflection: ... 1 0 | 0 1 2 ... old-1 | old-1 old-2 ...
    columns = taps.long() % (2 * old)
    columns = torch.minimum(columns, 2 * old - 1 - columns)

    blocks = []
    for block_columns, block_weights in zip(columns.split(rows), weights.split(rows), strict=True):
        first, last = int(block_columns.min()), int(block_columns.max())
        block = torch.zeros(len(block_columns), last + 1 - first, dtype=torch.float64)
        block.scatter_add_(1, block_columns - first, block_weights)
        blocks.append((first, block.to(device, dtype)))
    return blocks


def _constant_blocks(
    old: int, new: int, factor: float, dtype: torch.dtype, device: torch.device
) -> list[tuple[int, Tensor]]:
    return _matrix_blocks(old, new, factor, dtype, device)


# As torch.compiler.assume_constant_result marks it, which would load the compiler as well.
_constant_blocks._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _keys_cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = -0.5 (IEEE Trans. ASSP 29, 1981, eq. 15)."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))
