"""Writes a network as a file for programs that do without PyTorch, or as a page for the browser.

    python export.py --model a2n-x2                                   # ONNX: a2n_x2.onnx
    python export.py --model a2n-x2 --precision fp16                  # half as large
    python export.py --model a2n-x2 --precision int8 --calibration_dir PHOTOS
    python export.py --model a2n-x2 --format ncnn                     # a2n_x2.param, a2n_x2.bin
    python export.py --model a2n-x2 --web out/page                    # then python -m http.server

No file is written unless it gives what PyTorch gives. docs/export.md says how to use each.
"""

import common.start

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.data.find import SAMPLE_TRAIN, sample_pictures
from common.data.layouts import picture_files
from common.errors import UserError
from common.exports.checks import CHECKED_SIZES, PACKAGES, check, check_packages
from common.exports.ncnn_files import NcnnNetwork, to_ncnn
from common.exports.onnx_file import OnnxNetwork, calibration_pictures, to_fp16, to_int8, to_onnx
from common.exports.web import fetch_runtime, write_page
from common.exports.writing import write
from common.files import cannot_fill, cannot_write_any
from common.hub import load_model
from common.images.color import luma
from common.images.resize import imresize
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, add_model_arguments, whole
from common.pretrained import choose
from train_a2n import CELL, AttentionInAttentionBlock

TILED_WINDOW = 64  # as upscale.py takes it for tiles


class PortableBlock(nn.Module):
    """A2N's block in operations that ncnn has: the same function, but for rounding.

    The softmax of two scores is the sigmoid of their difference, dense layers on a map are 1x1
    convolutions, and the mean of a window that the border cuts is a quotient.
    """

    def __init__(self, block: AttentionInAttentionBlock) -> None:
        super().__init__()
        self.block = block
        squeeze, _, score = (getattr(layer, "weight", None) for layer in block.branch_scores)
        assert squeeze is not None
        assert score is not None
        difference = (score[:1] - score[1:]) / 30
        self.squeeze = nn.Conv2d(squeeze.shape[1], len(squeeze), kernel_size=1, bias=False)
        self.score = nn.Conv2d(len(squeeze), 1, kernel_size=1, bias=False)
        self.squeeze.weight.data = squeeze[..., None, None]
        self.score.weight.data = difference[..., None, None]

    def forward(self, features: Tensor, window: int = 0) -> Tensor:
        x = F.leaky_relu(self.block.conv_in(features), 0.2)
        if window:
            # ncnn divides the sum of a cell that the border cuts as if the cell were whole.
            cells, whole_cells = (F.avg_pool2d(y, CELL, ceil_mode=True) for y in (x, x * 0 + 1))
            radius = round(window / CELL) // 2
            means = cells / whole_cells
            means = F.avg_pool2d(means, 2 * radius + 1, 1, radius, count_include_pad=False)
        else:
            means = x.mean(dim=(2, 3), keepdim=True)
        weight = torch.sigmoid(self.score(F.relu(self.squeeze(means))))
        if window:
            height, width = x.shape[2:]
            weight = F.interpolate(weight, scale_factor=CELL, mode="bilinear")
            weight = weight[:, :, :height, :width]
        plain = self.block.plain_branch(x)
        x = plain + weight * (self.block.attention_branch(x) - plain)
        return features + self.block.conv_out(F.leaky_relu(x, 0.2))


class LumaNetwork(nn.Module):
    """What SRCNN and VDSR do to the luma of an enlarged picture, (N, 1, h, w) -> the same shape."""

    def __init__(self, model: SuperResolutionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, y: Tensor) -> Tensor:
        enhance: Any = self.model.enhance_luma
        return enhance(y)


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    model = parser.group("model")
    add_model_arguments(model)
    model.add_argument(
        "--attention_window",
        type=whole(least=0),
        metavar="N",
        help="for A2N in programs that enlarge in tiles: side in pixels of LR over which its "
        "attention takes means; 64 makes tiles agree (default: the whole picture; 64 for --web)",
    )
    output = parser.group("output")
    output.add_argument(
        "--format",
        choices=list(PACKAGES),
        default="onnx",
        help="onnx: one file for onnxruntime and many others; ncnn: two files for ncnn, which runs "
        "on phones and, by Vulkan, on most GPUs",
    )
    output.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8"],
        default="fp32",
        help="fp32: as it is; fp16: half as large; int8 (onnx): convolutions of 8-bit integers, "
        "but for the first and the last ones, of most networks smaller yet, and a little worse",
    )
    output.add_argument(
        "--calibration_dir",
        type=Path,
        only_with=("precision", "int8"),
        help="folder of photographs by which --precision int8 finds the ranges of features, at "
        "most 16 (default: photographs of the scikit-image package)",
    )
    output.add_argument(
        "--web",
        type=Path,
        metavar="DIR",
        help="write a page that enlarges pictures in the browser instead of a file; the folder "
        "must be new or empty",
    )
    output.add_argument(
        "--output",
        type=Path,
        help="the file to write (default: a2n_x2.onnx for the model out/a2n; with ncnn, "
        "a2n_x2.param and a2n_x2.bin)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace an --output that exists")
    parser.checks.append(check_options)
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if args.format == "ncnn" and args.precision == "int8":
        yield "--precision int8 is for --format onnx; ncnn takes fp32 and fp16."
    if args.format == "ncnn" and args.output and args.output.suffix != ".param":
        yield f"--output {args.output} must end in .param; the .bin is written beside it"
    if args.web and (args.format != "onnx" or args.output):
        yield "--web writes a page with an ONNX file of its own; leave out --format and --output."
    if args.web and (reason := cannot_fill(args.web)):
        yield f"--web {args.web} {reason}"


def portable(model: SuperResolutionModel) -> nn.Module:
    """The network in operations that ncnn has, or the part of it that can be so written.

    The enlargement of SRCNN and VDSR, and their color, become constants of one size in ncnn.
    """
    if hasattr(model, "enhance_luma"):
        return LumaNetwork(model)
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, AttentionInAttentionBlock):
                setattr(parent, name, PortableBlock(child))
    return model.eval()


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_packages(args.format, "export.py")
    name = args.model or choose(args.scale)
    model = load_model(name, args.revision, args.scale)
    if args.scale is None and (said := model.scale_in_words()):
        print(said)
    set_window(model, args)
    network = portable(model) if args.format == "ncnn" else model
    is_luma = isinstance(network, LumaNetwork)

    stem = Path(name).resolve().name.removesuffix(f"-x{model.scale}")
    parts = [stem, "luma" if is_luma else "", f"x{model.scale}"]
    parts += [f"window{model.attention_window}" if model.attention_window else ""]
    parts += [args.precision if args.precision != "fp32" else ""]
    ending = {"onnx": ".onnx", "ncnn": ".param"}[args.format]
    output = args.output or Path("_".join(filter(None, parts)) + ending)
    outputs = [output] if args.format == "onnx" else [output, output.with_suffix(".bin")]
    if not args.web and (reason := cannot_write_any(outputs, args.overwrite)):
        raise UserError(f"--output {reason}.")

    pictures = []
    if args.precision != "fp32":
        if args.calibration_dir is None:
            paths = [Path(source["hr"]["path"]) for source in sample_pictures(SAMPLE_TRAIN)]
        else:
            paths = picture_files(args.calibration_dir)
        if args.calibration_dir and not args.calibration_dir.is_dir():
            raise UserError(
                f"There is no folder {args.calibration_dir}. --calibration_dir is one of "
                "photographs; name another, or leave it out."
            )
        if not paths:
            raise UserError(
                f"--calibration_dir {args.calibration_dir} holds no pictures; name a folder of "
                "photographs, or leave it out."
            )
        pictures = calibration_pictures(paths, model.scale)
    if is_luma:
        pictures = [luma(imresize(lr, model.scale)) for lr in pictures]

    exported: Callable[[Tensor], Tensor]
    sizes: Sequence[Sequence[int]] = CHECKED_SIZES
    if args.format == "onnx":
        runtime = fetch_runtime() if args.web else {}
        file = to_onnx(model)
        if args.precision == "fp16":
            file = to_fp16(file)
        elif args.precision == "int8":
            file = to_int8(file, model, pictures)
        contents, exported = [file], OnnxNetwork(file)
    else:
        channels = 1 if is_luma else 3
        param, weights = to_ncnn(network, channels, fp16=args.precision == "fp16")
        contents, exported = [param.encode(), weights], NcnnNetwork(param, weights)
        sizes = [(1, channels, *size[2:]) for size in CHECKED_SIZES]  # ncnn has no batches
    form = args.format, args.precision
    check(args.web or output, *form, exported, network, pictures, sizes)
    if args.web:
        write_page(args.web, model, file, runtime)
        return
    write(dict(zip(outputs, contents, strict=True)), model)
    if is_luma:
        print(
            "ncnn gets the luma network alone: the enlargement and the color of this network would "
            "have one size. Its input is the Y channel of the picture enlarged by bicubic, its "
            "result the Y to put in that place. docs/export.md has the code."
        )
    if args.format == "ncnn" and model.attention_window == 0:
        print(
            "Its attention takes means of the whole picture, and programs that run ncnn mostly "
            f"enlarge in tiles, which then differ: --attention_window {TILED_WINDOW} makes them "
            "agree."
        )


def set_window(model: SuperResolutionModel, args: argparse.Namespace) -> None:
    """Sets the window of a network that takes means of the whole picture.

    Raises:
        UserError: The network has no such means, or a tile cannot have them.
    """
    if args.attention_window is None:
        if args.web and model.attention_window is not None:
            model.attention_window = TILED_WINDOW
        return
    if model.attention_window is None:
        raise UserError(
            f"--attention_window is for networks that take the mean of the whole picture; "
            f"{type(model).__name__} does not. Leave it out."
        )
    if args.web and args.attention_window == 0:
        raise UserError(
            "--attention_window 0 with --web, which enlarges in tiles: a tile does not know the "
            f"mean of the whole picture. Leave it out, for {TILED_WINDOW}."
        )
    model.attention_window = args.attention_window


if __name__ == "__main__":
    main()
