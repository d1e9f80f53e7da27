"""TensorBoard: curves and validation pictures of a run. It may end alone; training goes on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from common.training.together import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator

SHOWN = 3  # validation pictures


class Trackers:
    """Trackers of a run, by Accelerate."""

    def __init__(self, accelerator: "Accelerator", processes: Processes) -> None:
        self._accelerator, self._processes = accelerator, processes

    def start(self, name: str, step: int) -> None:
        """Starts a tracker and hides what an interrupted run logged after its checkpoint.

        Args:
            name: Name of the tracker, "tensorboard" or "none".
            step: Optimizer steps done.
        """
        if name != "none":
            options = {name: {"purge_step": step + 1}}
            self._attempt(lambda: self._accelerator.init_trackers(name, init_kwargs=options), step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._attempt(lambda: self._accelerator.log(values, step=step), step)

    def show(self, name: str, picture: Image.Image, step: int) -> None:
        """Shows a picture under a name. The process that has it calls it alone."""
        for tracker in self._accelerator.trackers:
            images = {name: np.asarray(picture)[None]}
            self._attempt(lambda: tracker.log_images(images, step, dataformats="NHWC"), step)  # noqa: B023

    def shows(self, index: int) -> bool:
        """Whether the validation picture of this number is shown, by this process."""
        return self._processes.is_main and index < SHOWN and bool(self._accelerator.trackers)

    def finish(self, step: int) -> None:
        for tracker in self._accelerator.trackers:
            self._attempt(tracker.finish, step)
        self._accelerator.trackers = []

    def _attempt(self, action: Callable[[], object], step: int) -> None:
        """Runs `action`; where its file cannot be written, goes on without trackers."""
        try:
            action()
        except OSError as error:
            self._accelerator.trackers = []
            self._processes.warn(
                f"TensorBoard's log cannot be written ({error}) and ends at step {step}. "
                "metrics.jsonl tells the same."
            )
