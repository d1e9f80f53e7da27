"""Muon: the steps of kernels between feature maps, made orthogonal.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). PyTorch's own
takes matrices only, so it knows no convolutions.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
LEAST_CHANNELS = 16  # of a feature map; pictures have fewer
# Of the iteration, which brings all singular values between 0.7 and 1.2, not to 1: that is faster.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """Makes all singular values about 1, by Newton and Schulz's iteration of fifth order.

    Args:
        matrices: Shape (N, rows, columns).

    Returns:
        The same shape; singular values between 0.7 and 1.2, where those given are not far smaller
        than the largest.
    """
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # a x + (b xx' + c xx'xx') x
    return x.mT if tall else x


def is_hidden(weight: Tensor) -> bool:
    """Whether it is the kernel of a convolution from feature maps to feature maps."""
    return weight.ndim == 4 and min(weight.shape[:2]) >= LEAST_CHANNELS


class Muon(torch.optim.AdamW):
    """Muon for kernels between feature maps, AdamW for all other weights.

    A kernel is a matrix, a row per output channel. Its steps are scaled to the size that Adam's
    usually have (J. Liu et al., "Muon is scalable for LLM training", 2025), so that one learning
    rate does for all.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes a step, by the gradients that the weights have, or by those of `closure`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None and is_hidden(weight):
                    alike[weight.shape].append(weight)
                    gradients[weight], weight.grad = weight.grad, None
            for weights in alike.values():
                self._step_kernels(weights, gradients, group["lr"], group["weight_decay"])
        super().step()  # passes over weights without a gradient
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return loss

    def _step_kernels(
        self,
        weights: list[Tensor],
        gradients: dict[Tensor, Tensor],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        """Makes the step of kernels of one shape."""
        means = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"] = torch.tensor(0.0)  # AdamW looks for it where a state is loaded
                state["mean"] = torch.zeros_like(weight)
            state["step"] += 1
            state["mean"].lerp_(gradients[weight], 1 - MOMENTUM)
            means.append(gradients[weight].lerp(state["mean"], MOMENTUM).flatten(1))  # Nesterov's
        size = 0.2 * max(means[0].shape) ** 0.5
        for weight, step in zip(weights, orthogonal(torch.stack(means)), strict=True):
            weight.mul_(1 - learning_rate * weight_decay)
            weight.sub_(step.view(weight.shape), alpha=learning_rate * size)
