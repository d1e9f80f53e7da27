"""Processes and threads that help the main one: how many there may be, and what they ignore."""

import ctypes
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

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


def trim_memory() -> None:
    """Gives back what this process has freed: glibc keeps up to 0.1 GB of it for each thread."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim:
            trim(0)


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


def end_by(number: int, words: str) -> None:
    """Ends this process by a signal, after a line; its threads and clean-up are not waited for."""
    if int(os.environ.get("RANK", 0)) == 0:
        text = f"\n{signal.Signals(number).name}: {words}\n"
        os.write(2, text.encode())  # print() could be the very thing that the signal interrupts
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def take_signals(receive: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Sets the handler of `SIGNALS`, but not of those that nohup or a shell lets us ignore.

    Returns:
        Earlier handlers, by signal, for `give_back_signals`.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows no other
        return {}
    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
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


class Room:
    """Lets threads take pixels into memory, in the order of their numbers, while there is room.

    The order matters: the first picture must never wait for those after it, which wait for it.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: Pixels for which there is room. A picture of more is alone in it.
        """
        self._most, self._taken, self._turn, self._closed = most, 0, 0, False
        self._changed = threading.Condition()

    def enter(self, number: int, pixels: int) -> None:
        """Waits for the turn of a number, from 0, and for room.

        Raises:
            RuntimeError: It was closed.
        """

        def is_free() -> bool:
            fits = not self._taken or self._taken + pixels <= self._most
            return self._closed or (self._turn == number and fits)

        with self._changed:
            self._changed.wait_for(is_free)
            if self._closed:
                raise RuntimeError("nobody wants the pictures any more")
            self._turn += 1
            self._taken += pixels
            self._changed.notify_all()

    def leave(self, pixels: int) -> None:
        """Gives the room back."""
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def kill_children() -> None:
    """Ends the processes of the loader, which ignore the SIGTERM that Python sends at its end."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.kill()


class Writers:
    """Threads that write pictures while others are computed. Compressing lets other threads work.

    At its end all is written.
    """

    def __init__(
        self, failures: dict[Path, str], threads: int | None = None, most: int = 2**26
    ) -> None:
        """
        Args:
            failures: Dictionary that gets the reason for each picture that cannot be written.
            threads: Number of threads. Default: one a core, at most 4.
            most: Pixels that wait in the memory. A picture of more is alone in it.
        """
        self._failures, self._most = failures, most
        self._threads = threads or min(4, count_cores())
        self._pool = ThreadPoolExecutor(self._threads)
        self._waiting: deque[tuple[Path, int, Future[None]]] = deque()

    def submit(self, path: Path, pixels: int, action: Callable[[], None]) -> None:
        """Has a picture written as soon as there is a thread and room, and waits until then."""
        while self._waiting and (
            len(self._waiting) >= self._threads
            or sum(size for _, size, _ in self._waiting) + pixels > self._most
        ):
            self._finish_oldest()
        self._waiting.append((path, pixels, self._pool.submit(action)))

    def _finish_oldest(self) -> None:
        path, _, future = self._waiting.popleft()
        if error := future.exception():
            self._failures[path] = f"{error}" or type(error).__name__

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        while self._waiting:
            self._finish_oldest()
        self._pool.shutdown()
