"""A training script in trouble, or watched; run by the tests of resuming, stopping and killing.

    python tests/helpers/disturbed.py train_a2n.py OPTIONS OF train_a2n.py

What happens is said by environment variables:

    SLOW_STEPS=0.2       every step takes so many seconds more
    SLOW_WRITES=0.05     so does every file or folder that is written, flushed, renamed or deleted
    NO_ROOM=10:20:100    from step 10 until step 20 no file of the main process grows over 100 bytes
    HOLD=4               step 4 does not end before this process is asked to stop
    HANG=4               step 4 takes five minutes more
    RAISE=1:3            process 1 raises an exception in step 3
    WATCH=1              the log tells the patches and random numbers of all processes, and a loss
                         scale as in fp16 is used, which a CPU otherwise does not have
"""

import functools
import importlib
import os
import random
import resource
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.training.run import Run

SETTINGS = os.environ


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


def main() -> None:
    script = importlib.import_module(sys.argv[1].removesuffix(".py"))
    sys.argv = sys.argv[1:]
    script.Run = DisturbedRun
    if "SLOW_WRITES" in SETTINGS:
        for module, name in (
            *((torch, "save"), (os, "fsync"), (os, "replace"), (os, "unlink")),
            *((shutil, "rmtree"), (Path, "rename"), (Path, "write_text")),
        ):
            setattr(module, name, slowed(getattr(module, name)))
    script.main()


if __name__ == "__main__":
    main()
