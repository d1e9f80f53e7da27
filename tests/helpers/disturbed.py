"""A training script in trouble, or watched; run by the tests of resuming, stopping and killing.

    python tests/helpers/disturbed.py train_a2n.py OPTIONS OF train_a2n.py

What happens is said by environment variables:

    SLOW_STEPS=0.2       every step takes so many seconds more
    SLOW_WRITES=0.05     so does every file or folder that is written, flushed, renamed or deleted
    NO_ROOM=10:20:100    from step 10 until step 20 no file of the main process grows over 100 bytes
    HOLD=4               step 4 does not end before this process is asked to stop
    HANG=4               step 4 takes five minutes more
    RAISE=1:3            process 1 raises an exception in step 3
    KILL=writing:7       SIGKILL before the seventh call that writes a checkpoint; or `saving` (the
                         best weights), `decoding`, `validating`, `step`; `time:0.7` for seconds
    COUNT=FILE           at the end, writes to the file how many calls of each kind there were
    START_METHOD=spawn   how processes of the loader begin
    WATCH=1              the log tells the patches and random numbers of all processes, and a loss
                         scale as in fp16 is used, which a CPU otherwise does not have
"""

import common.start

import functools
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data import cache
from common.data.patches import BenchmarkDataset
from common.training import state
from common.training.run import Run
from common.training.validation import Validator

SETTINGS = os.environ
WRITES: tuple[tuple[Any, str], ...] = (
    *((torch, "save"), (os, "fsync"), (os, "replace"), (os, "unlink")),
    *((shutil, "rmtree"), (Path, "rename"), (Path, "write_text")),
)
COUNTS = dict.fromkeys(("writing", "saving", "decoding", "validating", "step", "time"), 0.0)
WHERE: list[str] = []  # what is being written
LOCK = threading.Lock()


class DisturbedRun(Run):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "WATCH" in SETTINGS:
            self.accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=3)

    def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for lr, hr in super().batches(until):
            whole = [self.accelerator.gather(images.contiguous()) for images in (lr, hr)]
            self.checksum = zlib.crc32(b"".join(images.numpy().tobytes() for images in whole))
            yield lr, hr

    def end_step(self, **values: Tensor | float) -> None:
        step, rank = self.step + 1, self.accelerator.process_index
        time.sleep(float(SETTINGS.get("SLOW_STEPS", 0)))
        while SETTINGS.get("HOLD") == f"{step}" and not self._stop._received:
            time.sleep(0.01)
        if SETTINGS.get("HANG") == f"{step}":
            time.sleep(300)
        if SETTINGS.get("RAISE") == f"{rank}:{step}":
            raise ArithmeticError(f"process {rank} cannot go on")
        if "NO_ROOM" in SETTINGS and self.accelerator.is_main_process:
            first, last, size = map(int, SETTINGS["NO_ROOM"].split(":"))
            limit = size if first <= step < last else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if "WATCH" in SETTINGS:
            values["patches"] = float(self.checksum)
            values["random"] = torch.rand(()) + np.random.rand() + random.random()
            values["scale"] = self.accelerator.scaler.get_scale()
        super().end_step(**values)


def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(float(SETTINGS["SLOW_WRITES"]))
        return function(*args, **kwargs)

    return slow


def counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose calls are counted; at one of them the process is killed."""
    fatal = SETTINGS.get("KILL", "").partition(":")

    @functools.wraps(function)
    def count(*args: Any, **kwargs: Any) -> Any:
        with LOCK:
            COUNTS[kind] += 1
            if fatal[0] == kind and float(fatal[2]) == COUNTS[kind]:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return count


def writing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, counted while a checkpoint or the best weights are written."""
    in_checkpoint, in_model = counted("writing", function), counted("saving", function)

    @functools.wraps(function)
    def write(*args: Any, **kwargs: Any) -> Any:
        if WHERE and threading.current_thread() is threading.main_thread():
            return (in_checkpoint if WHERE[-1] == "writing" else in_model)(*args, **kwargs)
        return function(*args, **kwargs)

    return write


def inside(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; while it runs, `WHERE` says so."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        WHERE.append(kind)
        try:
            return function(*args, **kwargs)
        finally:
            WHERE.pop()

    return run


def watch_for_kills() -> None:
    """Counts the calls at which KILL can end this process."""
    DisturbedRun.end_step = counted("step", DisturbedRun.end_step)  # type: ignore[method-assign]
    for module, name in WRITES:
        setattr(module, name, writing(getattr(module, name)))
    state.Checkpoints.save = inside("writing", state.Checkpoints.save)  # type: ignore[method-assign]
    Validator._save = inside("saving", Validator._save)  # type: ignore[method-assign]
    cache._decode_one = counted("decoding", cache._decode_one)
    getitem = BenchmarkDataset.__getitem__
    BenchmarkDataset.__getitem__ = counted("validating", getitem)  # type: ignore[method-assign]
    kind, _, moment = SETTINGS.get("KILL", "").partition(":")
    if kind == "time":
        timer = threading.Timer(float(moment), os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()


def main() -> None:
    if "START_METHOD" in SETTINGS:
        multiprocessing.set_start_method(SETTINGS["START_METHOD"], force=True)
    script = importlib.import_module(sys.argv[1].removesuffix(".py"))
    sys.argv = sys.argv[1:]
    script.Run = DisturbedRun
    if {"KILL", "COUNT"} & SETTINGS.keys():
        watch_for_kills()
    if "SLOW_WRITES" in SETTINGS:
        for module, name in WRITES:
            setattr(module, name, slowed(getattr(module, name)))
    begin = time.monotonic()
    script.main()
    if "COUNT" in SETTINGS:
        COUNTS["time"] = time.monotonic() - begin
        Path(SETTINGS["COUNT"]).write_text(json.dumps(COUNTS))


if __name__ == "__main__":
    main()
