"""Stages of a degradation: blur, resizing, noise and JPEG, each a tuple of plain numbers.

    stage = Blur("gaussian", size=21, sigma_x=1.2, sigma_y=1.2)
    pixels = stage.apply(pixels, (height, width), generator)

Pixels are bytes, uint8 (H, W, 3), or planes, float32 (3, H, W) in [0, 255]. A stage takes both and
returns what it has, because converting takes as long as some stages. It computes in one thread, or
in double precision where a library takes several, so its result does not depend on their number.
"""

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import cos, sin
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import fft, linalg, special

from common.images.resize import imresize
from common.images.tensors import to_tensor

Size = tuple[int, int]  # height and width

# Weight of a kernel at a distance (squared, in standard deviations) from its center, given beta.
PROFILES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "gaussian": lambda distance, beta: np.exp(-0.5 * distance),
    "generalized": lambda distance, beta: np.exp(-0.5 * distance**beta),
    "plateau": lambda distance, beta: 1 / (1 + distance**beta),
}


class Blur(NamedTuple):
    """Convolution with a kernel of a Gaussian's kind; the border is mirrored.

    Attributes:
        profile: Name among `PROFILES`.
        size: Side of the kernel in pixels, odd.
        sigma_x: Standard deviation along the first axis, in pixels, at least 0.
        sigma_y: Standard deviation along the second axis.
        angle: Angle of the axes, in radians.
        beta: Shape of the profiles other than "gaussian".
        shift: Pixels, to the right and down, by which the kernel looks away from its center.
    """

    profile: str
    size: int
    sigma_x: float
    sigma_y: float
    angle: float = 0.0
    beta: float = 1.0
    shift: float = 0.0

    def kernel(self) -> np.ndarray:
        x, y = np.meshgrid(*[np.arange(self.size) - self.size // 2 - self.shift] * 2)
        across = (cos(self.angle) * x + sin(self.angle) * y) / max(self.sigma_x, 1e-3)
        along = (cos(self.angle) * y - sin(self.angle) * x) / max(self.sigma_y, 1e-3)
        distance = across**2 + along**2
        if self.profile == "gaussian":  # the nearest pixel counts, however narrow the kernel is
            distance -= distance.min()
        weights = PROFILES[self.profile](distance, self.beta)
        return weights / weights.sum()

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        return _convolve(pixels, self.kernel())


class Sinc(NamedTuple):
    """Ideal low-pass filter, cut off at the kernel's border: makes rings and overshoot.

    Attributes:
        size: Side of the kernel in pixels, odd.
        cutoff: Largest frequency that passes, in radians a pixel, at most pi.
    """

    size: int
    cutoff: float

    def kernel(self) -> np.ndarray:
        axis = np.arange(self.size) - self.size // 2
        radius = np.hypot(*np.meshgrid(axis, axis))
        center = radius == 0
        radius[center] = 1
        weights = self.cutoff * special.j1(self.cutoff * radius) / (2 * np.pi * radius)
        weights[center] = self.cutoff**2 / (4 * np.pi)
        return weights / weights.sum()

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        return _convolve(pixels, self.kernel())


class Resize(NamedTuple):
    """Resizing to a share of HR's size.

    Attributes:
        factor: Side of the result as a share of HR's side.
        kernel: Library and method. "torch area", "torch bilinear", "torch bicubic": without
            antialiasing, as in the published pipelines. "pillow box", "pillow bilinear", "pillow
            bicubic", "pillow lanczos": with antialiasing, on 8 bits. "matlab bicubic": as LR of
            benchmarks is made. "nearest": the first pixel of every square.
    """

    factor: float
    kernel: str

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        height, width = size = [max(1, round(side * self.factor)) for side in hr_size]
        library, _, method = self.kernel.partition(" ")
        if library == "nearest":
            planes = to_planes(pixels)
            step = round(planes.shape[1] / height)
            return np.ascontiguousarray(planes[:, ::step, ::step])
        if library == "torch":  # in double precision: the same on all processors once it is rounded
            images = torch.from_numpy(to_planes(pixels))[None].double()
            return F.interpolate(images, size=size, mode=method)[0].float().numpy()
        if library == "matlab":
            images = imresize(to_tensor(to_bytes(pixels)), size)
            return images.movedim(0, -1).contiguous().numpy()
        resample = Image.Resampling[method.upper()]
        return np.array(Image.fromarray(to_bytes(pixels)).resize((width, height), resample))


class GaussianNoise(NamedTuple):
    """White noise, equal in all pixels.

    Attributes:
        level: Standard deviation, in values of 8 bits.
        channels: "color": noise of its own in R, G and B; "gray": the same in all three; "mixed":
            correlated by `mixture`.
        mixture: For "mixed": 12 numbers in [0, 1), three for the variances along the axes of the
            correlation, nine for a matrix whose columns span the axes.
    """

    level: float
    channels: str
    mixture: tuple[float, ...] = ()

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        planes = to_planes(pixels)
        shape = (1 if self.channels == "gray" else 3, *planes.shape[1:])
        noise = generator.standard_normal(shape, np.float32)
        if self.channels == "mixed":
            axes = linalg.orth(np.reshape(self.mixture[3:], (3, 3)))
            covariance = np.abs(axes.T * self.mixture[:3] @ axes)
            values, vectors = np.linalg.eigh(covariance)  # the absolute values may be no covariance
            root = vectors * np.sqrt(values.clip(0)) @ vectors.T
            weights = root.astype(np.float32)[..., None, None]  # (3, 3, 1, 1)
            noise = (weights * noise).sum(axis=1)
        return np.clip(planes + np.float32(self.level) * noise, 0, 255)


class PoissonNoise(NamedTuple):
    """Shot noise of a picture whose values are taken for numbers of photons.

    Attributes:
        strength: Factor of the noise.
        gray: Whether R, G and B get the noise of their mean, the same in all three.
    """

    strength: float
    gray: bool

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        light = planes = to_planes(pixels)
        if self.gray:
            red, green, blue = planes
            light = (0.299 * red + 0.587 * green + 0.114 * blue)[None]
        light = np.rint(light.clip(0, 255))  # filters and resizing overshoot
        # Photons at full light: the smallest power of 2 with a number for every value in use.
        used = np.count_nonzero(np.bincount(light.astype(np.uint8).ravel()))
        photons = (light / 255 * 2 ** np.ceil(np.log2(used))).astype(np.float32)
        noise = np.sqrt(photons) * generator.standard_normal(photons.shape, np.float32)
        dark = photons < 16  # above, a normal distribution fits and is drawn ten times as fast
        noise[dark] = generator.poisson(photons[dark]) - photons[dark]
        factor = np.float32(self.strength * 255 / 2 ** np.ceil(np.log2(used)))
        return np.clip(planes + factor * noise, 0, 255)


class CameraNoise(NamedTuple):
    """Shot and read noise in the light that a sensor measures: its variance is shot * light + read.

    The light is taken for the square of a value (gamma 2, which is exact and fast).

    Attributes:
        shot: Variance that full light, 1, adds.
        read: Variance of the dark.
    """

    shot: float
    read: float

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        light = np.square(to_planes(pixels) / np.float32(255))
        deviation = np.sqrt(np.float32(self.shot) * light + np.float32(self.read))
        light += deviation * generator.standard_normal(light.shape, np.float32)
        return np.sqrt(light.clip(0, 1)) * np.float32(255)


class JPEG(NamedTuple):
    """Compression by Pillow's JPEG.

    Attributes:
        quality: Quality from 1 to 95.
        subsampling: Resolution of the colors, "4:2:0" (half) or "4:4:4" (full).
    """

    quality: int
    subsampling: str = "4:2:0"

    def apply(
        self, pixels: np.ndarray, hr_size: Size, generator: np.random.Generator
    ) -> np.ndarray:
        file = io.BytesIO()
        picture = Image.fromarray(to_bytes(pixels))
        picture.save(file, "jpeg", quality=self.quality, subsampling=self.subsampling)
        return np.array(Image.open(file))


Stage = Blur | Sinc | Resize | GaussianNoise | PoissonNoise | CameraNoise | JPEG


def apply_stages(
    hr: np.ndarray, stages: Sequence[Stage], generator: np.random.Generator
) -> np.ndarray:
    """Degrades a picture.

    Args:
        hr: HR, uint8, (H, W, 3).
        stages: Stages in their order, of which a `Resize` gives the size of LR.
        generator: Source of the noise.

    Returns:
        LR, uint8, (h, w, 3).
    """
    pixels = hr
    for stage in stages:
        pixels = stage.apply(pixels, hr.shape[:2], generator)
    return to_bytes(pixels)


def to_planes(pixels: np.ndarray) -> np.ndarray:
    """Planes of bytes; planes stay as they are."""
    if pixels.dtype != np.uint8:
        return pixels
    return np.moveaxis(pixels, -1, 0).astype(np.float32, order="C")


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Bytes of planes, rounded and clipped; bytes stay as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.ascontiguousarray(np.moveaxis(np.rint(pixels).clip(0, 255).astype(np.uint8), 0, -1))


def _convolve(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Planes correlated with an odd square kernel; the border is mirrored.

    By the plain product of spectra, which takes a third of the time of `scipy.signal.fftconvolve`.
    """
    planes, reach = to_planes(pixels), len(kernel) // 2
    padded = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    size = tuple(_fast_length(side) for side in padded.shape[1:])
    flipped = kernel[::-1, ::-1].astype(np.float32)
    spectrum = fft.rfft2(padded, size) * fft.rfft2(flipped, size)
    height, width = planes.shape[1:]
    first = 2 * reach  # what is before is wrapped around
    return fft.irfft2(spectrum, size)[:, first : first + height, first : first + width]


@lru_cache(maxsize=1024)
def _fast_length(length: int) -> int:
    return fft.next_fast_len(length, real=True)
