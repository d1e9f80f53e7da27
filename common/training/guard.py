"""Steps that would ruin the weights: seen on the device, before the step, without a wait."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common.tables import plural
from common.training.log import RunningMeans
from common.training.together import Processes

if TYPE_CHECKING:
    from accelerate.optimizer import AcceleratedOptimizer

MANY = 0.5  # share of skipped steps that is worth a warning


class StepGuard:
    """Looks before each step of the optimizers whether all gradients are finite.

    A fused optimizer then leaves the weights as they are, as it does for the scaler of fp16. The
    next log ends the run, with sound weights. In fp16 the scaler looks itself, and skipped steps
    belong to its work: its loss scale falls until the gradients fit. They are counted, since fused
    optimizers tell nobody.
    """

    def __init__(
        self, optimizers: Sequence["AcceleratedOptimizer"], device: torch.device, fp16: bool
    ) -> None:
        """
        Args:
            optimizers: Prepared optimizers of the run.
            device: Device that computes.
            fp16: Whether a scaler decides which steps are skipped.
        """
        self._fp16, self._one = fp16, torch.ones((), device=device)
        self._bad = torch.zeros((), device=device)  # steps, none of which the scaler skipped
        self._step: Tensor | None = None  # 1 if the scaler skipped this step
        for prepared in optimizers:
            prepared.optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Any, *_: object) -> None:
        if self._fp16:
            # A scaler gives it to fused optimizers; it does not call the others for a bad step.
            self._step = getattr(optimizer, "found_inf", torch.zeros_like(self._one)).clone()
            return
        gradients = [
            weights.grad
            for group in optimizer.param_groups
            for weights in group["params"]
            if weights.grad is not None
        ]
        if gradients:
            found = torch.zeros_like(self._one)
            # What PyTorch's scaler calls: in one kernel, and times 1 the gradients stay equal.
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, self._one)
            self._bad += found
            if getattr(optimizer, "_step_supports_amp_scaling", False):  # it is fused
                optimizer.found_inf = found

    def values(self, parts: int) -> dict[str, Tensor]:
        """Value to log for the step that was just done: in fp16, whether it was skipped.

        Args:
            parts: Micro-batches of a step, over which `RunningMeans` takes its means.
        """
        step, self._step = self._step, None
        skipped = self._one if step is None else step
        return {"share_skipped": parts * skipped} if self._fp16 else {}

    def bad(self) -> list[str]:
        """What was found since the run began, in words. Waits for the device."""
        count = int(self._bad)
        return [f"the gradients of {plural(count, 'step')} are not finite"] if count else []

    def finite_means(
        self, means: RunningMeans, network: nn.Module, processes: Processes, step: int
    ) -> dict[str, float]:
        """Means of the losses since the last log. Waits for the device.

        Raises:
            UserError: A loss, a gradient or a weight is not finite.
        """
        values = means.means(processes)
        if bad := not_finite(values, network) + self.bad():
            processes.fail(
                f"Training diverged before step {step}: {', '.join(bad)}. Try a smaller "
                "--learning_rate, more --lr_warmup_steps, or bf16 instead of fp16, in another "
                "--output_dir: anew, or by --resume_from_checkpoint PATH --allow_recipe_change."
            )
        return values


def skipped_in_words(share: float, steps: int) -> str:
    """Warning for a log of fp16, "" if most of its steps were done."""
    if share <= MANY:
        return ""
    return (
        f"fp16 skipped {share:.0%} of the last {plural(steps, 'step')}, whose gradients were too "
        "large for it. If that goes on, use --mixed_precision bf16, or a smaller --learning_rate."
    )


def not_finite(means: Mapping[str, float], model: nn.Module) -> list[str]:
    """Losses and weights that are infinite or no numbers, in words. Waits for the device."""
    bad = [f"{name} is {value}" for name, value in means.items() if not isfinite(value)]
    finite = torch.stack([weights.isfinite().all() for weights in model.parameters()])
    return bad if finite.all() else [*bad, "there are weights that are not finite"]
