"""The books of one training run: all that is the same in all scripts and teaches nobody anything.

The script drives, `Run` keeps the books and never calls back:

    run = Run(args)                       # checks all that can be checked
    run.initialize(model)                 # before `accelerator.prepare`; decodes the pictures
    run.resume()                          # after it
    for lr, hr in run.batches():
        ...
        run.end_step(loss=loss)           # counts; logs, validates and saves when due
    run.finish()
"""

import argparse
import copy
import json
import os
import shlex
import shutil
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    broadcast,
    broadcast_object_list,
    gather_object,
    set_seed,
)
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, default_convert
from tqdm import tqdm

from common.arguments import check_arguments
from common.card import CARD, model_card
from common.checkpoint import (
    RECORD,
    allow_differences,
    check_recipe,
    choose_checkpoint,
    claim_folder,
    delete_oldest,
    list_checkpoints,
    seal,
)
from common.comparison import comparison
from common.data import BenchmarkDataset, PatchDataset, to_float
from common.errors import UserError
from common.files import checksum, replace_file
from common.hub import (
    WEIGHTS,
    SuperResolutionModel,
    check_token,
    load_matching,
    push_model,
)
from common.loading import PictureLoader
from common.machine import hardware, set_up_cpu, versions
from common.metrics import PROTOCOL, evaluate, mean_scores
from common.resize import Bicubic
from common.stop import StopRequest, ignore_signals
from common.stream import Part, PictureStream, Position


class Run:
    """One training run and its output folder.

    Attributes:
        accelerator: Accelerate's, for the script's own verbs.
        step: Optimizer steps done.
        total_steps: Optimizer steps of the whole run.
        scales: That the network is trained for.
        keeps_best: Whether `model.safetensors` is the best on validation, or the latest.
        patches: The training patches, or the stream that they come from.
        validation: The validation pictures, at each scale.
        trained_before: Whether `--init_from` holds just this network, so that all of it is trained.
    """

    def __init__(self, args: argparse.Namespace, total_steps: int | None = None) -> None:
        """Checks the command line, claims the output folder and seeds.

        Args:
            args: The command line.
            total_steps: Of a run in phases, all of them. Default: `--max_train_steps`.

        Raises:
            UserError: For whatever can be wrong with the command line or the folder.
        """
        self.args = args
        self.total_steps = args.max_train_steps if total_steps is None else total_steps
        if self.total_steps < 1:
            raise UserError(f"--max_train_steps {self.total_steps} is not at least 1.")
        self.keeps_best = True
        self.scales = args.scale if isinstance(args.scale, list) else [args.scale]
        if args.train_data_dir:
            args.dataset_name = None  # so that no record names a data set that was not used
        check_arguments(args, self.scales)
        self.accelerator = Accelerator(
            mixed_precision=args.mixed_precision,
            log_with=None if args.report_to == "none" else args.report_to,
            project_dir=args.output_dir,
            dynamo_backend="inductor" if args.compile else None,
            # (Its plain argument would give way to an environment variable.)
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=args.gradient_accumulation_steps
            ),
            # --batch_size counts the patches of all processes; so does a step of the scheduler.
            dataloader_config=DataLoaderConfiguration(split_batches=True),
            # Batch normalization's statistics are broadcast when they are used, not every step.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self._check_processes()
        self._checkpoint, self._differences = self._claim_output()
        set_seed(args.seed)
        set_up_cpu(args.cpu_threads)

        self.step = 0
        self._scores: dict[str, float] = {}  # of the last validation, and its step
        self.best: dict[str, float] = {}  # those of the saved weights
        self._bicubic: dict[str, float] = {}  # what bicubic scores on the same pictures
        self._latest: dict[str, float] = {}  # logged values, for the progress bar
        self._sums: dict[str, Tensor] = {}  # of the losses since the last log, on the device
        self._sums_of_all: list[dict[str, Tensor]] = []  # of all processes, for the checkpoint
        self._count = 0  # of the terms in each
        self._metrics_file = args.output_dir / "metrics.jsonl"
        self._unwritten: list[str] = []  # lines of metrics.jsonl that found no room
        self._positions: dict[int, Position] = {}  # in a stream, by the steps that begin there
        self._unsaved: dict[str, str] = {}  # what could not be saved when last tried, and why
        self.accelerator.register_for_checkpointing(self)

    # ------------------------------------------------------------------------------------ beginning

    def initialize(self, model: SuperResolutionModel) -> None:
        """Takes the network that the run trains, before `accelerator.prepare`.

        Copies the weights of `--init_from` into it, and keeps a copy outside of DDP, autocast and
        compilation, which validation and saving use: the average of the weights, or the latest.
        Decodes the pictures.

        Raises:
            UserError: For whatever can be wrong with those weights or the data.
        """
        self.trained_before = False
        if self.args.init_from:
            self.trained_before, message = load_matching(
                model, self.args.init_from, self.args.revision
            )
            self.print(message)
        self._loader = PictureLoader(self.args, self.scales, self.print)
        self.patches, self.validation = self._loader.load()
        self._model = model
        self._average: AveragedModel | None = None
        if self.args.ema_decay:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.args.ema_decay))
            average.module.to(self.accelerator.device)
            self.accelerator.register_for_checkpointing(average)
            assert isinstance(average.module, SuperResolutionModel)  # a copy of the model
            self._average = average
            self._evaluated = average.module
        else:
            self._evaluated = copy.deepcopy(model).to(self.accelerator.device)
        self._evaluated.eval().requires_grad_(False)

    def resume(self) -> None:
        """Loads the checkpoint, if one was asked for and found, and prints what is to happen.

        From here on, a signal to stop ends the run after the step, with a checkpoint.

        Raises:
            UserError: The checkpoint is of other pictures or of another network.
        """
        args = self.args
        self._stop = StopRequest()
        if self._checkpoint:
            self._load_checkpoint(self._checkpoint)
            self.print(f"Resuming from {self._checkpoint}.")
            if self._differences:
                self.print(
                    f"The recipe changes at step {self.step}: {'; '.join(self._differences)}."
                )
        elif args.resume_from_checkpoint:
            self.print(
                f"There is no checkpoint in {args.output_dir} yet: starting from the beginning."
            )
        if error := self._error_of(self._begin_records):
            self._fail(f"Cannot write to --output_dir {args.output_dir}: {error}.")
        if args.report_to == "tensorboard":
            # Hides what an interrupted run logged after the checkpoint.
            options = {"tensorboard": {"purge_step": self.step + 1}}
            self.accelerator.init_trackers("tensorboard", init_kwargs=options)
        self._print_banner()
        self._bar = tqdm(
            initial=self.step,
            total=self.total_steps,
            desc="Training",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )

    # ------------------------------------------------------------------------------------- training

    def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the steps that are left: LR and HR, RGB in [0, 1], on the device.

        Step `s` of a batch size `B` takes the patches s * B to s * B + B - 1. They come in
        `--gradient_accumulation_steps` parts, one after the other, and of each part every process
        takes an equal share in the order of the ranks.

        Args:
            until: The step that ends this phase. Default: the last.
        """
        self._end = self.total_steps if until is None else until
        batch_size, index = self.args.batch_size, self.accelerator.process_index
        parts = self.args.gradient_accumulation_steps
        share = batch_size // parts // self.accelerator.num_processes
        self._model.train()
        for patches, steps in self._patches_of_steps():
            starts = (
                part * (batch_size // parts) + index * share
                for part in range(steps.start * parts, steps.stop * parts)
            )
            # Any: PyTorch asks for lists here, but takes ranges as well.
            numbers: Iterator[Any] = (range(start, start + share) for start in starts)
            loader = DataLoader(
                patches,
                batch_sampler=numbers,
                num_workers=self.args.num_workers,
                collate_fn=default_convert,  # the data set makes whole batches
                generator=torch.Generator(),  # else it would draw from the one resuming restores
                pin_memory=self.accelerator.device.type == "cuda",
                worker_init_fn=ignore_signals,
            )
            for lr, hr in loader:
                yield to_float(lr, self.accelerator.device), to_float(hr, self.accelerator.device)

    def _patches_of_steps(self) -> Iterator[tuple[PatchDataset, range]]:
        """What to train on in which of the steps that are left: of a stream, part by part."""
        stream, args = self.patches, self.args
        if isinstance(stream, PatchDataset):
            yield stream, range(self.step, self._end)
            return
        if self.step >= self._end:  # without a process that would read for nothing
            return
        length = max(1, args.streaming_images * args.patches_per_image // args.batch_size)
        first = self.step // length * length
        stream.count = -(-(self._end - first) // length)
        if self._positions:  # of another recipe, if the step is none of them: then the newest
            stream.begin = self._positions.get(first, self._positions[max(self._positions)])
        begin = stream.begin
        for start, part in zip(count(first, length), stream.parts(), strict=False):
            patches, error = None, part if isinstance(part, str) else ""
            try:
                if isinstance(part, Part):
                    self._loader.report_errors(part.pictures, part.errors)
                    patches = self._loader.patches_of(part.pictures)
            except UserError as unusable:
                error = f"{unusable}"
            # All processes have the part; so none still has to open the one before it.
            if error := next(filter(None, gather_object([error])), ""):
                if self.step and not (args.output_dir / f"checkpoint-{self.step}").exists():
                    self._save_checkpoint(stops=True)
                self._fail(
                    f"Cannot go on in the stream of {args.dataset_name} after step {self.step}: "
                    f"{error} Try again with --resume_from_checkpoint latest."
                )
            assert isinstance(part, Part)
            assert patches
            if start - length in self._positions and self.accelerator.is_local_main_process:
                stream.delete(self._positions[start - length])
            self._positions = {start: begin, start + length: part.end}
            begin = part.end
            yield patches, range(self.step, min(start + length, self._end))

    def end_step(self, **values: Tensor | float) -> None:
        """Counts an optimizer step, averages the weights, and logs, validates and saves when due.

        To be called after each part of a batch; all but the last part's values are only collected.

        Args:
            **values: What to log: of scalar tensors the mean since the last log, of numbers the
                latest. A tensor is not read before it is logged, so no step waits for the device.

        Raises:
            UserError: The training diverged.
            SystemExit: Somebody asked the run to stop: 128 and the number of the signal.
        """
        args = self.args
        self._count += 1
        for name, value in values.items():
            if isinstance(value, Tensor):
                self._sums[name] = self._sums.get(name, 0.0) + value.detach().float()
        if not self.accelerator.sync_gradients:
            return
        self.step += 1
        if self._average:
            self._average.update_parameters(self._model)
        self._bar.update()

        done = self.step == self._end
        logs = self.step % args.logging_steps == 0 or done
        validates = self.step % args.validation_steps == 0 or done
        stop = self._stop.after_step()
        saves = self.step % args.checkpointing_steps == 0 or done or stop
        if logs or validates or saves:
            means = self._means()
        if logs:
            numbers = {
                name: value for name, value in values.items() if not isinstance(value, Tensor)
            }
            self._log(means | numbers)
            self._sums, self._count = {}, 0
        if validates:
            self._validate()
        if saves:
            self._save_checkpoint(stops=bool(stop))
        if stop and self.step < self.total_steps:
            self._end_early(stop)

    def save_copy(self, name: str) -> None:
        """Saves the network as it was just validated in a folder of its own in the output's."""
        self._update_evaluated()
        self._save_model(self.args.output_dir / name, self._result("Validation", self._scores))

    def finish(self) -> None:
        """Says where the result is.

        Raises:
            UserError: The last state of the training, or its result, could not be saved.
        """
        self._close()
        if self._unsaved:
            failures = "; ".join(f"{name} ({error})" for name, error in self._unsaved.items())
            self._fail(
                f"All steps are done, but this could not be saved in {self.args.output_dir}: "
                f"{failures}. Make room there and repeat the command with "
                "--resume_from_checkpoint latest."
            )
        if isinstance(self.patches, PictureStream):
            shutil.rmtree(self.patches.folder, ignore_errors=True)
        if not (self.args.output_dir / WEIGHTS).exists():
            self._fail(
                f"All steps are done, but there is no {WEIGHTS} in {self.args.output_dir}: "
                "somebody has taken it away. The weights of the last step are in the checkpoint."
            )
        self.print(
            f"{self._result_of_saved()}\nThe model is in {self.args.output_dir}. Evaluate it with"
        )
        self.print(f"    python evaluate.py --model {self.args.output_dir}")
        if self.args.push_to_hub and self.accelerator.is_main_process:
            name = self.args.hub_model_id or self.args.output_dir.resolve().name
            url = push_model(self.args.output_dir, name, self.args.hub_private)
            self.print(f"It is on the Hub now: {url}")

    def print(self, text: str) -> None:
        """Prints once, above the progress bar."""
        if self.accelerator.is_main_process:
            tqdm.write(text)
            sys.stdout.flush()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of the books."""
        return {
            "step": self.step,
            "scores": self._scores,
            "best": self.best,
            "bicubic": self._bicubic,
            "sums": self._sums_of_all,
            "count": self._count,
            "validation": [self.scales, self.validation[0].pictures.checksum()],
            "positions": self._positions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self._count = state["step"], state["count"]
        self._scores, self.best = state["scores"], state["best"]
        self._bicubic, self._positions = state["bicubic"], state.get("positions", {})
        if state["validation"] != [self.scales, self.validation[0].pictures.checksum()]:
            self.best, self._bicubic = {}, {}  # which are of other pictures
        sums = state["sums"]
        if len(sums) == self.accelerator.num_processes:
            sums = sums[self.accelerator.process_index]
        else:  # of other processes: each takes the mean
            sums = {key: torch.stack([part[key] for part in sums]).mean(0) for key in sums[0]}
        self._sums = {key: value.to(self.accelerator.device) for key, value in sums.items()}

    # ------------------------------------------------------------------------------------ when due

    def _means(self) -> dict[str, float]:
        """Means of the losses since the last log, over all processes. Waits for the device.

        Raises:
            UserError: One of them is not finite.
        """
        means = {
            name: self.accelerator.reduce(total, "mean").item() / self._count
            for name, total in self._sums.items()
        }
        bad = [f"{name} is {value}" for name, value in means.items() if not isfinite(value)]
        finite = torch.stack([weights.isfinite().all() for weights in self._model.parameters()])
        if not finite.all():
            bad.append("there are weights that are not finite")
        if bad:
            self._fail(
                f"Training diverged before step {self.step}: {', '.join(bad)}. Try a smaller "
                f"--learning_rate or --lr_warmup_steps, and bf16 or no --mixed_precision instead "
                f"of fp16. If the latest checkpoint diverges again, resume from an older one."
            )
        return means

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self._unwritten.append(json.dumps({"step": self.step, **values}) + "\n")
            try:
                self._write_metrics()
            except OSError as error:
                self._warn(
                    f"metrics.jsonl cannot be written ({error}). Its lines are kept for later."
                )
            self._latest |= values
            shown: dict[str, str] = {
                key: f"{self._latest[key]:.4g}" for key in ("loss", "psnr_y") if key in self._latest
            }
            self._bar.set_postfix(shown)
        with self._tensorboard():
            self.accelerator.log(values, step=self.step)

    def _write_metrics(self) -> None:
        """Appends to metrics.jsonl the lines that are not in it yet: all of them, or none.

        Raises:
            OSError: There is no room, for example.
        """
        lines = "".join(self._unwritten).encode()
        with open(self._metrics_file, "ab", buffering=0) as file:
            end = file.tell()
            try:
                while lines:
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        self._unwritten = []

    @contextmanager
    def _tensorboard(self) -> Iterator[None]:
        """Goes on without TensorBoard once its file cannot be written."""
        try:
            yield
        except OSError as error:
            self.accelerator.trackers = []
            self._warn(
                f"TensorBoard's log cannot be written ({error}) and ends at step {self.step}. "
                "metrics.jsonl tells the same."
            )

    def _validate(self) -> None:
        """Scores the validation pictures in float32 and saves the weights if the best yet."""
        device = self.accelerator.device
        self._update_evaluated()
        scores = {}
        for benchmark in self.validation:
            scale = self._evaluated.scale = benchmark.scale
            on_image = partial(self._show_picture, benchmark)
            scores[scale] = evaluate(self._evaluated, benchmark, device, on_image=on_image)
        if not self._bicubic:
            self._bicubic = _mean_scores(
                {
                    benchmark.scale: evaluate(Bicubic(benchmark.scale), benchmark, device)
                    for benchmark in self.validation
                }
            )
        values = _mean_scores(scores)
        self._scores = values | {"step": self.step}
        if not self.keeps_best or not self.best or values["psnr_y"] > self.best["psnr_y"]:
            before, self.best = self.best, self._scores
            if not self._save_model(self.args.output_dir, self._result_of_saved()):
                self.best = before
        self._log(values)

    def _update_evaluated(self) -> None:
        """Makes the copy that is validated and saved the same as the network, on all processes."""
        if not self._average:
            self._evaluated.load_state_dict(self._model.state_dict())
        for buffer in self._evaluated.buffers():
            broadcast(buffer)  # each process has seen other patches

    def _show_picture(self, benchmark: BenchmarkDataset, index: int, sr: Tensor) -> None:
        """Puts the first validation pictures into TensorBoard, beside bicubic and the original."""
        if self.accelerator.is_main_process and index < 3 and self.accelerator.trackers:
            name, lr, hr = benchmark[index]
            strip = np.asarray(comparison(lr, [(type(self._model).__name__, sr.cpu())], hr))
            tracker = self.accelerator.get_tracker("tensorboard")
            tag = f"{name} x{benchmark.scale}"
            with self._tensorboard():
                tracker.log_images({tag: strip[None]}, self.step, dataformats="NHWC")

    def _save_model(self, folder: Path, result: str) -> bool:
        """Writes the model and its card, or says why it could not, and that it could not."""
        error = self._error_of(lambda: self._write_model(folder, result))
        self._unsaved.pop(f"the model in {folder}", None)
        if error:
            self._unsaved[f"the model in {folder}"] = error
            self._warn(f"The model of step {self.step} could not be saved: {error}.")
        return not error

    def _write_model(self, folder: Path, result: str) -> None:
        if not self.accelerator.is_main_process:
            return
        self._evaluated.save(folder)
        name = self.args.dataset_name
        # A card is for strangers: paths of this machine by their last name alone.
        recipe = []
        for key, value in vars(self.args).items():
            words = [
                _last_name(f"{word}") for word in (value if isinstance(value, list) else [value])
            ]
            if value is not None and words:
                recipe.append(f"- `{key}`: {' '.join(words)}")
        command = shlex.join(map(_last_name, shlex.split(_command())))
        card = model_card(
            self._evaluated,
            f"\n## Results\n\n{result}\n\nProtocol: {PROTOCOL}.\n\n"
            f"## Training\n\n    {command}\n\n"
            f"on {self._pictures_in_words()}, with\n\n" + "\n".join(recipe) + "\n",
            {key: value for key, value in self._scores.items() if key != "step"},
            name if name and name != "sample" and not Path(name).is_dir() else None,
        )
        replace_file(folder / CARD, card.encode())

    def _result_of_saved(self) -> str:
        if not self.best:
            return "Not validated yet."
        return self._result("Best validation" if self.keeps_best else "Validation", self.best)

    def _result(self, kind: str, ours: dict[str, float]) -> str:
        pictures = f"{len(self.validation[0])} picture" + "s" * (len(self.validation[0]) > 1)
        results = []
        for scale in self.scales:
            end, name = (f"_x{scale}", f"x{scale}: ") if len(self.scales) > 1 else ("", "")
            psnr, ssim, bicubic_psnr, bicubic_ssim = (
                scores[key + end]
                for scores in (ours, self._bicubic)
                for key in ("psnr_y", "ssim_y")
            )
            results.append(
                f"{name}PSNR-Y {psnr:.2f} dB, SSIM-Y {ssim:.4f} "
                f"(bicubic: {bicubic_psnr:.2f} dB, {bicubic_ssim:.4f})"
            )
        return f"{kind}, at step {ours['step']}, on {pictures}: {'; '.join(results)}."

    def _save_checkpoint(self, stops: bool) -> None:
        """Writes `checkpoint-{step}`; where it cannot, all processes know, and training goes on."""
        args, folder = self.args, self.args.output_dir / f"checkpoint-{self.step}"
        partial = folder.with_name(f"{folder.name}.partial")
        sums = {name: total.cpu() for name, total in self._sums.items()}
        self._sums_of_all = gather_object([sums])
        self._unsaved.pop("the checkpoint", None)
        done = self.step == self.total_steps
        # A run that lacks its model must not look done: resumed, it makes it again.
        error = next(iter(self._unsaved.values()), "") if done else ""
        error = error or self._error_of(lambda: self.accelerator.save_state(str(partial)))
        error = error or self._error_of(lambda: self._seal_checkpoint(partial))
        if error:
            self._unsaved["the checkpoint"] = error
        if error and self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            older = [path.name for path in list_checkpoints(args.output_dir)]
            space = shutil.disk_usage(args.output_dir).free / 1e6
            again = (self.step // args.checkpointing_steps + 1) * args.checkpointing_steps
            again = min(again, self.total_steps)
            self._warn(
                f"{folder.name} could not be saved: {error} ({space:.1f} MB are free). The latest "
                f"checkpoint is {older[-1] if older else 'none'}."
                + f" Training goes on, to try again at step {again}."
                * (self.step < again and not stops)
            )

    def _seal_checkpoint(self, partial: Path) -> None:
        """Makes the checkpoint that all processes have written a whole one, on the main process."""
        if self.accelerator.is_main_process:
            self._write_metrics()  # which must not be behind the checkpoint
            seal(partial, {"args": vars(self.args), "pictures": self._fingerprint()})
            delete_oldest(partial.parent, self.args.checkpoints_total_limit)

    def _error_of(self, action: Callable[[], object]) -> str:
        """Acts on all processes, and tells all of them the first error of any, or nothing.

        Else the others would wait for the one with the error. Python, PyTorch and Rust each have
        kinds of their own for a disk that is full.
        """
        error = ""
        try:
            action()
        except Exception as exception:
            error = " ".join(str(exception).split())[:300]
            if "inline_container" in error:  # PyTorch's word for it
                error = "a file could not be written"
            elif not isinstance(exception, OSError):
                error = f"{type(exception).__name__}: {error}"
        return next(filter(None, gather_object([error])), "")

    def _end_early(self, stop: signal.Signals) -> NoReturn:
        self._close()
        if error := self._unsaved.get("the checkpoint"):
            self._fail(
                f"{stop.name}: stopped at step {self.step}, which could not be saved: {error}. "
                "--resume_from_checkpoint latest goes on from the latest checkpoint."
            )
        self.print(
            f"{stop.name}: stopped at step {self.step} of {self.total_steps}, which is saved. "
            "Go on by the same command with --resume_from_checkpoint latest."
        )
        raise SystemExit(128 + stop)

    def _close(self) -> None:
        self._bar.close()
        self._stop.close()
        with self._tensorboard():
            for tracker in self.accelerator.trackers:
                tracker.finish()
        self.accelerator.trackers = []
        self.accelerator.end_training()

    def _warn(self, text: str) -> None:
        self.print(f"Warning: {text}")

    def _fail(self, message: str) -> NoReturn:
        """Ends all processes, which must all call it; the message is printed once."""
        raise UserError(message) if self.accelerator.is_main_process else SystemExit(1)

    # --------------------------------------------------------------------------------- at the start

    def _check_processes(self) -> None:
        batch_size, processes = self.args.batch_size, self.accelerator.num_processes
        parts = self.args.gradient_accumulation_steps
        if batch_size % (processes * parts):
            divisor = processes * parts
            share = [f"is that of all {processes} processes together"] * (processes > 1)
            share += [f"comes in --gradient_accumulation_steps {parts} parts"] * (parts > 1)
            raise UserError(
                f"--batch_size {batch_size} {', '.join(share)} and must be a multiple of "
                f"{divisor}, for example {-(-batch_size // divisor) * divisor}."
            )
        if self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "fp16":
            raise UserError(
                "fp16 does not work on a CPU. Use --mixed_precision bf16, or no mixed precision."
            )

    def _claim_output(self) -> tuple[Path | None, list[str]]:
        """Takes the output folder. All processes go by what the main one finds there.

        Returns:
            The checkpoint to go on from, and in what the recipe differs from its.
        """
        args, wanted = self.args, self.args.resume_from_checkpoint
        found: list[Any] = [None, [], ""]
        if self.accelerator.is_main_process:
            try:
                if args.push_to_hub:
                    check_token()
                self._lock = claim_folder(args.output_dir, wanted)
                if wanted:
                    found[0], notes = choose_checkpoint(args.output_dir, wanted)
                    for note in notes:
                        self._warn(note)
                if found[0]:
                    found[1] = check_recipe(args, found[0])
            except (UserError, OSError) as error:
                found[2] = str(error)
        checkpoint, differences, message = broadcast_object_list(found)
        if message:
            self._fail(message)
        folder = checkpoint or args.output_dir
        if not all(gather_object([folder.is_dir()])):
            self._fail(
                f"{folder} is on the disk of the first machine only. Name an --output_dir that all "
                "machines see."
            )
        return checkpoint, differences

    def _load_checkpoint(self, checkpoint: Path) -> None:
        """Takes over the state, but of a recipe that was changed the new settings.

        Raises:
            UserError: The checkpoint is of other pictures or of another network.
        """
        accelerator = self.accelerator
        before = json.loads((checkpoint / RECORD).read_text())["pictures"]
        number, names = self._fingerprint()
        pictures = []
        if isinstance(self.patches, PictureStream):
            if before[1] != names:
                pictures = ["the data set is another, or its --dataset_revision"]
        elif before[0] != number:
            pictures = [f"there were {before[0]} training pictures and are {number}"]
        elif before[1] != names:
            pictures = ["the names or sizes of the training pictures are others"]
        self._differences += allow_differences(pictures, self.args, checkpoint)
        fresh = [
            [{key: value for key, value in group.items() if key != "params"} for group in groups]
            for groups in (optimizer.param_groups for optimizer in accelerator._optimizers)
        ]
        scaler = accelerator.scaler
        if not (checkpoint / "scaler.pt").exists():  # it was not trained in fp16
            accelerator.scaler = None
        if error := self._error_of(lambda: accelerator.load_state(str(checkpoint))):
            self._fail(
                f"{checkpoint} is of another network, optimizer or --ema_decay than this command, "
                f"and cannot be gone on from; --init_from may do. ({error})"
            )
        if checkpoint.parent.resolve() != self.args.output_dir.resolve():
            self.best = {}  # the weights that scored it are in the other folder
        if self.step > self.total_steps:
            self._fail(
                f"{checkpoint} is later than the {self.total_steps} steps of this command. Give a "
                "larger --max_train_steps, or go on elsewhere from an earlier one."
            )
        accelerator.scaler = scaler
        accelerator.step = 0  # of the parts of a batch, which may be others now
        if self._differences:  # the rates and so on of the command, not those of the checkpoint
            for optimizer, settings in zip(accelerator._optimizers, fresh, strict=True):
                for group, new in zip(optimizer.param_groups, settings, strict=True):
                    group.update(new)
            for scheduler in (prepared.scheduler for prepared in accelerator._schedulers):
                scheduler.base_lrs = [g["initial_lr"] for g in scheduler.optimizer.param_groups]
                scheduler.last_epoch -= 1
                scheduler.step()

    def _fingerprint(self) -> tuple[int, str]:
        """What tells the training pictures from others."""
        if isinstance(self.patches, PictureStream):
            return self.patches.part_size, checksum(self.patches.identity)[:8]
        return len(self.patches.pictures), self.patches.pictures.checksum()

    def _begin_records(self) -> None:
        """Writes args.json, and takes out of metrics.jsonl what is later than the checkpoint."""
        if not self.accelerator.is_main_process:
            return
        if self.step < self.total_steps:  # else nothing is trained by this command
            record = {"command": _command(), "args": vars(self.args), **versions()}
            record["hardware"] = hardware(self.accelerator.device, self.accelerator.num_processes)
            content = json.dumps(record, indent=2, default=str) + "\n"
            replace_file(self.args.output_dir / RECORD, content.encode())
        if self._metrics_file.exists():
            lines = self._metrics_file.read_text().splitlines(keepends=True)
            kept = [
                line
                for line in lines
                if line.endswith("\n") and json.loads(line)["step"] <= self.step
            ]
            replace_file(self._metrics_file, "".join(kept).encode())

    def _pictures_in_words(self) -> str:
        source = _last_name(f"{self.args.train_data_dir or self.args.dataset_name}")
        if isinstance(self.patches, PictureStream):
            return f"the stream of {source}, {self.patches.part_size} pictures at a time"
        return f"{len(self.patches.pictures)} pictures of {source}"

    def _print_banner(self) -> None:
        args, accelerator = self.args, self.accelerator
        if isinstance(self.patches, PictureStream):
            pictures = f"a stream, {self.patches.part_size} to train on at a time"
        else:
            megapixels = self.patches.pictures.sizes.prod(axis=1).sum() / 1e6
            pictures = f"{len(self.patches.pictures)} to train on ({megapixels:.1f} megapixels)"
        device = accelerator.device.type
        if device == "cuda":
            device = torch.cuda.get_device_name(accelerator.device)
        elif device == "cpu":
            threads = torch.get_num_threads()
            device = f"CPU, {threads} thread" + "s" * (threads > 1)
        lr_sizes = [
            f"{args.patch_size // scale}x{args.patch_size // scale}" for scale in self.scales
        ]
        precision = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
        rows = {
            "Network": f"{type(self._model).__name__} {' '.join(f'x{s}' for s in self.scales)}, "
            f"{sum(parameter.numel() for parameter in self._model.parameters()):,} parameters",
            "Pictures": f"{pictures}, {len(self.validation[0])} to validate on",
            "Patches": f"LR {' or '.join(lr_sizes)}, HR {args.patch_size}x{args.patch_size}",
            "Batch": f"{args.batch_size} patches"
            + f" in {args.gradient_accumulation_steps} parts"
            * (args.gradient_accumulation_steps > 1)
            + (f" over {accelerator.num_processes} processes" * (accelerator.num_processes > 1)),
            "Steps": f"{self.step:,} to {self.total_steps:,}",
            "Device": f"{device}, {precision}" + ", compiled" * args.compile,
            "Output": f"{args.output_dir}",
        }
        self.print("\n".join(f"{key:>10}: {value}" for key, value in rows.items()))


def _mean_scores(results: dict[int, dict[str, dict[str, float]]]) -> dict[str, float]:
    """PSNR and SSIM over the pictures of each scale; where there are several, also of each."""
    scores = {scale: mean_scores(pictures) for scale, pictures in results.items()}
    values = {}
    for key in ("psnr_y", "ssim_y"):
        values[key] = statistics.fmean(means[key] for means in scores.values())
        if len(scores) > 1:
            values |= {f"{key}_x{scale}": means[key] for scale, means in scores.items()}
    return values


def _last_name(word: str) -> str:
    """A word without the folders of a path in it."""
    option, equals, value = word.rpartition("=")
    path = Path(value)
    return f"{option}{equals}{path.name}" if path.is_absolute() or ".." in path.parts else word


def _command() -> str:
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
