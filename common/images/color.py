"""The luma channel, on which SRCNN and VDSR work and by which the papers score.

ITU-R BT.601 as in MATLAB's `rgb2ycbcr`, with all values divided by 255: Y is in [16, 235] / 255.
"""

from torch import Tensor

RED, GREEN, BLUE = 65.481 / 255, 128.553 / 255, 24.966 / 255


def luma(rgb: Tensor) -> Tensor:
    """Computes the Y channel.

    Args:
        rgb: RGB in [0, 1], shape (..., 3, H, W), any floating-point type.

    Returns:
        Y in [16/255, 235/255], shape (..., 1, H, W), not rounded.
    """
    red, green, blue = rgb.unbind(dim=-3)
    return (16 / 255 + RED * red + GREEN * green + BLUE * blue).unsqueeze(-3)


def replace_luma(rgb: Tensor, new_luma: Tensor) -> Tensor:
    """Replaces the Y channel of a picture, whose Cb and Cr stay.

    Without a change of Cb and Cr, R, G and B all change by the same amount.

    Args:
        rgb: RGB in [0, 1], shape (..., 3, H, W).
        new_luma: Y in [16/255, 235/255], shape (..., 1, H, W).

    Returns:
        RGB, not clamped, shape and type of `rgb`.
    """
    return rgb + (new_luma - luma(rgb)) / (RED + GREEN + BLUE)
