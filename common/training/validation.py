"""Validation in float32 of the weights that count, and the model that is saved of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isnan
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from common.data.degradation import degradation_refused, without_folder
from common.data.patches import BenchmarkDataset
from common.device import evaluating
from common.evaluation import Bicubic, evaluate, mean_scores
from common.images.strip import Versions, make_strip
from common.images.tensors import to_float
from common.metrics import Metric, psnr_y, score, ssim_y
from common.network import WEIGHTS, SuperResolutionModel
from common.options import Arguments
from common.tables import format_score, plural, score_name
from common.training.average import WeightAverage
from common.training.run_card import RunCard
from common.training.together import Processes
from common.training.trackers import Trackers

# The first validation, where --validation_steps is larger: it shows that all works, and leaves a
# model. By default it comes together with the first line of the log.
FIRST_VALIDATION = 100
Rank = Callable[[Mapping[str, float]], float]
PSNR: Rank = itemgetter("psnr_y")


def float32_copy(network: SuperResolutionModel) -> SuperResolutionModel:
    """Makes a network of the same class, arguments, weights and memory format, on the same device.

    It is made anew: a copy by `copy.deepcopy` would carry autocast along, which Accelerate puts
    into `forward`.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):  # fresh weights must not shift the draws of the training
        made = type(network)(**network.arguments)
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    made.load_state_dict(tensors, assign=True)
    made.to(next(network.parameters()).device)  # buffers that no state dict has
    return made.eval().requires_grad_(False)


class Validator:
    """Scores the network on the validation pictures, and saves it.

    Attributes:
        average: Exponential moving average of the weights, or None without `--ema_decay`.
        scores: Scores of the last validation, and its `step`.
        best: Scores of the saved weights, and their `step`.
        bicubic: Scores of bicubic on the same pictures.
        has_validated: Whether this run has validated before, if on other pictures.
        keeps_best: Whether the best weights are saved, or those of the last validation.
        unsaved: Reason for each model folder that could not be written when last tried.
        card: Card of the run.
    """

    def __init__(
        self,
        args: Arguments,
        network: SuperResolutionModel,
        benchmarks: Sequence[BenchmarkDataset],
        processes: Processes,
        trackers: Trackers,
        trained_on: str,
        metrics: Sequence[Metric] = (),
        rank: Rank = PSNR,
    ) -> None:
        """
        Args:
            args: Options of the run.
            network: Network that is trained, without the wrappers of Accelerate, on the device.
            benchmarks: Validation pictures at each scale.
            processes: Processes of the run, which share the pictures.
            trackers: Trackers that show the first pictures.
            trained_on: Training pictures in words, for the card.
            metrics: Metrics besides PSNR and SSIM.
            rank: Function of the scores, whose greatest value the best weights have.

        Raises:
            UserError: A degradation of the user's own fails on the photograph of the card.
        """
        self._args, self._network, self._benchmarks = args, network, benchmarks
        self._processes, self._trackers = processes, trackers
        self._metrics, self._rank = (psnr_y, ssim_y, *metrics), rank
        scales = [benchmark.scale for benchmark in benchmarks]
        self.card = RunCard(args, scales, trained_on, benchmarks[0].lr)
        self._device = next(network.parameters()).device
        self._evaluated = float32_copy(network)
        self.average: WeightAverage | None = None
        if args.ema_decay:
            self.average = WeightAverage(self._evaluated, network, args.ema_decay)
            assert isinstance(self.average.module, SuperResolutionModel)  # a copy of the network
            self._evaluated = self.average.module
        self.scores: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.bicubic: dict[str, float] = {}
        self.has_validated = False
        self.keeps_best = True
        self.unsaved: dict[str, str] = {}

    @property
    def identity(self) -> list[object]:
        """Scales, pictures, degradation, own metrics: of what a checkpoint has scores."""
        scales = [benchmark.scale for benchmark in self._benchmarks]
        degradation = self._benchmarks[0].degradation
        pictures = self._benchmarks[0].pictures.checksum()
        own = [metric.__name__ for metric in self._metrics[2:]]
        return [
            scales,
            pictures,
            *([without_folder(degradation.name)] if degradation else []),
            *own,
        ]

    def is_due(self, step: int) -> bool:
        """Whether the options ask for a validation after this step."""
        every = self._args.validation_steps
        return step % every == 0 or step == FIRST_VALIDATION < every

    def update_average(self) -> None:
        """Takes the weights of a step into their average."""
        if self.average:
            self.average.update()

    def rehearse(self) -> None:
        """Enlarges and scores the largest picture: a validation hours later must not fail.

        Raises:
            UserError: The memory is too small for it, or the network fails at its size; or a
                degradation of the user's own fails.
        """
        self._update()
        sizes = self._benchmarks[0].pictures.sizes
        largest = int(sizes.prod(axis=1).argmax())

        with degradation_refused():
            pictures = [benchmark[largest] for benchmark in self._benchmarks]

        def enlarge_and_score() -> None:
            scores = {}
            for benchmark, (_, lr, hr) in zip(self._benchmarks, pictures, strict=True):
                self._evaluated.scale = benchmark.scale
                with evaluating():
                    sr = self._evaluated.enlarge(to_float(lr, self._device)[None])[0]
                    hr = to_float(hr, self._device)
                    scores[benchmark.scale] = {"": score(sr, hr, benchmark.scale, self._metrics)}
            self._rank(_means_of_scales(scores))

        if error := self._processes.error_of(enlarge_and_score):
            height, width = sizes[largest]
            self._processes.fail(
                f"Validation fails on {self._benchmarks[0].pictures.names[largest]}, "
                f"{width}x{height}: {error}. Name smaller pictures by --validation_data_dir."
            )

    @degradation_refused()
    def validate(self, step: int) -> dict[str, float]:
        """Scores the network, and saves it if it is the best yet.

        Returns:
            `psnr_y`, `ssim_y` and own metrics, means over the pictures; where there are several
            scales, also `psnr_y_x2` and so on.

        Raises:
            UserError: A degradation of the user's own has failed on a picture.
        """
        self._update()
        results = {}
        for benchmark in self._benchmarks:
            scale = self._evaluated.scale = benchmark.scale
            on_image = partial(self._show, step, benchmark)
            enlarge = self._evaluated.enlarge
            results[scale] = evaluate(
                enlarge, benchmark, self._device, self._metrics, on_image=on_image
            )
        if not self.bicubic:
            self.bicubic = _means_of_scales(
                {
                    benchmark.scale: evaluate(
                        Bicubic(benchmark.scale), benchmark, self._device, self._metrics
                    )
                    for benchmark in self._benchmarks
                }
            )
        values = _means_of_scales(results)
        self.scores, self.has_validated = values | {"step": step}, True
        if not self.keeps_best or not self.best or self._is_better(values):
            before, self.best = self.best, self.scores
            if not self._save(self._args.output_dir, self.result(), self.scores, step):
                self.best = before
        return values

    def _is_better(self, values: Mapping[str, float]) -> bool:
        best = self._rank(self.best)
        return isnan(best) or self._rank(values) > best

    def save_copy(self, name: str, step: int) -> None:
        """Saves the network of this step in a folder of its own within the output folder."""
        if not self.scores:  # those of the checkpoint are scores on other pictures
            self.validate(step)
        self._update()
        result = self._in_words("Validation", self.scores)
        self._save(self._args.output_dir / name, result, self.scores, step)

    def save_unvalidated(self, step: int) -> None:
        """Saves the network of a run that is stopped and has no model yet, without scores."""
        file = self._args.output_dir / WEIGHTS
        if self._processes.from_main(lambda: not (self.has_validated and file.exists())):
            self._update()
            when = "not validated there" if self.has_validated else "before the first validation"
            text = f"Stopped at step {step}, {when}."
            self._save(self._args.output_dir, text, {}, step)

    def result(self) -> str:
        """Scores of the saved weights in words."""
        if not self.best:
            return "Not validated yet."
        return self._in_words("Best validation" if self.keeps_best else "Validation", self.best)

    def _update(self) -> None:
        """Makes the evaluated copy equal to the network, on all processes."""
        if not self.average:
            self._evaluated.load_state_dict(self._network.state_dict())
        for buffer in self._evaluated.buffers():
            self._processes.broadcast(buffer)  # batch statistics: each process saw other patches

    def _show(self, step: int, benchmark: BenchmarkDataset, index: int, sr: Tensor) -> None:
        """Puts one of the first pictures into the trackers, beside bicubic and the original."""
        if self._trackers.shows(index):
            name, lr, hr = benchmark[index]
            versions = Versions.of(lr, [(type(self._network).__name__, sr.cpu())], hr)
            self._trackers.show(f"{name} x{benchmark.scale}", make_strip(versions), step)

    def _save(self, folder: Path, result: str, scores: Mapping[str, float], step: int) -> bool:
        """Writes a model folder; where it cannot, all processes know, and training goes on."""
        error = self._processes.error_of(lambda: self._write(folder, result, scores))
        self.unsaved.pop(f"the model in {folder}", None)
        if error:
            self.unsaved[f"the model in {folder}"] = error
            self._processes.warn(f"The model of step {step} could not be saved: {error}.")
        return not error

    def _write(self, folder: Path, result: str, scores: Mapping[str, float]) -> None:
        if not self._processes.is_main:
            return
        self._evaluated.save(folder)
        by_scale = {
            benchmark.scale: {
                metric.__name__: scores[f"{metric.__name__}{self._end(benchmark)}"]
                for metric in self._metrics
            }
            for benchmark in (self._benchmarks if scores else ())
        }
        self.card.write(folder, self._evaluated, result, by_scale)

    def _end(self, benchmark: BenchmarkDataset) -> str:
        """End of the names of the scores at one scale, where there are several."""
        return f"_x{benchmark.scale}" if len(self._benchmarks) > 1 else ""

    def _in_words(self, kind: str, scores: Mapping[str, float]) -> str:
        results = []
        keys = [metric.__name__ for metric in self._metrics]
        for benchmark in self._benchmarks:
            end = self._end(benchmark)
            ours, bicubic = (
                [format_score(key, values[f"{key}{end}"]) + _unit(key) for key in keys]
                for values in (scores, self.bicubic)
            )
            named = [f"{score_name(key)} {value}" for key, value in zip(keys, ours, strict=True)]
            name = f"x{benchmark.scale}: " if end else ""
            results.append(f"{name}{', '.join(named)} (bicubic: {', '.join(bicubic)})")
        pictures = plural(len(self._benchmarks[0]), "picture")
        text = f"{kind}, at step {scores['step']}, on {pictures}: {'; '.join(results)}."
        if self.keeps_best and len(self._benchmarks[0]) == 1:
            text += " One picture is too few to tell which step is the best."
        return text


def _unit(key: str) -> str:
    return " dB" if key.startswith("psnr") else ""


def _means_of_scales(results: dict[int, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Scores over the pictures of each scale; where there are several, also of each."""
    scores = {scale: mean_scores(pictures) for scale, pictures in results.items()}
    values = {}
    for key in next(iter(scores.values())):
        if key == "seconds":
            continue
        values[key] = statistics.fmean(means[key] for means in scores.values())
        if len(scores) > 1:
            values |= {f"{key}_x{scale}": means[key] for scale, means in scores.items()}
    return values
