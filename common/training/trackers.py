"""Trackers: programs that show the curves and pictures of a run. One that fails ends alone."""

import argparse
import importlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from common.errors import UserError
from common.files import replace_file
from common.images.strip import patch_sheet
from common.metrics import to_uint8
from common.training.together import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator

NONE, TENSORBOARD = "none", "tensorboard"
SHOWN = 3  # validation pictures
RUNS = "trackers.json"  # in the output folder: by what each tracker knows the run again


def check_trackers(args: argparse.Namespace) -> Iterator[str]:
    """Says which trackers of `--report_to` there are not. Accelerate leaves them out in silence."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known, supported = sorted(LOGGER_TYPE_TO_CLASS), {f"{name}" for name in LoggerType}
    installed = {f"{name}" for name in get_available_trackers()}
    if NONE in args.report_to and len(args.report_to) > 1:
        yield f"--report_to {' '.join(args.report_to)}: none stands alone. Leave it out."
    for name in dict.fromkeys(args.report_to):
        if name != NONE and name not in known:
            yield f"--report_to {name} is none of {', '.join([*known, NONE])}. Name each to use."
        elif name in supported - installed and name != NONE:
            yield (
                f"--report_to {name}: the package {name} is not installed. Install it by `pip "
                f"install {name}`, or leave it out; metrics.jsonl is written in any case."
            )


class Trackers:
    """Trackers of a run, by Accelerate. They are there on the main process only."""

    def __init__(self, accelerator: "Accelerator", processes: Processes) -> None:
        self._accelerator, self._processes = accelerator, processes

    def start(self, args: argparse.Namespace, step: int) -> None:
        """Starts the trackers of `--report_to`. A resumed run goes on with its curve in each.

        TensorBoard hides what the run logged after its checkpoint before it was interrupted. The
        other trackers keep it, and it is logged again: it is the same.

        Args:
            args: Options of the run.
            step: Optimizer steps done.

        Raises:
            UserError: A tracker does not start, and nothing is trained yet. A run that is resumed,
                perhaps by nobody's hand, goes on without it.
        """
        self._processes.from_main(lambda: self._start_all(args, step))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in list(self._accelerator.trackers):
            self._attempt(tracker, partial(tracker.log, dict(values), step=step), step)

    def show(self, name: str, picture: Image.Image, step: int) -> None:
        """Shows a picture under a name, in trackers that take pictures."""
        for tracker in filter(_takes_images, list(self._accelerator.trackers)):
            self._attempt(tracker, partial(_show, tracker, name, picture, step), step)

    def watch(
        self, batches: Iterable[tuple[Tensor, Tensor]], step: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Gives batches, LR and HR in [0, 1], and shows patches of the first one."""
        for number, (lr, hr) in enumerate(batches):
            if number == 0 and self.shows(0):
                sheet = patch_sheet(to_uint8(lr).cpu(), to_uint8(hr).cpu(), side=96)
                self.show("patches, HR left of LR", sheet, step)
            yield lr, hr

    def shows(self, index: int) -> bool:
        """Whether the validation picture of this number is shown, by this process."""
        return index < SHOWN and any(map(_takes_images, self._accelerator.trackers))

    def finish(self, step: int, *, failed: bool = False) -> None:
        """Ends all trackers; wandb and mlflow then show whether the run has failed."""
        for tracker in list(self._accelerator.trackers):
            self._attempt(tracker, partial(_finish, tracker, failed), step)
        self._accelerator.trackers = []

    def _start_all(self, args: argparse.Namespace, step: int) -> None:
        runs = _read_runs(args.output_dir)
        before = dict(runs)
        for name in dict.fromkeys(args.report_to):
            if name == NONE:
                continue
            try:
                self._start(name, args, step, runs)
            except Exception as error:  # errors of many kinds: no server, no login, no room
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                if step or name == TENSORBOARD:  # which is no other program, and has no login
                    self._processes.warn(f"{_goes_on(name, step)} ({reason})")
                    continue
                self.finish(step, failed=True)
                raise UserError(
                    f"--report_to {name} does not start ({reason}). Log in to it, start its "
                    "server, or leave it out; metrics.jsonl is written in any case."
                ) from None
        if runs != before:
            with suppress(OSError):  # a run that is resumed is then a new one there
                replace_file(args.output_dir / RUNS, json.dumps(runs).encode())

    def _start(self, name: str, args: argparse.Namespace, step: int, runs: dict[str, str]) -> None:
        """Starts a tracker, and notes by what it knows the run again."""
        project, title = args.tracker_project_name, args.output_dir.resolve().name
        settings: dict[str, Any] | None = None if name in runs else _plain(vars(args))
        options: dict[str, Any] = {}
        if name == TENSORBOARD:
            project, settings, options = name, None, {"purge_step": step + 1}
        elif name == "wandb":
            run = runs.setdefault(name, secrets.token_hex(4))
            options = {"name": title, "id": run, "resume": "allow"}
        elif name == "trackio":
            run = runs.setdefault(name, f"{title}-{secrets.token_hex(4)}")
            options = {"name": run, "resume": "allow"}
        elif name == "mlflow":
            options = {"run_id": runs[name]} if name in runs else {"run_name": title}
        elif name == "swanlab":
            run = runs.setdefault(name, secrets.token_hex(11)[:21])  # the length that it demands
            options = {"experiment_name": title, "id": run, "resume": "allow"}
        elif name == "clearml":
            # Otherwise it may empty the last task of that name.
            options = {"task_name": title, "reuse_last_task_id": False}
        elif name == "dvclive":  # whose default, ./dvclive, any other run would empty
            options = {"dir": f"{args.output_dir / name}", "resume": step > 0}
        others, self._accelerator.trackers = self._accelerator.trackers, []
        self._accelerator.log_with = [name]
        try:
            self._accelerator.init_trackers(project, settings, {name: options})
            others = others + self._accelerator.trackers
        finally:
            self._accelerator.trackers = others
        if name == "mlflow":  # which gives its runs names of its own
            runs[name] = others[-1].tracker.info.run_id

    def _attempt(self, tracker: Any, action: Callable[[], object], step: int) -> None:
        """Runs `action`; where it fails, this tracker ends, and training goes on."""
        try:
            action()
        except Exception as error:  # errors of many kinds: no room, no connection
            self._accelerator.trackers = [
                other for other in self._accelerator.trackers if other is not tracker
            ]
            reason = " ".join(f"{error}".split())[:300]
            self._processes.warn(f"{_goes_on(tracker.name, step)} ({reason})")


def _goes_on(name: str, step: int) -> str:
    return f"{name} fails and ends at step {step}; training goes on, metrics.jsonl tells the same"


def _takes_images(tracker: Any) -> bool:
    return hasattr(tracker, "log_images") or tracker.name in ("mlflow", "trackio")


def _show(tracker: Any, name: str, picture: Image.Image, step: int) -> None:
    """Shows a picture by `log_images` of Accelerate, or by the tracker where that has none."""
    if tracker.name == "mlflow":
        mlflow = importlib.import_module("mlflow")
        # Other characters it refuses.
        mlflow.log_image(picture, key=re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", name), step=step)
    elif tracker.name == "trackio":
        trackio = importlib.import_module("trackio")
        tracker.log({name: trackio.Image(picture)}, step=step)
    else:
        array = np.asarray(picture)
        images: Any = {"aim": picture, "clearml": array}.get(tracker.name, array[None])
        form = {"dataformats": "NHWC"} if tracker.name == TENSORBOARD else {}
        tracker.log_images({name: images}, step, **form)


def _finish(tracker: Any, failed: bool) -> None:
    """Ends a tracker. By Accelerate's `finish`, wandb and mlflow would show a success."""
    if failed and tracker.name == "wandb":
        tracker.tracker.finish(exit_code=1)
    elif failed and tracker.name == "mlflow":
        importlib.import_module("mlflow").end_run("FAILED")
    else:
        tracker.finish()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as values that every tracker takes."""
    plain = bool | int | float | str | None
    return {
        key: value if isinstance(value, plain) else f"{value}" for key, value in options.items()
    }


def _read_runs(folder: Path) -> dict[str, str]:
    """What `trackers.json` says; nothing if it is missing or damaged."""
    try:
        runs = json.loads((folder / RUNS).read_text())
    except (OSError, ValueError):
        return {}
    return runs if isinstance(runs, dict) else {}
