"""A network as the two files of ncnn, `.param` and `.bin`, written by the package pnnx."""

import copy
import re
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError

# Two sizes, by which pnnx knows that both sides are free.
TRACED_SIZES = ((40, 56), (33, 24))
# The names that programs which enlarge by ncnn expect: realesrgan-ncnn-vulkan, Upscayl.
BLOBS = {"in0": "data", "out0": "output"}
# pnnx writes no float16 below 2 ** -14, so zeros in place of them. Where the largest weight of a
# convolution is below this, those are not small beside it: a hundredth of it, or more.
SMALLEST_WEIGHT = 100 * 2**-14


class Scaled(nn.Module):
    """A convolution whose weights are made larger, in place, and its result as small as it was."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        _, exponent = torch.frexp(convolution.weight.abs().max())
        self.factor = 2.0 ** int(exponent)  # a power of two: no weight is rounded
        self.convolution = convolution
        for parameter in self.convolution.parameters():
            parameter.div_(self.factor)

    def forward(self, features: Tensor) -> Tensor:
        """What the convolution gives."""
        return self.factor * self.convolution(features)


@torch.no_grad()
def for_float16(network: nn.Module) -> nn.Module:
    """A copy of a network, whose weights pnnx can write in float16."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and 0 < child.weight.abs().max() < SMALLEST_WEIGHT:
                setattr(parent, name, Scaled(child))
    return network


def to_ncnn(network: nn.Module, channels: int, *, fp16: bool) -> tuple[str, bytes]:
    """Converts a network.

    Args:
        network: Network in evaluation mode, of operations that ncnn has.
        channels: Channels of its input.
        fp16: Whether the weights are stored in float16.

    Returns:
        (content of the `.param` file, content of the `.bin` file). The input is `data`, the result
        `output`.

    Raises:
        UserError: pnnx fails, or the network has an operation that ncnn has not.
    """
    import pnnx

    first, second = (torch.rand(1, channels, *size) for size in TRACED_SIZES)
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings(), torch.no_grad():
            # PyTorch warns that a trace is old-fashioned, and that it keeps the path of one size.
            warnings.simplefilter("ignore")
            traced = for_float16(network) if fp16 else network
            torch.jit.trace(traced, first, check_trace=False).save(f"{folder}/network.pt")
        command = [pnnx.EXEC_PATH, "network.pt", f"fp16={int(fp16)}"]
        for option, image in (("inputshape", first), ("inputshape2", second)):
            command.append(f"{option}=[{','.join(map(str, image.shape))}]f32")
        end = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        files = [Path(folder, f"network.ncnn.{ending}") for ending in ("param", "bin")]
        if end.returncode or not all(file.is_file() for file in files):
            last = (end.stderr or end.stdout).strip().splitlines()[-1:]
            raise UserError(f"pnnx cannot convert the network: {' '.join(last) or end.returncode}")
        param, weights = files[0].read_text(), files[1].read_bytes()
    # ncnn loads a file with operations that it has not, and ends the program that uses them.
    if unknown := sorted(set(re.findall(r"^(?:\w+::|pnnx\.|prim)\S+", param, re.MULTILINE))):
        raise UserError(
            f"ncnn has no {' and no '.join(unknown)}, which the network uses. Export it as ONNX, "
            "or write that part of it with other operations."
        )
    for old, new in BLOBS.items():
        param = re.sub(rf"(?<=\s){old}(?=\s)", new, param)
    return param, weights


class NcnnNetwork:
    """A network that ncnn computes on the CPU, in float32."""

    def __init__(self, param: str, weights: bytes, threads: int = 1) -> None:
        import ncnn

        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        for kind in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(self.net.opt, f"use_{kind}", False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "network")
            file.with_suffix(".param").write_text(param)
            file.with_suffix(".bin").write_bytes(weights)
            failed = self.net.load_param(f"{file}.param") or self.net.load_model(f"{file}.bin")
        if failed:
            raise UserError("ncnn cannot read what pnnx wrote. Try other versions of both.")

    def __call__(self, image: Tensor) -> Tensor:
        """(1, C, h, w) in [0, 1] -> (1, C', h', w')."""
        import ncnn

        extractor = self.net.create_extractor()
        pixels = image[0].contiguous().numpy()  # whose memory the Mat has, but does not keep
        extractor.input("data", ncnn.Mat(pixels).clone())
        failed, result = extractor.extract("output")
        if failed:
            raise UserError("ncnn cannot compute what pnnx wrote. Try other versions of both.")
        return torch.from_numpy(np.array(result))[None]
