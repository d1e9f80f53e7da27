"""Logs of a run: losses and scores by step, and how long the steps took.

`metrics.jsonl` holds no times, so equal runs have equal files. The times are in `times.jsonl`.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common.curves import METRICS, TIMES
from common.files import flush_to_disk, read_json_lines, replace_file, unused
from common.machine import peak_memory
from common.options import LARGEST
from common.record import of_steps
from common.tables import plural
from common.training.together import Processes
from common.training.trackers import Trackers

SHOWN = ("loss", "psnr_y")  # beside the bar
LINE_SECONDS = 60  # between two lines in place of the bar, where it is no terminal that reads it


class JsonLines:
    """File of one JSON object a line, each with its `step`. A line is in it whole or not at all."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path, self._warn = path, warn
        self._unwritten: list[str] = []  # lines for which there was no room

    def truncate(self, step: int, without: str = "") -> None:
        """Removes the lines after a step, which a run that resumes there writes again.

        What is no line of a log is kept in a file that ends in `.damaged`, with a warning. A last
        line without its end is what a kill leaves, and goes.

        Args:
            step: Last step to keep.
            without: Name of a value; the lines of that step that have it are removed as well.

        Raises:
            OSError: The folder cannot be written to.
        """
        if not os.path.lexists(self.path):
            return
        aside = self.path.with_name(f"{self.path.name}.damaged")
        if not self.path.is_file():  # a folder, a link to nothing, a pipe that nobody reads
            aside = unused(aside)
            self.path.rename(aside)
            self._warn(f"{self.path.name} was no file. It is {aside.name} now; a new one begins.")
            return
        before = self.path.read_bytes()
        lines, bad, cut = read_json_lines(self.path)
        bad = bad[:-1] if cut else bad
        if bad:
            aside = unused(aside)
            replace_file(aside, b"\n".join(bad) + b"\n")
            self._warn(
                f"{self.path.name} had {plural(len(bad), 'damaged line')}, which {aside.name} has "
                "now. All others stay."
            )
        kept = b"".join(
            line + b"\n"
            for line, values in lines.items()
            if values["step"] < step or (values["step"] == step and without not in values)
        )
        if kept != before or not self._can_be_written():
            replace_file(self.path, kept)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line, and those that found no room before.

        Raises:
            OSError: There is no room. The line is kept for later.
        """
        self._unwritten.append(json.dumps({"step": step, **values}) + "\n")
        self.flush()

    def flush(self) -> None:
        """Appends the lines that are not in the file yet: all of them, or none.

        Raises:
            OSError: There is no room, for example.
        """
        lines = "".join(self._unwritten).encode()
        if os.path.lexists(self.path) and not self._can_be_written():
            self.truncate(sys.maxsize)
        with open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                while lines:
                    lines = lines[file.write(lines) :]
                flush_to_disk(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        self._unwritten = []

    def _can_be_written(self) -> bool:
        return self.path.is_file() and os.access(self.path, os.W_OK)


class RunningMeans:
    """Means of the losses since the last log. No step waits for the device.

    Attributes:
        sums: Sum of each loss on this process, on the device.
        count: Number of terms in each sum.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Adds the tensors among the values, scalars; numbers are left out."""
        self.count += 1
        for name, value in values.items():
            if isinstance(value, Tensor):
                self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()

    def means(self, processes: Processes) -> dict[str, float]:
        """Means over all processes. Waits for the device."""
        return {
            name: processes.mean(total).item() / self.count for name, total in self.sums.items()
        }

    def clear(self) -> None:
        self.sums, self.count = {}, 0

    def load(self, sums_of_all: list[dict[str, Tensor]], count: int, processes: Processes) -> None:
        """Takes the sums that a checkpoint has of all processes.

        If there were more or fewer processes, each takes the mean.
        """
        self.count = count
        if len(sums_of_all) == processes.count:
            sums = sums_of_all[processes.rank]
        else:
            sums = {
                name: torch.stack([part[name] for part in sums_of_all]).mean(0)
                for name in sums_of_all[0]
            }
        self.sums = {name: total.to(self._device) for name, total in sums.items()}


class Log:
    """Everything that tells how a run goes: `metrics.jsonl`, `times.jsonl`, trackers, the bar.

    The main process writes. All processes call the methods.
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        device: torch.device,
        trackers: Trackers,
        processes: Processes,
    ) -> None:
        self._metrics, self._times = (
            JsonLines(folder / name, processes.warn) for name in (METRICS, TIMES)
        )
        self._batch_size, self._device = batch_size, device
        self._trackers, self._processes = trackers, processes
        self._latest: dict[str, float] = {}  # by name, for the bar

    def truncate(self, step: int, *, validated: bool) -> None:
        """Removes what is later than a step, and its scores if it is to be validated again.

        What was damaged is said.

        Raises:
            OSError: A file cannot be written.
        """
        if self._processes.is_main:
            self._metrics.truncate(step, without="" if validated else "psnr_y")
            self._times.truncate(step)

    def begin(self, step: int, total_steps: int, seconds: float) -> None:
        """Starts the bar and the clock.

        Args:
            step: Optimizer steps done.
            total_steps: Optimizer steps of the whole run.
            seconds: Seconds of training that led to the weights of `step`, over all starts of the
                run. What was trained after a checkpoint and then lost does not count.
        """
        self._start = self._last = time.monotonic()
        self._start -= seconds
        self._last_step = step
        self._said, self._total_steps = self._last, total_steps
        self._bar = tqdm(
            initial=step,
            total=total_steps if total_steps < LARGEST else None,  # not measured yet
            desc="Training",
            unit="step",
            disable=None if self._processes.is_main else True,  # None: on a terminal only
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed} done, {remaining} left, "
            "{rate_fmt}{postfix}]",
        )

    def set_total(self, total_steps: int) -> None:
        """Changes the number of steps of the whole run."""
        self._total_steps = self._bar.total = total_steps

    def seconds(self) -> float:
        """Seconds of training so far, over all starts of the run, validation included."""
        return round(time.monotonic() - self._start, 3)

    def advance(self) -> None:
        """Moves the bar by a step."""
        self._bar.update()

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._add(self._metrics, values, step)
        self._latest |= values
        shown = [key for key in SHOWN if key in self._latest]
        self._bar.set_postfix({key: f"{self._latest[key]:.4g}" for key in shown})
        self._trackers.log(values, step)

    def write_time(self, step: int) -> None:
        """Writes seconds of training, speed since the last call, and the memory of this process.

        Where there is no bar, it also prints how far the run is, once a minute and at the end.
        """
        now = time.monotonic()
        patches = (step - self._last_step) * self._batch_size
        values = {
            "seconds": self.seconds(),
            "patches_per_second": round(patches / max(now - self._last, 1e-9), 3),
            "peak_memory_gb": round(peak_memory(self._device), 3),
        }
        if self._bar.disable and (now - self._said >= LINE_SECONDS or step == self._total_steps):
            self._said = now
            facts = [f"{key} {self._latest[key]:.4g}" for key in SHOWN if key in self._latest]
            facts.append(f"{tqdm.format_interval(self.seconds())} done")
            text = f"Step {step:,}"
            if of_all := of_steps(self._total_steps):
                each = (now - self._last) / max(step - self._last_step, 1)
                left = tqdm.format_interval((self._total_steps - step) * each)
                facts.append(f"{left} left")
                text += of_all
            self._processes.print(f"{text}: {', '.join(facts)}.")
        self._last, self._last_step = now, step
        self._add(self._times, values, step)

    def flush(self) -> None:
        """Writes the lines that found no room before.

        Raises:
            OSError: There is still none.
        """
        self._metrics.flush()
        self._times.flush()

    def close(self, step: int, *, failed: bool = False) -> None:
        self._bar.close()
        self._trackers.finish(step, failed=failed)

    def _add(self, file: JsonLines, values: Mapping[str, float], step: int) -> None:
        if self._processes.is_main:
            try:
                file.add(step, values)
            except OSError as error:
                self._processes.warn(
                    f"{file.path.name} cannot be written ({error}). Its lines are kept for later."
                )
