r"""Turns weights that a paper's authors published into a model folder of this repository.

    python convert_published.py weights.safetensors --architecture a2n --scale 2 \
        --output_dir out/a2n-published

The weights must be a `.safetensors` file under the names of the authors' code. A `.pth` file is a
pickle, which can run code when it is opened; convert it where you trust it:

    tensors = torch.load("weights.pth", weights_only=True)
    safetensors.torch.save_file(tensors, "weights.safetensors")
"""

import argparse
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import UserError
from common.hub import find_network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="the .safetensors file")
    parser.add_argument("--architecture", required=True, help="a2n for the network of train_a2n.py")
    parser.add_argument(
        "--scale", type=int, nargs="+", required=True, help="all that the weights are trained for"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    args = parser.parse_args()

    if min(args.scale) < 2:
        parser.error(f"--scale {min(args.scale)} is not at least 2")
    network = find_network(args.architecture)
    if args.output_dir.exists():
        raise UserError(f"--output_dir {args.output_dir} exists already. Name a new folder.")
    try:
        tensors = load_file(args.weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{args.weights} cannot be read as .safetensors: {error}") from None
    try:
        model = network.from_published(tensors, args.scale)
    except (KeyError, RuntimeError, ValueError):
        first = ", ".join(list(tensors)[:4])
        raise UserError(
            f"{args.weights} does not hold published weights of {args.architecture} "
            f"x{' x'.join(map(str, args.scale))}: its {len(tensors)} tensors begin {first}. Check "
            "--architecture and --scale."
        ) from None
    model.save_pretrained(args.output_dir)
    print(f"{len(tensors)} tensors converted. Evaluate them with")
    print(f"    python evaluate.py --model {args.output_dir} --benchmarks sample")


if __name__ == "__main__":
    main()
