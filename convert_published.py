r"""Turns weights that a paper's authors published into a model folder of this repository.

    python convert_published.py weights.safetensors --architecture a2n --scale 2 \
        --output_dir out/a2n-published

The weights must be a `.safetensors` file under the names of the authors' code. A `.pth` file is a
pickle, which can run code when it is opened. Convert it where you trust it:

    tensors = torch.load("weights.pth", weights_only=True)
    safetensors.torch.save_file(tensors, "weights.safetensors")
"""

import common.start

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from common.errors import UserError
from common.files import cannot_fill, filled_folder
from common.hub import find_network
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, whole
from common.weights import read_weights
from train_a2n import A2N
from train_srcnn import SRCNN
from train_srgan import SRGAN
from train_vdsr import VDSR

Tensors = dict[str, Tensor]

A2N_NAMES = {
    r"AAB_trunk\.(\d+)\.conv_first": r"blocks.\1.conv_in",
    r"AAB_trunk\.(\d+)\.ADM": r"blocks.\1.branch_scores",
    r"AAB_trunk\.(\d+)\.attention\.k1": r"blocks.\1.attention_branch.gate.0",
    r"AAB_trunk\.(\d+)\.attention\.k2": r"blocks.\1.attention_branch.gate.2",
    r"AAB_trunk\.(\d+)\.attention\.k3": r"blocks.\1.attention_branch.value",
    r"AAB_trunk\.(\d+)\.attention\.k4": r"blocks.\1.attention_branch.out",
    r"AAB_trunk\.(\d+)\.non_attention": r"blocks.\1.plain_branch",
    r"AAB_trunk\.(\d+)\.conv_last": r"blocks.\1.conv_out",
    r"trunk_conv": r"conv_trunk",
    r"upconv1": r"upsamplers.0.1",
    r"att1": r"upsamplers.0.2",
    r"HRconv1": r"upsamplers.0.4",
    r"upconv2": r"upsamplers.1.1",
    r"att2": r"upsamplers.1.2",
    r"HRconv2": r"upsamplers.1.4",
}


def convert_a2n(tensors: Tensors, scales: Sequence[int]) -> A2N:
    """A2N of the authors' code, which works on RGB in [0, 255]."""
    scale = single_scale("A2N", scales)
    weights = {}
    for name, tensor in tensors.items():
        for old, new in A2N_NAMES.items():
            name = re.sub(rf"^{old}(?=\.)", new, name)
        weights[name] = tensor.clone()
    weights["conv_first.weight"] *= 255
    weights["conv_last.weight"] /= 255
    weights["conv_last.bias"] /= 255
    is_a2n_m = weights["blocks.0.plain_branch.weight"].shape[-1] == 1
    model = A2N(scale, "a2n-m" if is_a2n_m else "a2n")
    model.load_state_dict(weights)
    return model


def convert_srcnn(tensors: Tensors, scales: Sequence[int]) -> SRCNN:
    """SRCNN with layers named conv1, conv2 and conv3, for luma itself, zero-padded."""
    scale = single_scale("SRCNN", scales)
    new_names = {"conv1": "layers.0", "conv2": "layers.2", "conv3": "layers.4"}
    sizes = "-".join(str(tensors[f"{name}.weight"].shape[-1]) for name in new_names)
    weights = {}
    for name, tensor in tensors.items():
        layer, kind = name.split(".")
        weights[f"{new_names[layer]}.{kind}"] = tensor
    model = SRCNN(scale, sizes, padding_mode="zeros", mean=0)
    model.load_state_dict(weights)
    return model


def convert_vdsr(tensors: Tensors, scales: Sequence[int]) -> VDSR:
    """VDSR whose layers are numbered by convolution, `layers.0` to `layers.19`."""
    weights = {}
    for name, tensor in tensors.items():
        layers, number, kind = name.split(".")
        weights[f"{layers}.{2 * int(number)}.{kind}"] = tensor
    num_layers = sum(name.endswith(".weight") for name in tensors)
    num_features = len(tensors["layers.0.weight"])
    model = VDSR(scales, num_layers, num_features, bias="layers.0.bias" in tensors)
    model.load_state_dict(weights)
    return model


def convert_srgan(tensors: Tensors, scales: Sequence[int]) -> SRGAN:
    """Generator of a well-known tutorial, `block1` to `block8`, of any of its forms."""
    scale = single_scale("SRGAN", scales)
    last = max(int(name.split(".")[0].removeprefix("block")) for name in tensors)
    parts = {"conv1": 0, "bn1": 1, "prelu": 2, "conv2": 3, "bn2": 4}
    weights = {}
    for name, tensor in tensors.items():
        block, part, *rest = name.split(".")
        number = int(block.removeprefix("block"))
        if number == 1:
            new = ["head", part]
        elif number == last - 1:
            new = ["trunk_end", part]
        elif number < last:
            new = ["blocks", str(number - 2), "layers", str(parts[part])]
        elif len(rest) == 2:
            new = ["upsamplers", part, {"conv": "0", "prelu": "2"}[rest[0]]]
        else:
            new = ["tail"]
        weights[".".join([*new, rest[-1]])] = tensor
    model = SRGAN(scale, last - 3, "tutorial")
    model.load_state_dict(weights)
    return model


CONVERSIONS: dict[str, Callable[[Tensors, Sequence[int]], SuperResolutionModel]] = {
    "a2n": convert_a2n,
    "srcnn": convert_srcnn,
    "srgan": convert_srgan,
    "vdsr": convert_vdsr,
}


def single_scale(network: str, scales: Sequence[int]) -> int:
    """Scale of a network that has one.

    Raises:
        UserError: There are several.
    """
    if len(scales) > 1:
        several = " and ".join(map(str, scales))
        raise UserError(f"{network} is for one scale, not for {several}.")
    return scales[0]


def convert(tensors: Tensors, architecture: str, scales: Sequence[int]) -> SuperResolutionModel:
    """Makes the network with published weights.

    Args:
        tensors: Weights under the names of the authors' code.
        architecture: `a2n` for the network of `train_a2n.py`.
        scales: Factors that the weights are trained for.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: No published weights of this network are known.
        LookupError, RuntimeError, TypeError, ValueError: The tensors are not those of this network,
            or it cannot have these scales.
    """
    find_network(architecture)
    if architecture not in CONVERSIONS:
        raise UserError(
            f"There is no known set of published weights for {architecture}. There are some for "
            f"{', '.join(CONVERSIONS)}."
        )
    return CONVERSIONS[architecture](tensors, scales).eval()


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    parser.add_argument("weights", type=Path, help=".safetensors file of the published weights")
    model = parser.group("model", "What the weights are of.")
    model.add_argument(
        "--architecture",
        required=True,
        help=f"network, by the name of its training script: {', '.join(CONVERSIONS)}",
    )
    model.add_argument(
        "--scale",
        type=whole(2, 8),
        nargs="+",
        required=True,
        help="all factors that the weights are trained for",
    )
    parser.group("output").add_argument(
        "--output_dir", type=Path, required=True, help="model folder to write, new or empty"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if reason := cannot_fill(args.output_dir):
        raise UserError(f"--output_dir {args.output_dir} {reason}.")
    tensors = read_weights(args.weights)
    if not tensors:
        raise UserError(f"{args.weights} holds no tensor. Make it once more.")
    try:
        model = convert(tensors, args.architecture, args.scale)
    except (LookupError, RuntimeError, TypeError, ValueError):
        first = ", ".join(list(tensors)[:4])
        raise UserError(
            f"{args.weights} does not hold published weights of {args.architecture} "
            f"x{' x'.join(map(str, args.scale))}: its {len(tensors)} tensors begin {first}. Check "
            "--architecture and --scale."
        ) from None
    with filled_folder(args.output_dir) as folder:
        model.save_pretrained(folder)
    print(f"{len(tensors)} tensors converted. Evaluate them with")
    print(f"    python evaluate.py --model {args.output_dir} --benchmarks sample")


if __name__ == "__main__":
    main()
