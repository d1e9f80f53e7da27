"""Batches of the steps that are left, of which each process loads its own share."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_convert

from common.data.degradation import DegradationError
from common.data.patches import PatchDataset
from common.data.waiting import SLICE, wait_for, workers_that_fit
from common.errors import UserError
from common.signals import ignore_signals


def shares(batch_size: int, steps: range, parts: int, rank: int, processes: int) -> Iterator[range]:
    """Numbers of the patches of each micro-batch that a process takes."""
    size = batch_size // parts
    share = size // processes
    for micro_batch in range(steps.start * parts, steps.stop * parts):
        start = micro_batch * size + rank * share
        yield range(start, start + share)


def load_batches(
    patches: PatchDataset,
    steps: range,
    *,
    parts: int = 1,
    rank: int = 0,
    processes: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    stops: Callable[[], object] = bool,
    warn: Callable[[str], object] = print,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Loads LR and HR for each micro-batch, uint8, (N, 3, h, w) and (N, 3, H, W).

    Step `s` of batch size `B` takes the patches s * B to s * B + B - 1. The micro-batches of a step
    come one after the other, and each process takes an equal share of each, in the order of the
    ranks.

    Args:
        patches: Training patches, with the batch size of a step.
        steps: Optimizer steps.
        parts: Micro-batches of a step.
        rank: Number of this process.
        processes: Number of processes; `parts * processes` divides the batch size.
        num_workers: Processes that load, if there is shared memory for them; 0: this process loads.
        pin_memory: Whether to load into memory that a GPU can read by itself.
        stops: Function that says whether somebody has asked this process to stop.
        warn: Function that prints a line for the user.

    Raises:
        WorkerError: No batch comes any more.
        UserError: A degradation of the user's own has failed.
    """
    bytes_of_batch = batch_bytes(patches, patches.batch_size // parts // processes)
    num_workers = workers_that_fit(num_workers, bytes_of_batch, warn)
    # Any: PyTorch asks for lists here, but takes ranges as well.
    numbers: Iterator[Any] = shares(patches.batch_size, steps, parts, rank, processes)
    loader = DataLoader(
        patches,
        batch_sampler=numbers,
        num_workers=num_workers,
        collate_fn=default_convert,  # the data set makes whole batches
        # Without it, the loader would draw from the generator that resuming restores.
        generator=torch.Generator(),
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
        timeout=SLICE if num_workers else 0,
    )
    try:
        yield from wait_for(loader, stops, size=bytes_of_batch)
    except DegradationError as error:  # from a worker with a traceback before its last line
        reason = f"{error}".strip().splitlines()[-1].partition("DegradationError: ")
        raise UserError(f"--degradation: {reason[2] or reason[0]}") from error


def batch_bytes(patches: PatchDataset, count: int) -> int:
    """Bytes of so many patches, LR and HR, at the scale at which they are most."""
    lr_size = patches.patch_size // min(patches.scales)
    return count * 3 * (patches.patch_size**2 + lr_size**2)
