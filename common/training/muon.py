"""Muon: the steps of kernels between feature maps, made orthogonal.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). PyTorch's own
takes matrices only, so it knows no convolutions.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
LEAST_CHANNELS = 16  # of a feature map; pictures have fewer
# Coefficients of the iteration. They bring singular values between 0.7 and 1.2 only; exact ones
# would need more iterations.
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
    rate does for all. Its momentum is `MOMENTUM`, whatever the betas are.
    """

    def __init__(self, parameters: Iterable[Any], **settings: Any) -> None:
        """
        Args:
            parameters: Weights, or groups of weights with settings of their own.
            settings: Those of AdamW.
        """
        # Fused, it gets `found_inf` and `grad_scale` as tensors, and waits for none of them.
        super().__init__(parameters, fused=True, **settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of a checkpoint, also of one whose Muon was not fused yet."""
        groups = [group | {"fused": True} for group in state_dict["param_groups"]]
        super().load_state_dict(state_dict | {"param_groups": groups})

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
        # It passes over weights without a gradient. As any Adam that was made in this process may
        # have wrapped AdamW's function by that of the hooks, which would run them a second time,
        # it is unwrapped.
        inspect.unwrap(torch.optim.AdamW.step)(self)
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
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["mean"] = torch.zeros_like(weight)
                self.state[weight]["step"] = torch.tensor(0.0)  # AdamW wants it in a loaded state
        new = torch.stack([gradients[weight].flatten(1) for weight in weights])
        if (scale := getattr(self, "grad_scale", None)) is not None:
            new = new / scale
        means = torch.stack([self.state[weight]["mean"].flatten(1) for weight in weights])
        means = means.lerp(new, 1 - MOMENTUM)
        steps = orthogonal(new.lerp(means, MOMENTUM))  # by Nesterov's momentum
        size = learning_rate * 0.2 * max(steps.shape[1:]) ** 0.5
        for weight, mean, step in zip(weights, means, steps, strict=True):
            decayed = weight * (1 - learning_rate * weight_decay)
            self._put(self.state[weight]["mean"], mean.view(weight.shape))
            self._put(weight, decayed.sub_(step.view(weight.shape), alpha=size))

    def _put(self, old: Tensor, new: Tensor) -> None:
        """Puts values into a tensor, unless a gradient is not finite (as fused AdamW does)."""
        found = getattr(self, "found_inf", None)
        old.copy_(new if found is None else torch.where(found > 0, old, new))
