"""Files of an exported network, written all or none; ONNX files beside the weights of a model."""

from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError
from common.exports.checks import check
from common.exports.onnx_file import OnnxNetwork, to_onnx
from common.files import delete_leftovers, replace_files
from common.network import SuperResolutionModel
from common.tables import size_in_words


def write(contents: Mapping[Path, bytes], model: SuperResolutionModel) -> None:
    """Writes the files of a network, and prints what they are. Files that exist are replaced.

    Args:
        contents: Content of each file; all are in one folder.
        model: The network.

    Raises:
        UserError: There is no room, for example. None of the files is written.
    """
    names = " and ".join(map(str, contents))
    size = sum(map(len, contents.values()))
    try:
        for folder in {path.parent for path in contents}:
            folder.mkdir(parents=True, exist_ok=True)
            delete_leftovers(folder)
        replace_files(contents)
    except OSError as error:
        raise UserError(
            f"Cannot write {names}, {size:,} bytes: {error.strerror or error}. Nothing of it is "
            "kept. Make room, or name another --output."
        ) from None
    print(f"{names}: {type(model).__name__} x{model.scale}, {size_in_words(size)}")


def export_beside(folder: Path, model: SuperResolutionModel) -> dict[int, str]:
    """Writes `model.onnx`, or `model_x2.onnx` and so on of several scales, into a model folder.

    Files of these names are replaced.

    Args:
        folder: Folder of the model.
        model: Network that is saved there.

    Returns:
        Names of the files, by the scale.

    Raises:
        UserError: A file could not be made, or does not give what PyTorch gives.
    """
    names = {}
    for scale in model.scales:
        model.scale = scale
        names[scale] = f"model_x{scale}.onnx" if len(model.scales) > 1 else "model.onnx"
        path, file = folder / names[scale], to_onnx(model)
        check(path, "onnx", "fp32", OnnxNetwork(file), model)
        write({path: file}, model)
    return names
