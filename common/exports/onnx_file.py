"""A network as an ONNX file: in float32, in float16, or with convolutions of 8-bit integers."""

import logging
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.images.formats import PictureError, read_rgb
from common.images.resize import crop_to_multiple, imresize
from common.images.tensors import to_tensor
from common.network import SuperResolutionModel

EXPORTED_SIZE = (2, 3, 12, 13)
CALIBRATION_PICTURES, CALIBRATION_SIDE = 16, 96  # LR pixels
LAST_LAYERS = 5  # which int8 leaves in float32, since their errors reach the picture at once


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
    # A program that enlarges in tiles needs so many pixels of LR around each.
    if model.margin is not None and model.attention_window != 0:
        program.model.metadata_props["margin"] = f"{model.margin}"
    return program.model_proto.SerializeToString()


def to_fp16(file: bytes) -> bytes:
    """The same with weights and features of float16; input and output stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    network = onnx.load_from_string(file)
    return convert_float_to_float16(network, keep_io_types=True).SerializeToString()


def to_int8(file: bytes, model: SuperResolutionModel, pictures: Iterable[Tensor]) -> bytes:
    """The same with 8-bit integers for weights and inputs of the convolutions.

    The first convolution and the last five (of few, the last third) stay in float32.

    Args:
        file: ONNX file of the network.
        model: The network.
        pictures: LR pictures by which the ranges of the inputs are found, each (1, 3, h, w).

    Raises:
        UserError: The network has too few convolutions.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.pictures = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            lr = next(self.pictures, None)
            return None if lr is None else {"lr": lr.numpy()}

    network = onnx.load_from_string(file)
    weights = {name for name, _ in model.named_parameters()}
    # (Bicubic inside of a network is a convolution as well, but not one of its layers.)
    layers = [n.name for n in network.graph.node if n.op_type == "Conv" and n.input[1] in weights]
    last = min(LAST_LAYERS, len(layers) // 3)
    chosen = layers[1 : len(layers) - last]
    if not chosen:
        raise UserError(
            f"int8 leaves the first and the last convolution alone, and {type(model).__name__} has "
            f"{len(layers)}: nothing would be left to quantize. Choose --precision fp16."
        )
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "int8.onnx")
        logging.disable(logging.WARNING)  # it recommends steps that change nothing here
        try:
            quantize_static(
                network,
                output,
                Reader(),
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,  # 7 bits, since older x64 processors overflow with 8
            )
        finally:
            logging.disable(logging.NOTSET)
        return output.read_bytes()


def calibration_pictures(paths: Sequence[Path], scale: int) -> list[Tensor]:
    """LR pictures, as the network was trained on, made of photographs.

    Args:
        paths: Photographs. At most 16 are taken, at equal distances.
        scale: Factor by which each is shrunk.

    Returns:
        Middles of at most 96x96 pixels, RGB in [0, 1], each (1, 3, h, w).

    Raises:
        UserError: A picture cannot be read, or is too small.
    """
    step = max(1, len(paths) // CALIBRATION_PICTURES)
    pictures = []
    for path in paths[::step][:CALIBRATION_PICTURES]:
        try:
            hr = crop_to_multiple(to_tensor(read_rgb(path)), scale)
        except PictureError as error:
            raise UserError(f"--calibration_dir: {path}: {error}. Remove it from there.") from None
        if not hr.numel():
            raise UserError(
                f"--calibration_dir: {path} is smaller than {scale}x{scale} pixels, which become "
                "one of LR. Remove it from there."
            )
        lr = imresize(hr, 1 / scale)
        top, left = ((side - CALIBRATION_SIDE) // 2 for side in lr.shape[1:])
        rows, columns = (
            slice(max(0, first), max(0, first) + CALIBRATION_SIDE) for first in (top, left)
        )
        pictures.append(lr[None, :, rows, columns].float() / 255)
    return pictures


class OnnxNetwork:
    """A network that onnxruntime computes on the CPU.

    Args:
        file: Content of the ONNX file.
        threads: Threads that compute. Default: all cores.
    """

    def __init__(self, file: bytes, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, lr: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, h, w) -> (N, 3, h * scale, w * scale)."""
        (sr,) = self.session.run(["sr"], {"lr": lr.numpy()})
        return torch.from_numpy(sr)
