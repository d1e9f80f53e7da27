"""Presets of `--degradation`: tables of parameters, and the stages that are drawn by them.

    stages = PRESETS["photo"](np.random.default_rng(0), 2)  # [Blur(...), Resize(...), JPEG(...)]

Drawn stages are plain numbers; `common.images.stages` applies them to pixels. A side or a width is
in pixels of the picture at that stage, a noise level in values of 8 bits.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, log, pi
from typing import Any, NamedTuple

import numpy as np

from common.images.stages import (
    JPEG,
    Blur,
    CameraNoise,
    GaussianNoise,
    PoissonNoise,
    Resize,
    Sinc,
    Stage,
)

Range = tuple[float, float]
Draw = Callable[[np.random.Generator, int], list[Stage]]  # by the generator and the scale

# The interpolations of both published pipelines, without antialiasing. (BSRGAN's are OpenCV's: its
# linear and cubic are PyTorch's. Its area shares out pixels where the factor is not whole.)
INTERPOLATIONS = ("torch area", "torch bilinear", "torch bicubic")

# ----------------------------------------------------------------------------------- jpeg and photo


class Photo(NamedTuple):
    """Ours: what a phone and a web site do to a photograph, in this order.

    The published pipelines cover far worse pictures and cost sharpness on good ones. A width is in
    pixels of LR, so that it means the same at every scale.
    """

    # Pictures that nobody saved with loss, by MATLAB's bicubic alone: without them a network soon
    # forgets to sharpen what is good.
    clean: float = 0.15
    # Lenses, small movements and noise reduction: half of the photographs are as good as sharp.
    blur: float = 0.5
    sigma: Range = (0.1, 0.6)
    # Sites shrink by all of these, with antialiasing; each is as likely as another.
    kernels: tuple[str, ...] = (
        "matlab bicubic",
        "pillow box",
        "pillow bilinear",
        "pillow bicubic",
        "pillow lanczos",
    )
    # What is left behind a camera's noise reduction; a third of it shows as brightness alone.
    noise: float = 0.5
    level: Range = (0.5, 6)
    gray: float = 1 / 3
    # A site shrinks the file of a camera, which has seen JPEG before, and saves it once more.
    twice: float = 0.5
    first_side: Range = (1, 2)  # of the camera's file, as a multiple of LR's side
    first_quality: tuple[int, int] = (75, 95)
    quality: tuple[int, int] = (40, 95)
    # Cameras and some editors keep the colors at full resolution.
    full_colors: float = 0.2


PHOTO = Photo()


def draw_jpeg(
    generator: np.random.Generator, scale: int, quality: tuple[int, int] = (30, 95)
) -> list[Stage]:
    """MATLAB's bicubic, then JPEG."""
    return [Resize(1 / scale, "matlab bicubic"), JPEG(_whole(generator, quality))]


def draw_photo(generator: np.random.Generator, scale: int) -> list[Stage]:
    table, stages = PHOTO, list[Stage]()
    if _happens(generator, table.clean):
        return [Resize(1 / scale, "matlab bicubic")]
    if _happens(generator, table.blur):
        sigma_x, sigma_y = (scale * generator.uniform(*table.sigma) for _ in range(2))
        size = 2 * round(3 * table.sigma[1] * scale) + 1
        stages.append(Blur("gaussian", size, sigma_x, sigma_y, generator.uniform(0, pi)))
    twice = _happens(generator, table.twice)
    side = generator.uniform(*table.first_side) if twice else 1
    stages.append(Resize(side / scale, _one_of(generator, table.kernels)))
    if _happens(generator, table.noise):
        channels = "gray" if _happens(generator, table.gray) else "color"
        stages.append(GaussianNoise(generator.uniform(*table.level), channels))
    if twice:
        stages.append(JPEG(_whole(generator, table.first_quality), _colors(generator)))
        stages.append(Resize(1 / scale, _one_of(generator, table.kernels)))
    stages.append(JPEG(_whole(generator, table.quality), _colors(generator)))
    return stages


def _colors(generator: np.random.Generator) -> str:
    return "4:4:4" if _happens(generator, PHOTO.full_colors) else "4:2:0"


# ------------------------------------------------------------------------------------------- bsrgan


class BSRGAN(NamedTuple):
    """Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image SR", ICCV 2021.

    Section 3. Numbers and steps are those of the authors' code, `degradation_bsrgan` in
    utils/utils_blindsr.py of github.com/cszn/BSRGAN. The seven stages come in random order, but the
    last resize never before the first, and JPEG follows. `s` is the scale that is left.
    """

    # x4 only: first to half the size, by an interpolation or by MATLAB's bicubic; s is then 2.
    halved: float = 0.25
    # Two blurs, each one isotropic or not.
    anisotropic: float = 0.5
    variance: tuple[float, float] = (4, 1)  # of either axis: 0 to 4 + s
    sigma: tuple[float, float] = (2, 0.2)  # of the isotropic one: 0 to 2 + 0.2 s
    kernel_sizes: Sequence[int] = range(7, 26, 2)
    # The first resize: by 1 / U(1, 2 s), or each s-th pixel behind a Gaussian of 0.1 to 0.6 s. The
    # second goes to LR's size.
    interpolated: float = 0.75
    nearest_size: int = 25
    nearest_sigma: Range = (0.1, 0.6)
    # Noise in R, G and B apart, the same in all, or correlated, then always of the largest level.
    noise: Mapping[str, float] = {"color": 0.4, "gray": 0.4, "mixed": 0.2}
    level: tuple[int, int] = (2, 25)
    jpeg: float = 0.9
    quality: tuple[int, int] = (30, 95)
    # Camera noise. The authors run a model of a camera's processing. OURS in its place: shot and
    # read noise as in Brooks et al., "Unprocessing images for learned raw denoising" (CVPR 2019).
    camera: float = 0.25
    shot: Range = (1e-4, 0.012)  # uniform in its logarithm
    read: tuple[float, float, float] = (2.18, 1.2, 0.26)  # log read = N(2.18 log shot + 1.2, 0.26)


BSRGAN_TABLE = BSRGAN()


def draw_bsrgan(generator: np.random.Generator, scale: int) -> list[Stage]:
    table, stages = BSRGAN_TABLE, list[Stage]()
    side, left = 1.0, scale  # of the picture, as a share of HR; scale from it to LR
    if scale == 4 and _happens(generator, table.halved):
        by_interpolation = _happens(generator, 0.5)
        kernel = _one_of(generator, INTERPOLATIONS) if by_interpolation else "matlab bicubic"
        stages.append(Resize(0.5, kernel))
        side, left = 0.5, 2

    order = generator.permutation(7).tolist()
    first, second = order.index(2), order.index(3)
    if first > second:
        order[first], order[second] = order[second], order[first]
    for number in order:
        if number in (0, 1):
            stages.append(_bsrgan_blur(generator, left))
        elif number == 2 and _happens(generator, table.interpolated):
            factor = side / generator.uniform(1, 2 * left)
            stages.append(Resize(factor, _one_of(generator, INTERPOLATIONS)))
        elif number == 2:
            low, high = table.nearest_sigma
            sigma = generator.uniform(low, high * left)
            shift = (left - 1) / 2  # from the first pixel of a square to its center
            stages.append(Blur("gaussian", table.nearest_size, sigma, sigma, shift=shift))
            stages.append(Resize(side / left, "nearest"))
        elif number == 3:
            stages.append(Resize(1 / scale, _one_of(generator, INTERPOLATIONS)))
        elif number == 4:
            stages.append(_bsrgan_noise(generator))
        elif number == 5 and _happens(generator, table.jpeg):
            stages.append(JPEG(_whole(generator, table.quality)))
        elif number == 6 and _happens(generator, table.camera):
            low, high = map(log, table.shot)
            log_shot = generator.uniform(low, high)
            slope, offset, deviation = table.read
            log_read = slope * log_shot + offset + deviation * generator.standard_normal()
            stages.append(CameraNoise(exp(log_shot), exp(log_read)))
    return [*stages, JPEG(_whole(generator, table.quality))]


def _bsrgan_blur(generator: np.random.Generator, left: int) -> Blur:
    table = BSRGAN_TABLE
    size = int(_one_of(generator, table.kernel_sizes))
    if _happens(generator, table.anisotropic):
        offset, slope = table.variance
        variances = [generator.uniform(0, offset + slope * left) for _ in range(2)]
        sigma_x, sigma_y = (variance**0.5 for variance in variances)
        return Blur("gaussian", size, sigma_x, sigma_y, generator.uniform(0, pi))
    offset, slope = table.sigma
    sigma = generator.uniform(0, offset + slope * left)
    return Blur("gaussian", size, sigma, sigma)


def _bsrgan_noise(generator: np.random.Generator) -> GaussianNoise:
    table = BSRGAN_TABLE
    channels = _weighted(generator, table.noise)
    if channels == "mixed":
        return GaussianNoise(table.level[1], channels, tuple(generator.random(12).tolist()))
    return GaussianNoise(_whole(generator, table.level), channels)


# --------------------------------------------------------------------------------------- realesrgan


class Order(NamedTuple):
    """One of Real-ESRGAN's two orders of degradation: blur, resize, noise, JPEG."""

    blur: float
    sigma: Range
    resize: Mapping[str, float]
    up: float  # largest factor
    down: float  # smallest factor
    level: Range  # of the Gaussian noise
    strength: Range  # of the Poisson noise


class RealESRGAN(NamedTuple):
    """Wang et al., "Real-ESRGAN: Training Real-World Blind SR with Pure Synthetic Data", 2021.

    ICCV Workshops, sections 3 and 4.1; the probabilities of resizing and the cutoffs are those
    of the authors' options/train_realesrgan_x4plus.yml and realesrgan_dataset.py
    (github.com/xinntao/Real-ESRGAN). HR is not sharpened here.
    """

    kernels: Mapping[str, float] = {
        "gaussian, isotropic": 0.45,
        "gaussian": 0.25,
        "generalized, isotropic": 0.12,
        "generalized": 0.03,
        "plateau, isotropic": 0.12,
        "plateau": 0.03,
    }
    kernel_sizes: Sequence[int] = range(7, 22, 2)
    # Half below 1, half above.
    beta: Mapping[str, Range] = {"generalized": (0.5, 4), "plateau": (1, 2)}
    sinc: float = 0.1
    cutoff: Range = (pi / 3, pi)
    cutoff_of_large: Range = (pi / 5, pi)  # kernels of 13 and more
    first: Order = Order(
        blur=1,
        sigma=(0.2, 3),
        resize={"up": 0.2, "down": 0.7, "keep": 0.1},
        up=1.5,
        down=0.15,
        level=(1, 30),
        strength=(0.05, 3),
    )
    second: Order = Order(
        blur=0.8,
        sigma=(0.2, 1.5),
        resize={"up": 0.3, "down": 0.4, "keep": 0.3},
        up=1.2,
        down=0.3,
        level=(1, 25),
        strength=(0.05, 2.5),
    )
    gaussian: float = 0.5  # otherwise Poisson noise
    gray: float = 0.4
    quality: tuple[int, int] = (30, 95)
    final_sinc: float = 0.8
    jpeg_last: float = 0.5  # otherwise JPEG comes before the last resize and the final sinc filter


REALESRGAN_TABLE = RealESRGAN()


def draw_realesrgan(generator: np.random.Generator, scale: int) -> list[Stage]:
    table = REALESRGAN_TABLE
    stages = _degradation_of_order(generator, table.first, 1.0)
    stages.append(JPEG(_whole(generator, table.quality)))
    stages += _degradation_of_order(generator, table.second, 1 / scale)
    last: list[Stage] = [Resize(1 / scale, _one_of(generator, INTERPOLATIONS))]
    if _happens(generator, table.final_sinc):
        size = int(_one_of(generator, table.kernel_sizes))
        last.append(Sinc(size, generator.uniform(*table.cutoff)))
    jpeg = JPEG(_whole(generator, table.quality))
    return stages + ([*last, jpeg] if _happens(generator, table.jpeg_last) else [jpeg, *last])


def _degradation_of_order(generator: np.random.Generator, order: Order, side: float) -> list[Stage]:
    """Blur, resize around `side` (as a share of HR's) and noise."""
    table, stages = REALESRGAN_TABLE, list[Stage]()
    if _happens(generator, order.blur):
        stages.append(_realesrgan_blur(generator, order))
    direction = _weighted(generator, order.resize)
    factor = {"up": (1, order.up), "down": (order.down, 1), "keep": (1, 1)}[direction]
    kernel = _one_of(generator, INTERPOLATIONS)
    stages.append(Resize(side * generator.uniform(*factor), kernel))
    gray = _happens(generator, table.gray)
    if _happens(generator, table.gaussian):
        level = generator.uniform(*order.level)
        stages.append(GaussianNoise(level, "gray" if gray else "color"))
    else:
        stages.append(PoissonNoise(generator.uniform(*order.strength), gray))
    return stages


def _realesrgan_blur(generator: np.random.Generator, order: Order) -> Blur | Sinc:
    table = REALESRGAN_TABLE
    size = int(_one_of(generator, table.kernel_sizes))
    if _happens(generator, table.sinc):
        cutoff = table.cutoff if size < 13 else table.cutoff_of_large
        return Sinc(size, generator.uniform(*cutoff))
    profile, _, isotropic = _weighted(generator, table.kernels).partition(", ")
    sigma_x = sigma_y = generator.uniform(*order.sigma)
    angle, beta = 0.0, 1.0
    if not isotropic:
        sigma_y, angle = generator.uniform(*order.sigma), generator.uniform(-pi, pi)
    if profile in table.beta:
        low, high = table.beta[profile]
        beta = generator.uniform(*((low, 1) if _happens(generator, 0.5) else (1, high)))
    return Blur(profile, size, sigma_x, sigma_y, angle, beta)


# -------------------------------------------------------------------------------------------- draws


def _happens(generator: np.random.Generator, probability: float) -> bool:
    return bool(generator.random() < probability)


def _whole(generator: np.random.Generator, ends: tuple[int, int]) -> int:
    """A whole number between two ends, both included."""
    return int(generator.integers(ends[0], ends[1] + 1))


def _one_of(generator: np.random.Generator, items: Sequence) -> Any:
    return items[int(generator.integers(len(items)))]


def _weighted(generator: np.random.Generator, probabilities: Mapping[str, float]) -> str:
    """One of the keys, by its probability."""
    left = generator.random()
    *others, last = probabilities
    for key in others:
        left -= probabilities[key]
        if left < 0:
            return key
    return last


PRESETS: dict[str, Draw] = {
    "jpeg": draw_jpeg,
    "photo": draw_photo,
    "bsrgan": draw_bsrgan,
    "realesrgan": draw_realesrgan,
}
