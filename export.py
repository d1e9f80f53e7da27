"""Writes a network as an ONNX file, for programs that do without PyTorch.

    python export.py --model a2n-x2                                 # writes a2n_x2.onnx
    python export.py --model user/name --scale 3 --output sr.onnx

Its input `lr` is RGB in [0, 1], float32, (batch, 3, height, width), of any size; its output `sr` is
(batch, 3, height * scale, width * scale), not clamped. No file is written unless onnxruntime gives
what PyTorch gives. Needs PyTorch 2.9 and the packages onnx, onnxscript and onnxruntime.
"""

import common.start

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from math import inf
from pathlib import Path

import torch

from common.errors import UserError
from common.files import cannot_write, delete_leftovers, replace_file
from common.hub import load_model
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, add_model_arguments
from common.pretrained import choose

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
EXPORTED_SIZE = (2, 3, 12, 13)
CHECKED_SIZES = ((1, 3, 17, 23), (1, 3, 40, 33), (2, 3, 9, 11))
TOLERANCE = 1e-4  # a fortieth of what rounding to 8 bits tells apart


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    add_model_arguments(parser.group("model"))
    output = parser.group("output")
    output.add_argument(
        "--output",
        type=Path,
        help="ONNX file to write (default: a2n_x2.onnx for the model out/a2n)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace an --output that exists")
    return parser.parse_args(argv)


def to_onnx(model: SuperResolutionModel) -> bytes:
    """The network as an ONNX file that enlarges pictures of any size by `model.scale`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch 2.11 warns of itself
        program = torch.onnx.export(
            model,
            (torch.rand(EXPORTED_SIZE),),
            input_names=["lr"],
            output_names=["sr"],
            dynamic_shapes={"lr": {0: "batch", 2: "height", 3: "width"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as it is for the older exporter
    for node in program.model.graph:
        node.metadata_props.clear()  # among them stack traces, with the paths of this machine
    program.model.metadata_props.update(
        architecture=model.architecture(), scale=f"{model.scale}", input_range="[0, 1]"
    )
    return program.model_proto.SerializeToString()


def greatest_difference(file: bytes, model: SuperResolutionModel) -> float:
    """Runs an ONNX file and its network on noise of several sizes, and prints how they differ.

    Returns:
        The greatest difference of a value; infinity if a shape differs; NaN if a value is none.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in CHECKED_SIZES:
        lr = torch.rand(size, generator=generator)
        (result,) = session.run(["sr"], {"lr": lr.numpy()})
        with torch.no_grad():
            sr = model(lr)
        difference = inf
        if result.shape == sr.shape:
            difference = (torch.from_numpy(result) - sr).abs().max().item()
        print(f"{'x'.join(map(str, size))}: differs from PyTorch by at most {difference:.1e}")
        differences.append(difference)
    return torch.tensor(differences).max().item()  # which is NaN if one is


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if torch.__version__ < "2.9":
        raise UserError(
            f"export.py needs PyTorch 2.9 or newer, not {torch.__version__}: pip install --upgrade "
            "torch torchvision"
        )
    missing = [package for package in PACKAGES if not find_spec(package)]
    if missing:
        raise UserError(f"export.py needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    name = args.model or choose(args.scale)
    model = load_model(name, args.revision, args.scale)
    stem = Path(name).resolve().name.removesuffix(f"-x{model.scale}")
    output = args.output or Path(f"{stem}_x{model.scale}.onnx")
    if reason := cannot_write(output, args.overwrite):
        raise UserError(f"--output {output} {reason}.")

    file = to_onnx(model)
    difference = greatest_difference(file, model)
    if not difference <= TOLERANCE:  # nor if it is not a number
        raise UserError(
            f"{output} is not written: onnxruntime and PyTorch differ by {difference:.1e}, more "
            f"than {TOLERANCE:.0e}. Try other versions of {', '.join(PACKAGES)} or torch."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        delete_leftovers(output.parent)
        replace_file(output, file)
    except OSError as error:
        raise UserError(
            f"Cannot write {output}, {len(file):,} bytes: {error.strerror or error}. "
            "Nothing of it is kept. Make room, or name another --output."
        ) from None
    print(f"{output}: {type(model).__name__} x{model.scale}, {len(file) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
