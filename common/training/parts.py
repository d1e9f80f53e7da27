"""`--gradient_accumulation_steps auto`: the fewest parts of a batch that fit into the memory."""

import torch
import torch.nn.functional as F

from common.data.load import TrainingPictures
from common.device import forget, is_out_of_memory
from common.network import SuperResolutionModel
from common.options import Arguments
from common.training.feed import bytes_on_device
from common.training.together import Processes

AUTO = "auto"
# Copies of the weights that the optimizer makes at its first step, Adam two.
COPIES = 2


def find_parts(
    network: SuperResolutionModel,
    args: Arguments,
    processes: Processes,
    pictures: TrainingPictures,
) -> int:
    """Tries one part after the other on black patches, forward and backward, until one fits.

    No process waits for another in between, since the network is tried without its wrappers. So it
    is not compiled either, which takes more memory, hardly ever less.

    Args:
        network: Network that is trained, without the wrappers of Accelerate, on the device.
        args: Options of the run. The processes divide `--batch_size`.
        processes: Processes of the run.
        pictures: Pictures of the run, for which room is left where they come to the device.

    Returns:
        Number of parts, the same on all processes.

    Raises:
        UserError: Not even one patch at a time fits.
    """
    share = args.batch_size // processes.count
    device = next(network.parameters()).device
    taken = bytes_on_device(args, pictures, processes, device)
    for parts in (number for number in range(1, share + 1) if share % number == 0):
        if all(processes.gather(fits(network, share // parts, args.patch_size, taken))):
            if parts > 1:
                processes.print(f"A batch fits into the memory in {parts} parts.")
            return parts
    side = args.patch_size
    processes.fail(
        f"Not even one patch of {side}x{side} at a time fits into the memory. Give a smaller "
        "--patch_size, or --mixed_precision bf16."
    )


def fits(network: SuperResolutionModel, patches: int, patch_size: int, taken: int) -> bool:
    """Whether a training step on so many patches finds memory; the network stays as it is.

    Args:
        network: See `find_parts`.
        patches: Number of patches.
        patch_size: Side of an HR patch.
        taken: Bytes of the device that something else will take.
    """
    device = next(network.parameters()).device
    side = patch_size // network.scale
    found: Exception | None = None
    try:
        spare = [torch.empty_like(p) for p in network.parameters() for _ in range(COPIES)]
        spare.append(torch.empty(taken, dtype=torch.uint8, device=device))
        lr = torch.zeros(patches, 3, side, side, device=device)
        sr = network(lr.to(memory_format=torch.channels_last))
        F.mse_loss(sr, torch.zeros_like(sr)).backward()
        del spare, lr, sr
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = error
    network.zero_grad(set_to_none=True)
    if found:
        forget(found)  # outside of `except`, which would keep the tensors of the error
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return not found
