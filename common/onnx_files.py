"""ONNX files beside the weights of a model, by export.py."""

import importlib
from collections.abc import Sequence
from pathlib import Path


def check_packages(option: str) -> None:
    """Checks that export.py can work, before long work whose result it is to export.

    Raises:
        UserError: PyTorch is too old, or a package is missing.
    """
    importlib.import_module("export").check_packages("onnx", option)


def export_beside(folder: Path, scales: Sequence[int]) -> dict[int, str]:
    """Writes `model.onnx`, or `model_x2.onnx` and so on of several scales, into a model folder.

    Files of these names are replaced.

    Returns:
        Names of the files, by the scale.

    Raises:
        UserError: A file could not be made, or does not give what PyTorch gives.
    """
    export = importlib.import_module("export")
    names = {scale: f"model_x{scale}.onnx" if len(scales) > 1 else "model.onnx" for scale in scales}
    for scale, name in names.items():
        output = f"{folder / name}"
        export.main(
            ["--model", f"{folder}", "--scale", f"{scale}", "--output", output, "--overwrite"]
        )
    return names
