"""Batches of the steps that are left, of which each process loads its own share."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_convert

from common.data.patches import PatchDataset
from common.workers import ignore_signals


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
        num_workers: Processes that load; 0: this process loads.
        pin_memory: Whether to load into memory that a GPU can read by itself.
    """
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
    )
    yield from loader
