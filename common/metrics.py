"""The evaluation protocol of the SR papers. Nothing else in the repository knows it.

PSNR: Huynh-Thu and Ghanbari, "Scope of validity of PSNR in image/video quality assessment", 2008.
SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity"
(2004).
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from math import exp, inf, log10

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from common.color import luma
from common.data import BenchmarkDataset, to_float
from common.errors import UserError
from common.hub import SuperResolutionModel

PROTOCOL = (
    "output rounded to 8 bits; Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded; "
    "`scale` pixels cropped off every side; LR by MATLAB's bicubic; PSNR with peak 255; SSIM with "
    "an 11x11 Gaussian (sigma 1.5), K1 = 0.01, K2 = 0.03, valid region; mean over the images"
)

Metric = Callable[[Tensor, Tensor, int], float]  # sr, hr, crop_border


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
        UserError: AlexNet's weights cannot be had; later, an image is too small for it.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        network = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
    except (OSError, RuntimeError) as error:  # of the download, of its checksum
        raise UserError(
            f"--lpips needs the weights of AlexNet, which torchvision cannot download: {error}. "
            "Leave it out, or put alexnet-owt-7be5be79.pth of download.pytorch.org into "
            f"{torch.hub.get_dir()}/checkpoints."
        ) from None

    def lpips(sr: Tensor, hr: Tensor, crop_border: int) -> float:
        images = [image.float()[None].to(device) for image in _prepare(sr, hr, crop_border)]
        height, width = images[0].shape[-2:]
        if min(height, width) < 31:
            raise UserError(
                f"--lpips needs 31x31 pixels inside the border; there is a picture of "
                f"{width}x{height}. Leave --lpips out."
            )
        return network(*images).item()

    return lpips


def to_uint8(images: Tensor) -> Tensor:
    """[0, 1] floating-point, any shape -> the nearest 8-bit values, clipped."""
    return images.mul(255).round().clamp(0, 255).to(torch.uint8)


def score(
    sr: Tensor, hr: Tensor, scale: int, metrics: Sequence[Metric] = (psnr_y, ssim_y)
) -> dict[str, float]:
    """One picture by each metric, by the metric's name. Arguments as in `psnr_y`."""
    return {metric.__name__: metric(sr, hr, scale) for metric in metrics}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    benchmark: BenchmarkDataset,
    device: torch.device,
    metrics: Sequence[Metric] = (psnr_y, ssim_y),
    on_image: Callable[[int, Tensor], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Super-resolves and scores every picture of a benchmark; several processes share them out.

    Args:
        model: In evaluation mode; RGB in [0, 1], (1, 3, h, w) -> (1, 3, h * scale, w * scale).
        benchmark: The pictures.
        device: Where the model is.
        metrics: What to score each picture by.
        on_image: Is called with the number and the SR, uint8, (3, H, W), of each picture, in the
            process that made it.

    Returns:
        On every process, for each picture its scores and the `seconds` of the forward pass.
    """
    state = PartialState()
    mine = range(state.process_index, len(benchmark), state.num_processes)
    results: dict[str, dict[str, float]] = {}
    hidden = None if state.is_main_process else True  # None: shown on a terminal only
    for index in tqdm(mine, desc="Evaluating", leave=False, disable=hidden):
        name, lr, hr = benchmark[index]
        lr, hr = to_float(lr, device)[None], to_float(hr, device)
        if not results:
            model(lr)  # the first pass also loads kernels; do not time it
        start = _now(device)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 all through
            sr = model(lr)[0]
        seconds = _now(device) - start
        results[name] = score(sr, hr, benchmark.scale, metrics) | {"seconds": seconds}
        if on_image:
            on_image(index, to_uint8(sr))
    gathered = {name: result for part in gather_object([results]) for name, result in part.items()}
    return {name: gathered[name] for name in benchmark.pictures.names}


def mean_scores(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """The figures of a benchmark: of each score the mean over the pictures."""
    keys = next(iter(results.values()))
    return {key: statistics.fmean(result[key] for result in results.values()) for key in keys}


def count_multiply_adds(model: SuperResolutionModel) -> int:
    """Multiply-adds of one forward pass with an output of 1280x720 pixels, as the SR papers count.

    Of convolutions and linear layers only, at `model.scale`. Where that does not divide 1280, the
    count for the next smaller picture is extrapolated.
    """
    height, width = 720 // model.scale, 1280 // model.scale
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta")(torch.empty(1, 3, height, width, device="meta"))
    flops = counter.get_total_flops() * (1280 * 720) / (height * width * model.scale**2)
    return round(flops / 2)


def _prepare(sr: Tensor, hr: Tensor, crop_border: int) -> tuple[Tensor, Tensor]:
    """Both images rounded to multiples of 1/255, in double precision, without the border."""
    if sr.shape != hr.shape:
        raise ValueError(f"sr is {tuple(sr.shape)}, hr is {tuple(hr.shape)}; they must be equal")
    height, width = hr.shape[-2] - 2 * crop_border, hr.shape[-1] - 2 * crop_border
    if min(height, width) < 1:
        raise ValueError(f"a border of {crop_border} leaves nothing of {tuple(hr.shape)}")
    device = (
        "cpu" if sr.device.type == "mps" else sr.device
    )  # Apple's GPUs have no double precision
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
    """(C, H, W) in [0, 1] -> mean over channels and positions of eq. 13 of Wang et al."""
    if min(sr.shape[-2:]) < 11:
        raise ValueError(
            f"SSIM needs at least 11x11 pixels inside the border, not {tuple(sr.shape)}"
        )
    c1, c2 = 0.01**2, 0.03**2
    mean_sr, mean_hr, sr_sr, hr_hr, sr_hr = _gaussian_means(
        torch.stack([sr, hr, sr * sr, hr * hr, sr * hr])
    )
    variances = sr_sr - mean_sr**2 + hr_hr - mean_hr**2
    covariance = sr_hr - mean_sr * mean_hr
    similarity = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2)
    similarity /= (mean_sr**2 + mean_hr**2 + c1) * (variances + c2)
    return similarity.mean().item()


def _gaussian_means(maps: Tensor) -> Tensor:
    """Means under an 11x11 Gaussian window, sigma 1.5, where it fits.

    (..., H, W) -> (..., H-10, W-10).
    """
    window = [exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)]
    for axis in (-2, -1):
        length = maps.shape[axis] - 10
        maps = sum(
            (
                weight / sum(window) * maps.narrow(axis, k, length)
                for k, weight in enumerate(window)
            ),
            start=torch.zeros((), dtype=maps.dtype, device=maps.device),
        )
    return maps


def _now(device: torch.device) -> float:
    """Seconds, once the device has done all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
