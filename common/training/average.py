"""The exponential moving average of the weights."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage(AveragedModel):
    """PyTorch's `AveragedModel`, with its values and its state dict, that no step waits for.

    PyTorch's own lists and sorts all tensors at each step, and copies a number to the device, which
    waits for it. Here the lists are made once, so the network must keep its tensors.
    """

    module: nn.Module

    def __init__(self, copy: nn.Module, network: nn.Module, decay: float) -> None:
        """
        Args:
            copy: Network like `network`, of which a copy becomes the average.
            network: Network that is trained, on the device, as it stays.
            decay: Share of the old average that a step leaves.
        """
        super().__init__(copy, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._pairs = [
            ([tensor.detach() for tensor in ours], [tensor.detach() for tensor in theirs])
            for ours, theirs in (
                (self.module.parameters(), network.parameters()),
                (self.module.buffers(), network.buffers()),
            )
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights of a step into the average, of the first step all of them."""
        (parameters, new_parameters), (buffers, new_buffers) = self._pairs
        if self.n_averaged:  # it is on the CPU
            assert self.multi_avg_fn is not None
            self.multi_avg_fn(parameters, new_parameters, self.n_averaged)
        else:
            torch._foreach_copy_(parameters, new_parameters)
        if buffers:
            torch._foreach_copy_(buffers, new_buffers)
        self.n_averaged += 1
