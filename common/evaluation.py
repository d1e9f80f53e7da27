"""A network over a benchmark, on all processes; what it scores and what it costs."""

import copy
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.data.layouts import picture_files
from common.data.patches import BenchmarkDataset
from common.device import evaluating, is_out_of_memory
from common.errors import UserError
from common.hub import load_model
from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_float, to_tensor
from common.metrics import Metric, psnr_y, score, ssim_y, to_uint8
from common.network import SuperResolutionModel
from common.terminal import printable


class Bicubic(nn.Module):
    """Baseline of every table: MATLAB's bicubic enlargement of the 8-bit image.

    `forward(lr)`: RGB (N, 3, h, w) in [0, 1] -> (N, 3, h * scale, w * scale).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        return imresize(lr.mul(255).round().to(torch.uint8), self.scale).float() / 255

    enlarge = forward  # the name that networks have for it


def load_subject(
    name: str, scale: int | None, device: torch.device, revision: str | None = None
) -> Bicubic | SuperResolutionModel:
    """Loads the model of that name, or `bicubic`, for a scale or, without one, its smallest."""
    if name == "bicubic":
        assert scale is not None  # as the options were checked
        return Bicubic(scale)
    model = load_model(name, revision, scale)
    return model.to(device).to(memory_format=torch.channels_last)


@evaluating()
def evaluate(
    model: Callable[[Tensor], Tensor],
    benchmark: BenchmarkDataset,
    device: torch.device,
    metrics: Sequence[Metric] = (psnr_y, ssim_y),
    on_image: Callable[[int, Tensor], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Super-resolves and scores every picture of a benchmark; the processes share the pictures.

    Args:
        model: Network in evaluation mode, or its `enlarge`, which bounds the memory: RGB in [0, 1],
            (1, 3, h, w) -> (1, 3, h * scale, w * scale).
        benchmark: Pictures to score.
        device: Device of the model.
        metrics: Metrics of `common.metrics`.
        on_image: Function that gets the number and the SR, uint8, (3, H, W), of each picture, in
            the process that made it. What it computes, it computes in the same precision.

    Returns:
        On every process the same: the scores of each picture and the `seconds` of its forward pass,
        by the name of the picture.

    Raises:
        UserError: The memory is too small for a picture.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    mine = range(state.process_index, len(benchmark), state.num_processes)
    results: dict[str, dict[str, float]] = {}
    hidden = None if state.is_main_process else True  # None: the bar is shown on a terminal only
    # (In the line of a training's bar: below it, each update would move the cursor by a new line.)
    for index in tqdm(mine, desc="Evaluating", leave=False, disable=hidden, position=0):
        name, lr, hr = benchmark[index]
        lr, hr = to_float(lr, device)[None], to_float(hr, device)
        try:
            if not results:  # the first pass loads kernels, which must not be timed
                model(lr[..., :256, :256])
            start = _now(device)
            sr = model(lr)[0]
            seconds = _now(device) - start
            results[name] = score(sr, hr, benchmark.scale, metrics) | {"seconds": seconds}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            height, width = hr.shape[1:]
            raise UserError(
                f"The memory is too small for {printable(name)}, {width}x{height}: "
                f"{f'{error}'[:200]} Compute on a CPU, by ACCELERATE_USE_CPU=true, or leave such "
                "pictures out."
            ) from None
        if on_image:
            on_image(index, to_uint8(sr))
    gathered = {name: result for part in gather_object([results]) for name, result in part.items()}
    return {name: gathered[name] for name in benchmark.pictures.names}


def picture_keys(names: Sequence[str]) -> list[str]:
    """Keys of pictures: their names without endings, if these tell them apart."""
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    return [
        stem if stems.count(stem) == 1 else name for stem, name in zip(stems, names, strict=True)
    ]


def find_results(folder: Path, keys: Sequence[str], scale: int) -> list[Path]:
    """Finds the pictures that any program made of a benchmark, by their names.

    `baby` is in `baby.png`, or in a file whose name goes on with the scale or a suffix: `babyx2`,
    `baby_x2`, `baby_SRCNN`.

    Raises:
        UserError: There is none for a key, or several; or no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. --sr_dir names that of the pictures.")
    made: dict[str, list[Path]] = {}
    for path in picture_files(folder):
        made.setdefault(printable(path.relative_to(folder).with_suffix("").as_posix()), []).append(
            path
        )
    found = []
    for key in keys:
        for pattern in ("", f"_?x{scale}", r"[_-].+"):
            paths = [
                path
                for name, candidates in made.items()
                if re.fullmatch(re.escape(key) + pattern, name) and name not in set(keys) - {key}
                for path in candidates
            ]
            if paths:
                break
        else:
            raise UserError(f"There is no {key}.png or {key}x{scale}.png in {folder}.")
        if len(paths) > 1:
            raise UserError(
                f"There are {' and '.join(map(str, paths[:2]))} for {key}. Which is to be scored? "
                "Move the others elsewhere."
            )
        found += paths
    return found


@evaluating()
def score_pictures(
    folder: Path, benchmark: BenchmarkDataset, metrics: Sequence[Metric]
) -> dict[str, dict[str, float]]:
    """Scores pictures that any program made, as `evaluate` scores those of a model.

    Raises:
        UserError: A picture is missing, cannot be read, or has another size than HR.
    """
    results = {}
    paths = find_results(folder, picture_keys(benchmark.pictures.names), benchmark.scale)
    for index, path in enumerate(paths):
        name, _, hr = benchmark[index]
        try:
            sr = to_tensor(read_rgb(path))
        except Exception as error:  # decoders raise errors of many kinds for a damaged file
            raise UserError(f"Cannot read {path}: {error}") from None
        if sr.shape != hr.shape:
            raise UserError(
                f"{path} is {sr.shape[2]}x{sr.shape[1]}; {name}, cropped to a multiple of "
                f"{benchmark.scale}, is {hr.shape[2]}x{hr.shape[1]}."
            )
        results[name] = score(sr / 255, hr / 255, benchmark.scale, metrics)
    return results


def mean_scores(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Means over the pictures of a benchmark, the figures that papers print."""
    keys = next(iter(results.values()))
    return {key: statistics.fmean(result[key] for result in results.values()) for key in keys}


def count_multiply_adds(model: SuperResolutionModel) -> int:
    """Multiply-adds of one forward pass with an output of 1280x720 pixels, as the SR papers count.

    Convolutions and linear layers count, at `model.scale`. Where the scale does not divide 1280,
    the count for the next smaller picture is extrapolated.
    """
    from torch.utils.flop_counter import FlopCounterMode

    height, width = 720 // model.scale, 1280 // model.scale
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta")(torch.empty(1, 3, height, width, device="meta"))
    flops = counter.get_total_flops() * (1280 * 720) / (height * width * model.scale**2)
    return round(flops / 2)


def _now(device: torch.device) -> float:
    """Seconds, read when the device has done all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
