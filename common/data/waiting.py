"""Waiting for the processes of a loader, which can die, be stuck, or lack shared memory."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from torch.utils.data import DataLoader

from common.signals import signals_held_back
from common.workers import kill_children

SHARED_MEMORY = Path("/dev/shm")  # of Linux, through which the batches come
SLICE = 1  # seconds of a wait, after which it is seen who has died and who wants to stop
# Slices until a batch must have come. (Seconds would count a run that Ctrl-Z halts.)
PATIENCE = 300
GRACE = 5  # slices that somebody waits who has asked to stop; Docker kills after 10 seconds
WAY_OUT = "Use --num_workers 0; or give a container more by `docker run --shm-size`."

T = TypeVar("T")


class WorkerError(Exception):
    """Reason why the processes of a loader give nothing more."""


def wait_for(
    loader: DataLoader[T], stops: Callable[[], object], *, patience: float = PATIENCE, size: int = 0
) -> Iterator[T]:
    """Gives what a loader gives, but ends a wait for what will not come.

    Args:
        loader: Loader, with `timeout=SLICE` if it has processes.
        stops: Function that says whether somebody has asked this process to stop.
        patience: Slices to wait.
        size: Bytes of shared memory that a batch takes.

    Raises:
        WorkerError: A batch is too large, a process of the loader has died, nothing comes, or
            somebody waits to stop.
    """
    if not loader.num_workers:
        try:
            yield from loader
        except MemoryError:
            raise WorkerError(_too_large(size)) from None
        return
    try:
        with signals_held_back():
            batches = _begin(loader)
    except OSError as error:
        raise WorkerError(f"The loader cannot start a process: {error}. {WAY_OUT}") from None
    waited = 0
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            waited += 1
            reason = f"{error}".strip()
            last = reason.rpartition("\n")[2]
            # (PyTorch cannot make NumPy's MemoryError again, and raises a RuntimeError.)
            if isinstance(error, MemoryError) or "MemoryError" in last:
                reason = _too_large(size)
            elif "Traceback" in reason:  # of an error in the process, of whatever words
                reason = f"A process of the loader failed: {last}."
            elif "timed out" in reason:
                reason = _reason_to_end(waited, bool(stops()), patience, size)
            else:
                reason = f"A process of the loader has died, for want of memory perhaps: {error}."
            if not reason:
                continue
            kill_children()
            raise WorkerError(reason) from None
        waited = 0
        yield batch


def _begin(loader: DataLoader[T]) -> Iterator[T]:
    """Starts the processes of a loader."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    # PyTorch's handler would raise its error anywhere in the training, where nobody takes it.
    is_of_pytorch = str(getattr(before, "__module__", "")).startswith("torch.")  # a loader's
    if before is None or is_of_pytorch:  # (None is a handler that no Python code has set.)
        before = signal.SIG_DFL
    signal.signal(signal.SIGCHLD, before)
    return batches


def _too_large(size: int) -> str:
    return (
        f"A batch of {size / 1e9:.1f} GB does not fit into the memory. Use a smaller --batch_size, "
        "or the same one in more --gradient_accumulation_steps."
    )


def _reason_to_end(waited: int, stops: bool, patience: float, size: int) -> str:
    """Why a wait of so many slices should end, or ""."""
    free = free_shared_memory()
    if waited >= GRACE and size and free is not None and free < size:
        return (
            f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free and a batch takes {size / 1e6:.1f} MB. "
            f"{WAY_OUT}"
        )
    if waited >= GRACE and stops:
        return "It was asked to stop while it waited for pictures."
    if waited >= patience:
        return (
            f"No batch has come for {waited * SLICE} seconds. Perhaps the disk of the pictures "
            "does not answer; --num_workers 0 does without processes that load."
        )
    return ""


def free_shared_memory() -> int | None:
    """Bytes that are free; None where nobody says, or there is no bound."""
    if not SHARED_MEMORY.is_dir():
        return None
    status = os.statvfs(SHARED_MEMORY)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def workers_that_fit(wanted: int, size: int, warn: Callable[[str], object]) -> int:
    """Number of processes of the loader: as many as wanted, if the shared memory can hold them.

    Any number of them gives the same batches.

    Args:
        wanted: `--num_workers`.
        size: Bytes of shared memory that a batch takes.
        warn: Function that prints a line for the user.
    """
    free = free_shared_memory()
    if free is None or not wanted:
        return wanted
    mine = free // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # Two batches are in or behind each process of the loader, and two in the training.
    fit = max(0, min(wanted, mine // size // 2 - 1))
    if fit < wanted:
        warn(
            f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free, too little for --num_workers {wanted} "
            f"and batches of {size / 1e6:.1f} MB. Training goes on with --num_workers {fit}, to "
            "the same result. `docker run --shm-size` gives more."
        )
    return fit
