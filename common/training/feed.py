"""Batches on their way to the network: cut in loaders or on the device, then floats."""

import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from common.data.batches import load_batches, shares
from common.data.degradation import NONE
from common.data.load import TrainingPictures
from common.data.on_device import DevicePatches
from common.data.patches import PatchDataset
from common.device import kernel_search
from common.images.tensors import to_float
from common.options import Arguments
from common.training.together import Processes
from common.workers import count_cores

SHARE = 0.25  # of a GPU's free memory for pictures
# Pixels of HR in a batch from which workers pay on a GPU (the paper's: A2N 524,000, VDSR and SRGAN
# 147,000, SRCNN 17,000). Cutting them takes less than a millisecond; so does sending them.
LARGE_BATCH = 2**18


def feed(
    args: Arguments,
    pictures: TrainingPictures,
    steps: range,
    processes: Processes,
    device: torch.device,
    stops: Callable[[], object],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives this process its share of each micro-batch: LR and HR, RGB in [0, 1], on the device.

    While the batches are used, cuDNN may look for its fastest algorithms: all have one size.

    Args:
        args: Options of the run.
        pictures: Pictures of the run.
        steps: Optimizer steps.
        processes: Processes of the run.
        device: Device that computes.
        stops: Function that says whether somebody has asked this process to stop.

    Raises:
        StreamError: A process could not get its part of a stream.
        WorkerError: No batch comes any more.
        UserError: The pictures do not fit on the device.
    """
    portions = pictures.patches.portions(
        steps.start,
        steps.stop,
        processes.agree,
        deletes=processes.is_main_of_machine,
        stops=stops,
    )
    warned: list[str] = []

    def warn_once(text: str) -> None:  # a stream has many portions
        if not warned:
            processes.warn(text)
        warned.append(text)

    with kernel_search(True):
        for patches, its_steps in portions:
            for lr, hr in _batches(
                args, pictures, patches, its_steps, processes, device, stops, warn_once
            ):
                if args.compile and device.type == "cuda":
                    # CUDA graphs: what the last step made may be overwritten.
                    torch.compiler.cudagraph_mark_step_begin()
                yield to_float(lr, device), to_float(hr, device)


def number_of_workers(args: Arguments, processes: int, device: torch.device) -> int:
    """`--num_workers`, or what is best for the batches of a process."""
    if args.num_workers is not None:
        return args.num_workers
    if args.degradation != NONE:  # whose patches take milliseconds each
        share = count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        return min(16, max(1, share)) if device.type == "cuda" else 0
    parts = args.gradient_accumulation_steps * processes
    is_large = args.batch_size // parts * args.patch_size**2 >= LARGE_BATCH
    return 2 if is_large and device.type == "cuda" else 0


def _batches(
    args: Arguments,
    pictures: TrainingPictures,
    patches: PatchDataset,
    steps: range,
    processes: Processes,
    device: torch.device,
    stops: Callable[[], object],
    warn: Callable[[str], object],
) -> Iterator[tuple[Tensor, Tensor]]:
    parts, rank, count = args.gradient_accumulation_steps, processes.rank, processes.count
    if placed := _place(args, pictures, patches, processes, device):
        for numbers in shares(patches.batch_size, steps, parts, rank, count):
            yield placed.batch(numbers)
        return
    yield from load_batches(
        patches,
        steps,
        parts=parts,
        rank=rank,
        processes=count,
        num_workers=number_of_workers(args, count, device),
        pin_memory=device.type == "cuda",
        stops=stops,
        warn=warn,
    )


def bytes_on_device(
    args: Arguments, pictures: TrainingPictures, processes: Processes, device: torch.device
) -> int:
    """Bytes that the pictures of a run will take on the device; 0 for a stream, not known yet."""
    patches = pictures.patches
    if not isinstance(patches, PatchDataset):
        return 0
    goes = goes_to_device(args, pictures, patches, processes, device)
    return DevicePatches.bytes_needed(patches) if goes else 0


def goes_to_device(
    args: Arguments,
    pictures: TrainingPictures,
    patches: PatchDataset,
    processes: Processes,
    device: torch.device,
) -> bool:
    """Whether patches are cut on the device, the same on all processes."""
    if args.pictures_on != "auto":
        return args.pictures_on == "device"
    is_stream = patches is not pictures.patches  # its next part would come in a training step
    if patches.degradation or device.type != "cuda" or is_stream:
        return False
    free = torch.cuda.mem_get_info(device)[0]
    return all(processes.gather(DevicePatches.bytes_needed(patches) <= SHARE * free))


def _place(
    args: Arguments,
    pictures: TrainingPictures,
    patches: PatchDataset,
    processes: Processes,
    device: torch.device,
) -> DevicePatches | None:
    """Puts the pictures on the device, or returns None where they stay in the loaders.

    Raises:
        UserError: They do not fit, and --pictures_on asks for the device.
    """
    if not goes_to_device(args, pictures, patches, processes, device):
        return None
    needed = DevicePatches.bytes_needed(patches)
    placed: list[DevicePatches] = []
    if error := processes.error_of(lambda: placed.append(DevicePatches(patches, device))):
        processes.fail(
            f"--pictures_on device: the pictures, {needed / 1e9:.2f} GB, do not fit there "
            f"({error[:150]}). Leave it out, or give --pictures_on loader."
        )
    return placed[0]
