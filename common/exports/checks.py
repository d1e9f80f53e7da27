"""What an export needs, and whether it gives what PyTorch gives."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from math import inf
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "ncnn": ("pnnx", "ncnn")}
CHECKED_SIZES = ((1, 3, 17, 23), (1, 3, 40, 33), (2, 3, 9, 11))
TOLERANCE = 1e-4  # of float32: a fortieth of what rounding to 8 bits tells apart
LEAST_PSNR = 30.0  # dB of fp16 and int8 to float32; below, pictures differ visibly


def check_packages(kind: str, wanted_by: str) -> None:
    """Says what to install for a format, before long work whose result it is to export.

    Args:
        kind: Format, one of `PACKAGES`.
        wanted_by: Script or option, for the messages.

    Raises:
        UserError: PyTorch is too old, or a package is missing.
    """
    if kind == "onnx" and torch.__version__ < "2.9":
        raise UserError(
            f"{wanted_by} needs PyTorch 2.9 or newer, not {torch.__version__}: "
            "pip install --upgrade torch torchvision"
        )
    missing = [package for package in PACKAGES[kind] if not find_spec(package)]
    if missing:
        packages = " ".join(missing)
        raise UserError(f"{wanted_by} needs {' and '.join(missing)}: pip install {packages}")


@torch.no_grad()
def greatest_difference(
    exported: Callable[[Tensor], Tensor],
    network: Callable[[Tensor], Tensor],
    sizes: Sequence[Sequence[int]] = CHECKED_SIZES,
) -> float:
    """Runs what was exported and its network on noise of several sizes; prints how they differ.

    Returns:
        The greatest difference of a value; infinity if a shape differs; NaN if a value is none.
    """
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in sizes:
        lr = torch.rand(*size, generator=generator)
        result, sr = exported(lr), network(lr)
        difference = (result - sr).abs().max().item() if result.shape == sr.shape else inf
        print(f"{'x'.join(map(str, size))}: differs from PyTorch by at most {difference:.1e}")
        differences.append(difference)
    return torch.tensor(differences).max().item()  # which is NaN if one is


@torch.no_grad()
def psnr_to_pytorch(
    exported: Callable[[Tensor], Tensor],
    network: Callable[[Tensor], Tensor],
    pictures: Sequence[Tensor],
) -> float:
    """PSNR in dB between results, the lowest of some pictures; NaN if a value is none."""
    errors = [F.mse_loss(exported(lr), network(lr)) for lr in pictures]
    return -10 * torch.stack(errors).max().log10().item()


def check(
    output: Path,
    kind: str,
    precision: str,
    exported: Callable[[Tensor], Tensor],
    network: Callable[[Tensor], Tensor],
    pictures: Sequence[Tensor] = (),
    sizes: Sequence[Sequence[int]] = CHECKED_SIZES,
) -> None:
    """Compares what was exported with PyTorch, and prints how they differ.

    Args:
        output: File that is to be written, for the messages.
        kind: Format, one of `PACKAGES`.
        precision: fp32, fp16 or int8.
        exported: What was exported, as its program computes it.
        network: The network, by PyTorch.
        pictures: Inputs by which fp16 and int8 are compared.
        sizes: Shapes of the noise by which fp32 is compared.

    Raises:
        UserError: They differ by more than the precision explains.
    """
    packages = ", ".join(PACKAGES[kind])
    if precision == "fp32":
        difference = greatest_difference(exported, network, sizes)
        if not difference <= TOLERANCE:  # nor if it is not a number
            raise UserError(
                f"{output} is not written: {PACKAGES[kind][-1]} and PyTorch differ by "
                f"{difference:.1e}, more than {TOLERANCE:.0e}. Try other versions of {packages} or "
                "torch."
            )
        return
    psnr = psnr_to_pytorch(exported, network, pictures)
    print(f"{len(pictures)} pictures: at least {psnr:.1f} dB between {precision} and PyTorch")
    if not psnr >= LEAST_PSNR:
        raise UserError(
            f"{output} is not written: {precision} and PyTorch differ visibly, {psnr:.1f} dB "
            f"where at least {LEAST_PSNR:g} are demanded. Choose a higher --precision."
        )
