"""Checkpoints of a run: what they hold, how they are written and loaded."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.data.load import TrainingPictures
from common.files import replace_file
from common.network import CONFIG, SuperResolutionModel
from common.options import Arguments
from common.training.code import (
    another_average,
    another_optimizer,
    lacks_settings,
    optimizer_names,
    script_changed,
    script_of,
)
from common.training.folder import Claim, delete_oldest, list_checkpoints, seal
from common.training.log import Log, RunningMeans
from common.training.recipe import allow_differences, read_recipe
from common.training.run_card import EarlierRecipe, recipes_of
from common.training.schedule import decay_start
from common.training.together import Processes
from common.training.validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler

SCORES = "scores.json"  # of a checkpoint's weights: added to it after their validation


class RunState:
    """State of the bookkeeping, in the form that Accelerate saves and loads.

    Its keys, and its place before the average of the weights, are those of all earlier checkpoints.

    Attributes:
        step: Optimizer steps done.
        validation_is_due: Whether the weights of this step are still to be validated.
    """

    def __init__(
        self,
        means: RunningMeans,
        validator: Validator,
        pictures: TrainingPictures,
        processes: Processes,
    ) -> None:
        self.step = 0
        self.validation_is_due = False
        self._means, self._validator = means, validator
        self._pictures, self._processes = pictures, processes
        self._sums_of_all: list[dict[str, Tensor]] = []

    def collect(self) -> None:
        """Collects the sums of all processes, since only the main one writes the state."""
        sums = {name: total.cpu() for name, total in self._means.sums.items()}
        self._sums_of_all = self._processes.gather(sums)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            **self.scores(),
            "sums": self._sums_of_all,
            "count": self._means.count,
            "validation": self._validator.identity,
            "positions": self._pictures.patches.positions,
            "validation_is_due": self.validation_is_due,
        }

    def scores(self) -> dict[str, dict[str, float]]:
        """What a validation changes."""
        validator = self._validator
        return {"scores": validator.scores, "best": validator.best, "bicubic": validator.bicubic}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.validation_is_due = state.get("validation_is_due", False)
        self._means.load(state["sums"], state["count"], self._processes)
        self._pictures.patches.positions = state.get("positions", {})
        self._is_of_these_pictures = state["validation"] == self._validator.identity
        self.take_scores(state)

    def take_scores(self, state: dict[str, Any]) -> None:
        """Takes the scores of a checkpoint, unless they are scores on other pictures."""
        validator = self._validator
        validator.has_validated |= bool(state["scores"])
        if self._is_of_these_pictures:
            validator.scores, validator.best = state["scores"], state["best"]
            validator.bicubic = state["bicubic"]

    def forget_best(self) -> None:
        """Makes the next validated weights the best."""
        self._validator.best = {}


class Checkpoints:
    """Writes and loads the checkpoints of a run.

    Attributes:
        unsaved: Reason why the checkpoint could not be written when last tried, if it was not.
        recipes: Earlier recipes of the run, if it changed its own.
    """

    def __init__(
        self,
        args: Arguments,
        accelerator: "Accelerator",
        processes: Processes,
        state: RunState,
        pictures: TrainingPictures,
        optimizers: Sequence["AcceleratedOptimizer"],
        schedulers: Sequence["AcceleratedScheduler"],
        network: SuperResolutionModel,
    ) -> None:
        self._args, self._accelerator, self._processes = args, accelerator, processes
        self._state, self._pictures = state, pictures
        self._optimizers, self._schedulers = optimizers, schedulers
        self._network = network
        self._script = script_of(network)  # now: the file may be edited while the run trains
        self.unsaved: dict[str, str] = {}
        self.recipes: list[EarlierRecipe] = []

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due: by `--checkpointing_steps`, or before the decay."""
        return step % self._args.checkpointing_steps == 0 or step == decay_start(self._args)

    def save(self, log: Log, *, last: int | None = None) -> None:
        """Writes `checkpoint-{step}`; where it cannot, all processes know, and training goes on.

        Args:
            log: Log of the run, which must not be behind the checkpoint.
            last: Last step of the run, or None if it ends here.
        """
        folder = self._args.output_dir / f"checkpoint-{self._state.step}"
        partial = folder.with_name(f"{folder.name}.partial")
        self._state.collect()
        error = ""
        for action in (
            lambda: self._accelerator.save_state(str(partial)),
            lambda: self._seal(partial, log),
        ):
            error = error or self._processes.error_of(action)
        self.unsaved = {"the checkpoint": error} if error else {}
        if error and self._processes.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            older = [path.name for path in list_checkpoints(folder.parent)]
            space = shutil.disk_usage(folder.parent).free / 1e6
            text = (
                f"{folder.name} could not be saved: {error} ({space:.1f} MB are free). The "
                f"latest checkpoint is {older[-1] if older else 'none'}."
            )
            if last is not None:
                every = self._args.checkpointing_steps
                again = min((self._state.step // every + 1) * every, last)
                text += f" Training goes on, to try again at step {again}."
            self._processes.warn(text)

    def _seal(self, partial: Path, log: Log) -> None:
        """Makes a checkpoint of the folder that all processes have written to."""
        if self._processes.is_main:
            log.flush()
            record = {
                "args": vars(self._args),
                "pictures": self._pictures.patches.fingerprint(),
                "seconds": log.seconds(),
                "step": self._state.step,
                "command": self._args.command,
                "script": self._script,
                "optimizers": optimizer_names(self._optimizers),
                "recipes": [recipe._asdict() for recipe in self.recipes],
            }
            # With it, the checkpoint is a model as well.
            (partial / CONFIG).write_text(self._network.configuration())
            seal(partial, record)
            try:
                spared = f"checkpoint-{decay_start(self._args)}"  # from which it can become longer
                delete_oldest(partial.parent, self._args.checkpoints_total_limit, spared)
            except OSError as error:  # the new one is whole
                self._processes.warn(f"Older checkpoints could not be deleted: {error}.")

    def add_scores(self, log: Log) -> None:
        """Adds the scores of its weights to the checkpoint of this step, if there is one.

        Without them, a run that is resumed validates first.
        """
        folder = self._args.output_dir / f"checkpoint-{self._state.step}"
        if self._processes.is_main and folder.is_dir():
            content = {"seconds": log.seconds(), **self._state.scores()}
            with suppress(OSError):
                replace_file(folder / SCORES, json.dumps(content).encode())

    def resume(self, claim: Claim, total_steps: int) -> float:
        """Loads the checkpoint, if one was asked for and found; gives its seconds of training.

        Raises:
            UserError: The checkpoint is later than the last step, or of something else.
        """
        args, processes, checkpoint = self._args, self._processes, claim.checkpoint
        if not checkpoint:
            if args.resume_from_checkpoint:
                processes.print(
                    f"There is no checkpoint in {args.output_dir} yet: starting from the beginning."
                )
            return 0.0
        differences, seconds = self._load(checkpoint, claim.differences)
        if checkpoint.parent.resolve() != args.output_dir.resolve():
            self._state.forget_best()  # the weights that scored it are in the other folder
        if self._state.step > total_steps:
            processes.fail(
                f"{checkpoint} is later than the {total_steps} steps of this command. "
                "Give a larger --max_train_steps, or go on elsewhere from an earlier one."
            )
        processes.print(f"Resuming from {checkpoint}.")
        record = read_recipe(checkpoint)
        self.recipes = recipes_of(record)
        if differences:
            changes = "; ".join(differences)
            processes.print(f"The recipe changes at step {self._state.step}: {changes}.")
            before = EarlierRecipe(self._state.step, record.get("command", ""), differences)
            self.recipes.append(before)
        return seconds

    def _load(self, checkpoint: Path, differences: Sequence[str]) -> tuple[list[str], float]:
        """Loads a checkpoint. Where the recipe was changed, the rates of the command win.

        Args:
            checkpoint: Folder of the checkpoint.
            differences: Differences of the recipe, which are allowed.

        Returns:
            (all differences, seconds of training up to the checkpoint).

        Raises:
            UserError: The checkpoint is of other pictures or of another network.
        """
        args, accelerator, processes = self._args, self._accelerator, self._processes
        record = read_recipe(checkpoint)
        difference = self._pictures.patches.difference_from(record["pictures"])
        others = [difference] if difference else []
        all_differences = [*differences, *allow_differences(others, args, checkpoint)]
        if error := another_optimizer(record, self._optimizers) or another_average(record, args):
            processes.fail(f"{checkpoint} {error}")
        changed = script_changed(record, self._script, args.allow_recipe_change)
        fresh = [
            [{key: value for key, value in group.items() if key != "params"} for group in groups]
            for groups in (optimizer.param_groups for optimizer in self._optimizers)
        ]
        if error := processes.error_of(lambda: _refuse_code(checkpoint)):
            processes.fail(error)
        scaler = accelerator.scaler
        if not (checkpoint / "scaler.pt").exists():  # it was not trained in fp16
            accelerator.scaler = None
        if error := processes.error_of(lambda: accelerator.load_state(str(checkpoint))):
            processes.fail(
                f"{checkpoint} is of another network, optimizer or --ema_decay than this command, "
                "and cannot be resumed. Start a new run in another --output_dir, with --init_from. "
                f"({shorten(error, 150)})"
            )
        seconds = record.get("seconds", 0.0)
        with suppress(OSError, ValueError, KeyError):  # there is no such file, or it is damaged
            added = json.loads((checkpoint / SCORES).read_text())
            self._state.take_scores(added)
            self._state.validation_is_due = False
            seconds = added["seconds"]
        if error := lacks_settings(self._optimizers, fresh):
            processes.fail(f"{checkpoint} {error}")
        if changed:
            processes.warn(f"Since {checkpoint.name} {changed}")
        accelerator.scaler = scaler
        accelerator.step = 0  # number of the micro-batch: a batch may have other parts now
        if all_differences or (changed and args.allow_recipe_change):
            self._set_rates(fresh)
        return all_differences, seconds

    def _set_rates(self, settings: list[list[dict[str, Any]]]) -> None:
        """Gives optimizers and schedulers the settings of the command, at the step of the state."""
        for optimizer, groups in zip(self._optimizers, settings, strict=True):
            for group, new in zip(optimizer.param_groups, groups, strict=True):
                group.update(new)
        for scheduler in (prepared.scheduler for prepared in self._schedulers):
            scheduler.base_lrs = [g["initial_lr"] for g in scheduler.optimizer.param_groups]
            scheduler.last_epoch -= 1
            scheduler.step()


def _refuse_code(checkpoint: Path) -> None:
    """Refuses a checkpoint of somebody else that would run code when it is loaded.

    Accelerate unpickles these files without a look.

    Raises:
        OSError: A file holds more than tensors and plain values.
    """
    for file in checkpoint.glob("custom_checkpoint_*.pkl"):
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except Exception:
            raise OSError(
                f"{file} holds more than tensors and plain values, and could run code when it is "
                "loaded. It is not of this program; do not use it."
            ) from None
