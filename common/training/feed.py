"""Batches on their way to the network: from whichever portion of the pictures, as floats."""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.data.batches import load_batches
from common.data.load import TrainingPictures
from common.device import kernel_search
from common.images.tensors import to_float
from common.options import Arguments
from common.training.together import Processes


def feed(
    args: Arguments,
    pictures: TrainingPictures,
    steps: range,
    processes: Processes,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives this process its share of each micro-batch: LR and HR, RGB in [0, 1], on the device.

    While the batches are used, cuDNN may look for its fastest algorithms: all have one size.

    Args:
        args: Options of the run.
        pictures: Pictures of the run.
        steps: Optimizer steps.
        processes: Processes of the run.
        device: Device that computes.

    Raises:
        StreamError: A process could not get its part of a stream.
    """
    portions = pictures.patches.portions(
        steps.start, steps.stop, processes.agree, deletes=processes.is_main_of_machine
    )
    with kernel_search(True):
        for patches, its_steps in portions:
            for lr, hr in load_batches(
                patches,
                its_steps,
                parts=args.gradient_accumulation_steps,
                rank=processes.rank,
                processes=processes.count,
                num_workers=args.num_workers,
                pin_memory=device.type == "cuda",
            ):
                if args.compile and device.type == "cuda":
                    # CUDA graphs: what the last step made may be overwritten.
                    torch.compiler.cudagraph_mark_step_begin()
                yield to_float(lr, device), to_float(hr, device)
