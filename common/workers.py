"""Processes and threads that help the main one: how many there may be, and what they ignore."""

import os
import signal
import sys
from typing import Any

# A terminal that is closed sends SIGHUP; SLURM, if it is asked to, sends SIGUSR1 before the time of
# a job is up. (Windows has neither.)
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun has started this process."""
    return bool({"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"} & os.environ.keys())


def says_first(message: str) -> bool:
    """Whether no other process of this program has asked about this message before.

    The processes of a program make the same mistake each, and say it once. Without torchrun or
    `accelerate launch` they know of each other by the first process alone, which may have ended.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    launched = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not launched or distributed is None or not distributed.is_initialized():
        return True
    store = distributed.distributed_c10d._get_default_store()
    return store.add(f"said: {message}", 1) == 1


def ignore_signals(worker: int = 0) -> None:
    """Makes a process of the loader ignore `SIGNALS`.

    A terminal or SLURM sends a signal to a whole group of processes. The training then ends after
    its step; without its loader it could not.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
