"""Losses that PyTorch does not have."""

from torch import Tensor


def charbonnier(sr: Tensor, hr: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt((sr - hr)^2 + eps^2) over all elements, a smooth L1.

    Lai et al. 2017, LapSRN, eq. 4.

    Args:
        sr: Any shape and range.
        hr: Same shape and range.
        eps: Errors well below it count as squares, errors above it as absolute values. Code that
            adds 1e-6 to the square, as many do, has eps = 1e-3.

    Returns:
        A scalar, never below eps.
    """
    return ((sr - hr).square() + eps**2).sqrt().mean()


def euclidean(sr: Tensor, hr: Tensor) -> Tensor:
    """Half the squared error of an image, summed over its pixels; mean over the images.

    Caffe's EuclideanLoss: the mean squared error, in the unit for which SRCNN and VDSR give their
    learning rates, weight decay and gradient clipping. By the mean over the pixels, the same rates
    are a thousand times too small.

    Args:
        sr: Shape (N, C, H, W), any range.
        hr: Same shape and range.

    Returns:
        A scalar.
    """
    return (sr - hr).square().sum() / (2 * len(sr))
