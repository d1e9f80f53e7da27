"""Signals: those that ask a program to stop, and who takes, ignores or holds them back."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# A terminal that is closed sends SIGHUP; SLURM, if it is asked to, sends SIGUSR1 before the time of
# a job is up. (Windows has neither.)
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]


def end_by(number: int, words: str) -> None:
    """Ends this process by a signal, after a line; its threads and clean-up are not waited for."""
    if int(os.environ.get("RANK", 0)) == 0:
        text = f"\n{signal.Signals(number).name}: {words}\n"
        os.write(2, text.encode())  # print() could be the very thing that the signal interrupts
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def take_signals(receive: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Sets the handler of `SIGNALS`.

    Those that nohup or a shell lets us ignore stay as they are, and those whose handler Python does
    not know (None), since nobody could give it back.

    Returns:
        Earlier handlers, by signal, for `give_back_signals`.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows no other
        return {}
    kept = (signal.SIG_IGN, None)
    taken = [number for number in SIGNALS if signal.getsignal(number) not in kept]
    return {number: signal.signal(number, receive) for number in taken}


def give_back_signals(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def ending_at_once(words: str) -> Iterator[None]:
    """Lets a signal end the program at once, with these words: nobody waits for an upload."""
    handlers = take_signals(lambda number, frame: end_by(number, words))
    try:
        yield
    finally:
        give_back_signals(handlers)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Holds `SIGNALS` back for a moment. A process that is started then never gets them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals(worker: int = 0) -> None:
    """Makes a process of the loader ignore `SIGNALS`.

    A terminal or SLURM sends a signal to a whole group of processes. The training then ends after
    its step; without its loader it could not.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
