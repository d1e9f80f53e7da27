"""Bookkeeping of a training run, shared by all scripts: folder, batches, logs, checkpoints, end.

The script drives; `Run` conducts the parts of this folder and never calls back:

    run = Run(args)                                    # checks the options, claims --output_dir
    ...
    run.begin(model, pictures, [optimizer], [scheduler])   # with the prepared model; or resumes
    for lr, hr in run.batches():
        ...
        run.end_step(loss=loss)                        # counts; logs, validates, saves when due
    run.finish()
"""

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from torch import Tensor, nn

from common.data.load import TrainingPictures
from common.data.stream import PatchStream, StreamError
from common.data.waiting import WorkerError
from common.errors import UserError
from common.hub import find_network
from common.machine import set_up_cpu
from common.metrics import Metric, check_names
from common.network import WEIGHTS
from common.options import Arguments
from common.training.banner import banner
from common.training.ending import done_but_unsaved, ending, stopped_and_saved, write_curves
from common.training.feed import feed
from common.training.folder import claim_together, way_on
from common.training.guard import StepGuard, skipped_in_words
from common.training.length import Stopwatch, set_length
from common.training.log import Log, RunningMeans
from common.training.parts import AUTO, find_parts
from common.training.push import Push
from common.training.recipe import keep_origin, write_record
from common.training.state import Checkpoints, RunState
from common.training.stop import StopRequest
from common.training.together import Processes, check_processes, make_accelerator, unwrap
from common.training.trackers import Trackers
from common.training.validation import PSNR, Rank, Validator


class Run:
    """One training run and its output folder.

    Attributes:
        accelerator: Accelerate's, for the script's own verbs.
        checkpoint: Checkpoint that the run goes on from, or None.
        total_steps: Optimizer steps of the whole run.
    """

    def __init__(
        self,
        args: Arguments,
        total_steps: int | None = None,
        compile_options: dict[str, Any] | None = None,
        metrics: Sequence[Metric] = (),
        rank: Rank = PSNR,
    ) -> None:
        """Checks what the options ask for, claims the output folder and seeds.

        Args:
            args: Options of the script.
            total_steps: Optimizer steps of the whole run. Give it if the run has several phases.
                Default: `--max_train_steps`.
            compile_options: Options of PyTorch's compiler that the network needs.
            metrics: Metrics of your own besides PSNR and SSIM: functions of SR and HR, RGB (3, H,
                W) in [0, 1], and the border to leave out. Their names stand in log and card.
            rank: Function of the scores of a validation, by name; the weights where its value is
                the greatest are the best. Default: PSNR.

        Raises:
            UserError: The options, the metrics or the output folder cannot be used.
        """
        from accelerate.utils import set_seed

        self.args, self._metrics, self._rank = args, metrics, rank
        check_names(metrics)
        self._stopwatch = Stopwatch(args, has_phases=total_steps is not None)
        if args.train_data_dir:
            args.dataset_name = None  # so that no record names a data set that was not used
        self.accelerator = make_accelerator(args, compile_options)
        self._processes = Processes(self.accelerator)
        check_processes(args, self.accelerator)
        self._push = Push(args, self._processes) if args.push_to_hub else None
        self._claim = claim_together(args, self._processes)
        self.total_steps = args.max_train_steps if total_steps is None else total_steps
        self.checkpoint = self._claim.checkpoint
        keep_origin(args, self.checkpoint)
        set_seed(args.seed)
        set_up_cpu(args.cpu_threads)

    def __getattr__(self, name: str) -> Any:
        """Says what is missing before `begin`, which makes the parts of a run."""
        raise AttributeError(f"Run has no {name} yet: call run.begin with the prepared model first")

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._state.step

    def print(self, text: str) -> None:
        """Prints once, above the progress bar."""
        self._processes.print(text)

    # ------------------------------------------------------------------------------------ beginning

    def begin(
        self,
        model: nn.Module,
        pictures: TrainingPictures,
        optimizers: Sequence[Any],
        schedulers: Sequence[Any],
    ) -> None:
        """Begins the run, or loads its checkpoint, and prints what is to happen.

        From here on, a signal to stop ends the run after the step, with a checkpoint.

        Args:
            model: Network as `accelerator.prepare` returned it.
            pictures: Pictures to train and to validate on.
            optimizers: Prepared optimizers, all that the run has.
            schedulers: Prepared schedulers, all that the run has.

        Raises:
            TypeError: The script has not prepared one of them.
            UserError: The checkpoint is of other pictures or of another network.
        """
        args, accelerator, processes = self.args, self.accelerator, self._processes
        self._model = unwrap(accelerator, model, optimizers, schedulers)
        find_network(self._model.architecture())  # refuses what could not be loaded again
        self._pictures, self._means = pictures, RunningMeans(accelerator.device)
        is_fp16 = accelerator.mixed_precision == "fp16"
        self._guard = StepGuard(optimizers, accelerator.device, is_fp16)
        trackers = self._trackers = Trackers(accelerator, processes)
        self._log = Log(args.output_dir, args.batch_size, accelerator.device, trackers, processes)
        own = self._metrics, self._rank
        self._validator = Validator(
            args, self._model, pictures.validation, processes, trackers, pictures.in_card(), *own
        )
        if args.gradient_accumulation_steps == AUTO:
            parts = find_parts(self._model, args, processes, pictures)
            args.gradient_accumulation_steps = accelerator.gradient_accumulation_steps = parts
        self._state = RunState(self._means, self._validator, pictures, processes)
        accelerator.register_for_checkpointing(self._state)
        if self._validator.average:
            accelerator.register_for_checkpointing(self._validator.average)
        self._checkpoints = Checkpoints(
            args, accelerator, processes, self._state, pictures, optimizers, schedulers, self._model
        )
        seconds = self._checkpoints.resume(self._claim, self.total_steps)
        self._validator.card.recipes = self._checkpoints.recipes
        self._validator.rehearse()
        self._trackers.start(args, self.step)
        # (Last of all: a folder that has records cannot be used by the next try.)
        if error := processes.error_of(self._begin_records):
            trackers.finish(self.step, failed=True)
            processes.fail(f"Cannot write to --output_dir {args.output_dir}: {error}. Make room.")
        steps = range(self.step, self.total_steps)
        self.print(banner(args, self._model, pictures, steps, accelerator))
        self._log.begin(self.step, self.total_steps, seconds)
        self._stop, self._is_in_loop = StopRequest(), False

    def _begin_records(self) -> None:
        """Writes args.json, and cuts from the logs what is later than the checkpoint."""
        # A command that trains nothing more must not stand in the record of the training.
        if self.step < self.total_steps:
            self._write_record()
        self._log.truncate(self.step, validated=not self._state.validation_is_due)

    def _write_record(self) -> None:
        if self._processes.is_main:
            facts = self.accelerator.device, self._processes.count, self._checkpoints.recipes
            write_record(self.args, *facts)

    # ------------------------------------------------------------------------------------- training

    def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Gives the batches of the steps that are left: LR and HR, RGB in [0, 1], on the device.

        A batch comes in `--gradient_accumulation_steps` micro-batches, one after the other, and
        every process takes an equal share of each.

        Args:
            until: Step that ends this phase. Default: the last.
        """
        if self._is_in_loop:
            raise RuntimeError(
                "A loop over run.batches() was left before its end, which ended the run. Do not "
                "leave it by `break`: run.batches(until=STEP) says where a phase ends."
            )
        args, processes, device = self.args, self._processes, self.accelerator.device
        self._end = self.total_steps if until is None else until
        steps, self._is_in_loop = range(self.step, self._end), True
        try:
            if self._state.validation_is_due and self.step <= self._end:
                self._validate()  # it was stopped in the middle of it
            self._model.train()
            fed = feed(args, self._pictures, steps, processes, device, self._stop.asked)
            for batch in self._trackers.watch(fed, self.step):
                yield batch
                if self.step >= self._end:  # which a run by minutes sets while it trains
                    break
            self._is_in_loop = False
        except (StreamError, WorkerError) as error:
            self._end_without_batches(error)
        finally:  # Python gets here as well when the loop over the batches fails, or is left
            if self._is_in_loop:
                self._let_go(failed=True)

    def end_step(self, **values: Tensor | float) -> None:
        """Counts an optimizer step, averages the weights, and logs, validates and saves when due.

        Call it after each micro-batch. Before the last one of a batch it only collects the values.

        Args:
            **values: Values to log: of a scalar tensor the mean since the last log, of a number the
                latest. A tensor is not read before it is logged, so no step waits for the device.

        Raises:
            UserError: The training diverged.
            SystemExit: Somebody asked the run to stop: 128 and the number of the signal.
        """
        args, syncs = self.args, self.accelerator.sync_gradients
        found = self._guard.values(args.gradient_accumulation_steps) if syncs else {}
        self._means.add(values | found)
        if not syncs:
            return
        self._state.step += 1
        self._validator.update_average()
        self._log.advance()
        self._measure()

        done = self.step == self._end
        logs = self.step % args.logging_steps == 0 or done
        validates = done or self._validator.is_due(self.step)
        stop = self._stop.after_step()
        saves = done or stop or self._checkpoints.is_due(self.step)
        ends_early = stop if self.step < self.total_steps else None
        if logs or validates or saves:
            means = self._guard.finite_means(self._means, self._model, self._processes, self.step)
        if logs:
            numbers = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
            self._log.write(means | numbers, self.step)
            if warning := skipped_in_words(means.get("share_skipped", 0.0), args.logging_steps):
                self._processes.warn(warning)
            self._means.clear()
        self._state.validation_is_due = validates
        if saves:  # first, as a validation can take long, and fail
            ends = stop or self.step == self.total_steps
            self._checkpoints.save(self._log, last=None if ends else self.total_steps)
        if validates and not ends_early:
            self._validate()
        if logs:
            self._log.write_time(self.step)
        if ends_early:
            self._end_early(ends_early)

    def save_copy(self, name: str) -> None:
        """Saves the network of this step, which was just validated, in a folder of its own.

        Args:
            name: Folder within the output folder.
        """
        self._validator.save_copy(name, self.step)

    def keep_latest(self) -> None:
        """Makes the run save the weights of the last validation from here on, not the best."""
        self._validator.keeps_best = False

    def finish(self) -> None:
        """Says where the result is, and pushes it to the Hub if that is asked for.

        Raises:
            UserError: The last state of the training, or its result, could not be saved.
        """
        args, processes, stop = self.args, self._processes, self._stop.asked()
        # Nothing was left to train, and the best weights are elsewhere, or somebody took them away.
        if processes.from_main(lambda: not (args.output_dir / WEIGHTS).exists()):
            processes.warn(f"{WEIGHTS} is missing: it is written from the last step.")
            self._validator.best = {}
            self._validator.validate(self.step)
        if reason := processes.from_main(lambda: write_curves(args.output_dir)):
            processes.warn(reason)
        self._close()
        if unsaved := self._validator.unsaved | self._checkpoints.unsaved:
            processes.fail(done_but_unsaved(args.output_dir, unsaved))
        if isinstance(self._pictures.patches, PatchStream):
            self._pictures.patches.clear()
        self.print(ending(args, self._validator))
        if self._push and processes.is_main:
            self.print(f"It is on the Hub now: {self._push.push(stop)}")

    # ------------------------------------------------------------------------------------- when due

    def _measure(self) -> None:
        """Sets the number of steps of a run by minutes, on all processes, when it is known."""
        if (found := self._stopwatch.steps_after(self.step, self._log.seconds())) is None:
            return
        self.total_steps = self._end = self._processes.from_main(lambda: found)
        set_length(self.args, self.total_steps)
        self._log.set_total(self.total_steps)
        if error := self._processes.error_of(self._write_record):
            self._processes.warn(f"args.json lacks the number of steps: {error}.")
        self.print(self._stopwatch.in_words())

    def _validate(self) -> None:
        """Validates; a run that lacks its model then makes it when it is resumed."""
        before = self._log.seconds()
        self._log.write(self._validator.validate(self.step), self.step)
        self._stopwatch.add_validation(self._log.seconds() - before)
        self._state.validation_is_due = False
        if not self._validator.unsaved:
            self._checkpoints.add_scores(self._log)

    def _end_early(self, stop: signal.Signals) -> NoReturn:
        self._validator.save_unvalidated(self.step)
        self._close()
        for error in self._checkpoints.unsaved.values():
            text = f"{stop.name}: stopped at step {self.step}, which could not be saved: {error}. "
            self._processes.fail(text + way_on(self.args.output_dir))
        self.print(stopped_and_saved(stop, self.step, self.total_steps))
        raise SystemExit(128 + stop)

    def _end_without_batches(self, error: Exception) -> NoReturn:
        # Where a stream ends, all processes are here. Half a step cannot be saved.
        together = isinstance(error, StreamError) or self._processes.count == 1
        if together and self.accelerator.sync_gradients:
            if not (self.args.output_dir / f"checkpoint-{self.step}").exists():
                self._checkpoints.save(self._log)
            if stop := self._stop.asked():
                self._end_early(stop)
        message = f"Cannot go on with {self._pictures.source} after step {self.step}: {error} "
        message += way_on(self.args.output_dir)
        if together:
            self._processes.fail(message)
        raise UserError(message)

    def _let_go(self, *, failed: bool) -> None:
        """Ends what a program that goes on after this run, a notebook, must not find."""
        self._log.close(self.step, failed=failed)
        self._stop.give_back()

    def _close(self) -> None:
        self._let_go(failed=False)
        self._stop.end_exchange()
        self.accelerator.end_training()
