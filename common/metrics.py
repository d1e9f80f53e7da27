"""The evaluation protocol of the SR papers, which only this file knows: tensors in, scalars out.

PSNR: Huynh-Thu and Ghanbari, "Scope of validity of PSNR in image/video quality assessment", 2008.
SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity"
(2004).
"""

from collections.abc import Callable, Sequence
from math import exp, inf, log10
from textwrap import shorten

import torch
from torch import Tensor

from common.errors import UserError
from common.images.color import luma

WINDOW = 11  # side of SSIM's Gaussian
PIXELS_AT_ONCE = 2**20  # for SSIM, which takes 0.1 KB for each

Metric = Callable[[Tensor, Tensor, int], float]  # sr, hr, crop_border


# Names of other values in the log of a run.
TAKEN = ("psnr_y", "ssim_y", "loss", "learning_rate", "step", "seconds")


def check_names(metrics: Sequence[Metric]) -> None:
    """Checks the names of metrics of one's own, by which log, card and `rank` know them.

    Raises:
        UserError: A metric has no name, or that of another value.
    """
    taken = list(TAKEN)
    for metric in metrics:
        name = getattr(metric, "__name__", "")
        if not name:
            raise UserError(
                f"The metric {shorten(f'{metric}', 150)} has no name for the log. Write a function "
                "by `def`, or set its __name__."
            )
        if name in taken:
            raise UserError(
                f"The metric {name} has the name of another value in the log. Rename it; taken are "
                f"{', '.join(taken)}."
            )
        taken.append(name)


def protocol(lr: str) -> str:
    """Protocol in words.

    Args:
        lr: Where LR comes from, in words.
    """
    return (
        "output rounded to 8 bits; Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded; "
        f"`scale` pixels cropped off every side; LR {lr}; PSNR with peak 255; SSIM with an "
        "11x11 Gaussian (sigma 1.5), K1 = 0.01, K2 = 0.03, valid region; mean over the images"
    )


def can_be_scored(height: int, width: int, scale: int) -> bool:
    """Whether SSIM's window fits into an HR picture of this size, inside of the border.

    The picture is first cropped to a multiple of `scale`, as the benchmarks do.
    """
    return all(side // scale * scale - 2 * scale >= WINDOW for side in (height, width))


def psnr_y(sr: Tensor, hr: Tensor, crop_border: int) -> float:
    """Peak signal-to-noise ratio of the luma channel, in dB; infinite for equal images.

    Args:
        sr: Super-resolved RGB in [0, 1], shape (3, H, W). Rounded to 8 bits first.
        hr: Ground truth, same shape and range.
        crop_border: Pixels dropped on every side; the papers drop `scale`.

    Raises:
        ValueError: The shapes differ, or the border leaves no pixel.
    """
    return _psnr(*(luma(image) for image in _prepare(sr, hr, crop_border)))


def psnr_rgb(sr: Tensor, hr: Tensor, crop_border: int) -> float:
    """PSNR in dB, squared error averaged over the three channels. Arguments as in `psnr_y`."""
    return _psnr(*_prepare(sr, hr, crop_border))


def ssim_y(sr: Tensor, hr: Tensor, crop_border: int) -> float:
    """Structural similarity of the luma channel, at most 1. Arguments as in `psnr_y`.

    Raises:
        ValueError: The shapes differ, or the border leaves fewer than 11 x 11 pixels.
    """
    return _ssim(*(luma(image) for image in _prepare(sr, hr, crop_border)))


def ssim_rgb(sr: Tensor, hr: Tensor, crop_border: int) -> float:
    """Mean of the structural similarities of the three channels. Arguments as in `psnr_y`."""
    return _ssim(*_prepare(sr, hr, crop_border))


def make_lpips(device: torch.device) -> Metric:
    """LPIPS with AlexNet: how different two images look, 0 if not at all.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018).
    The metric takes the arguments of `psnr_y`.

    Raises:
        UserError: The weights of AlexNet cannot be had; the metric itself raises it for an image
            that is too small.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        network = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
    except (OSError, RuntimeError) as error:  # from the download, from its checksum
        raise UserError(
            f"LPIPS needs the weights of AlexNet, which torchvision cannot download: {error}. "
            "Do without LPIPS, or put alexnet-owt-7be5be79.pth of download.pytorch.org into "
            f"{torch.hub.get_dir()}/checkpoints."
        ) from None

    def lpips(sr: Tensor, hr: Tensor, crop_border: int) -> float:
        images = [image.float()[None].to(device) for image in _prepare(sr, hr, crop_border)]
        height, width = images[0].shape[-2:]
        if min(height, width) < 31:
            raise UserError(
                f"LPIPS needs 31x31 pixels inside the border; there is a picture of "
                f"{width}x{height}. Leave that picture out, or do without LPIPS."
            )
        return network(*images).item()

    return lpips


def make_pyiqa(name: str, device: torch.device) -> Metric:
    """Metric of the package pyiqa, also of those that need no HR, such as NIQE.

    The metric takes the arguments of `psnr_y`.

    Raises:
        UserError: The package, the metric or its weights cannot be had; the metric itself raises it
            for a picture that it cannot score.
    """
    try:
        import pyiqa

        network = pyiqa.create_metric(name, device=device)
    except ImportError as error:
        raise UserError(
            f"--metrics {name} needs the package pyiqa ({error}). It brings about 50 others and is "
            "no requirement of this repository: `pip install pyiqa`, or leave --metrics out."
        ) from None
    except Exception as error:  # of an unknown name, a download, a checksum
        reason = shorten(f"{error}", 150).rstrip(".")
        raise UserError(
            f"--metrics {name}: pyiqa cannot make it: {reason}. Where it has to download, "
            f"its files may be put into {torch.hub.get_dir()}/pyiqa by hand. "
            "`pyiqa.list_models()` names all metrics; piqe needs no file."
        ) from None

    def metric(sr: Tensor, hr: Tensor, crop_border: int) -> float:
        images = [image.float()[None].to(device) for image in _prepare(sr, hr, crop_border)]
        try:
            return float(network(*images[: 1 if network.metric_mode == "NR" else 2]))
        except Exception as error:
            height, width = images[0].shape[-2:]
            raise UserError(
                f"--metrics {name} cannot score a picture of {width}x{height}: "
                f"{shorten(f'{error}', 150)}. Leave it out."
            ) from None

    metric.__name__ = name.replace("-", "_")
    return metric


def to_uint8(images: Tensor) -> Tensor:
    """Rounds floating-point images in [0, 1], of any shape, to 8-bit values, clipped."""
    return images.mul(255).round().clamp(0, 255).to(torch.uint8)


def score(
    sr: Tensor, hr: Tensor, scale: int, metrics: Sequence[Metric] = (psnr_y, ssim_y)
) -> dict[str, float]:
    """Scores one picture by each metric: values by the metric's name. Arguments as in `psnr_y`."""
    return {metric.__name__: metric(sr, hr, scale) for metric in metrics}


def _prepare(sr: Tensor, hr: Tensor, crop_border: int) -> tuple[Tensor, Tensor]:
    """Rounds both images to multiples of 1/255, in double precision, and crops the border."""
    if sr.shape != hr.shape:
        raise ValueError(f"sr is {tuple(sr.shape)}, hr is {tuple(hr.shape)}; they must be equal")
    height, width = hr.shape[-2] - 2 * crop_border, hr.shape[-1] - 2 * crop_border
    if min(height, width) < 1:
        raise ValueError(f"a border of {crop_border} leaves nothing of {tuple(hr.shape)}")
    # Apple's GPUs have no double precision.
    device = torch.device("cpu") if sr.device.type == "mps" else sr.device
    sr, hr = (
        to_uint8(image).to(device, torch.float64)[
            ..., crop_border : crop_border + height, crop_border : crop_border + width
        ]
        / 255
        for image in (sr, hr)
    )
    return sr, hr


def _psnr(sr: Tensor, hr: Tensor) -> float:
    error = (sr - hr).square().mean().item()
    return -10 * log10(error) if error else inf


def _ssim(sr: Tensor, hr: Tensor) -> float:
    """Mean over channels and positions of eq. 13 of Wang et al., of images (C, H, W) in [0, 1]."""
    if min(sr.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs at least 11x11 pixels inside the border, not {tuple(sr.shape)}"
        )
    c1, c2 = 0.01**2, 0.03**2
    height, width = (side - WINDOW + 1 for side in sr.shape[-2:])
    rows = max(1, PIXELS_AT_ONCE // width)
    total = 0.0
    for top in range(0, height, rows):
        part = slice(top, top + rows + WINDOW - 1)
        x, y = sr[..., part, :], hr[..., part, :]
        mean_x, mean_y, xx, yy, xy = _gaussian_means(torch.stack([x, y, x * x, y * y, x * y]))
        variances = xx - mean_x**2 + yy - mean_y**2
        covariance = xy - mean_x * mean_y
        similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        similarity /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
        total += similarity.mean().item() * (similarity.shape[-2] / height)
    return total


def _gaussian_means(maps: Tensor) -> Tensor:
    """Means under a Gaussian window, sigma 1.5, where it fits: (..., H, W) -> (..., H-10, W-10)."""
    window = [exp(-((k - WINDOW // 2) ** 2) / (2 * 1.5**2)) for k in range(WINDOW)]
    for axis in (-2, -1):
        length = maps.shape[axis] - WINDOW + 1
        maps = sum(
            (
                weight / sum(window) * maps.narrow(axis, k, length)
                for k, weight in enumerate(window)
            ),
            start=torch.zeros((), dtype=maps.dtype, device=maps.device),
        )
    return maps
