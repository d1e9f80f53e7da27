"""Processes and threads that help the main one: how many there may be, and what they ignore."""

import os
import signal
import sys

PARENT = os.getppid()  # read first of all, by common.start: a launcher can end at any moment
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


def end_by(number: int, words: str) -> None:
    """Ends this process by a signal, after a line; its threads and clean-up are not waited for."""
    if int(os.environ.get("RANK", 0)) == 0:
        text = f"\n{signal.Signals(number).name}: {words}\n"
        os.write(2, text.encode())  # print() could be the very thing that the signal interrupts
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def ignore_signals(worker: int = 0) -> None:
    """Makes a process of the loader ignore `SIGNALS`.

    A terminal or SLURM sends a signal to a whole group of processes. The training then ends after
    its step; without its loader it could not.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
