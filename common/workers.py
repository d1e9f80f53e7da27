"""Threads and processes that help the main one: how many, in how much memory, and their end."""

import ctypes
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def trim_memory() -> None:
    """Gives back what this process has freed: glibc keeps up to 0.1 GB of it for each thread."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim:
            trim(0)


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
        self._failures, self._room, self._count = failures, Room(most), 0
        self._pool = ThreadPoolExecutor(threads or min(4, count_cores()))

    def submit(self, path: Path, pixels: int, action: Callable[[], None]) -> None:
        """Has a picture written as soon as there is a thread, and waits until there is room."""
        self._room.enter(self._count, pixels)
        self._count += 1
        self._pool.submit(self._write, path, pixels, action)

    def _write(self, path: Path, pixels: int, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._failures[path] = f"{error}" or type(error).__name__
        finally:
            self._room.leave(pixels)

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
