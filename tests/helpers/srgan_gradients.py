"""Run by test_phases.py: which networks have gradients whenever an optimizer of SRGAN steps.

    python tests/helpers/srgan_gradients.py FOLDER OPTIONS OF train_srgan.py

Each process writes to `FOLDER/rank-*.json`, for each such step, which optimizer it is and the share
of the parameters of the generator and of the discriminator that have a gradient; and the sums of
all parameters at the end.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import train_srgan

NAMES = ("pretraining", "generator", "discriminator")  # in the order of their making


made: list[torch.optim.Optimizer] = []


class Adam(torch.optim.Adam):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        made.append(self)


def main() -> None:
    folder = Path(sys.argv.pop(1))
    torch.optim.Adam = Adam
    steps = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen = {"optimizer": NAMES[made.index(optimizer)]}
        for name, other in list(zip(NAMES, made, strict=True))[1:]:
            parameters = [p for group in other.param_groups for p in group["params"]]
            seen[name] = sum(p.grad is not None for p in parameters) / len(parameters)
        steps.append(seen)

    register_optimizer_step_pre_hook(look)
    train_srgan.main()
    sums = [p.sum().item() for adam in made for group in adam.param_groups for p in group["params"]]
    file = folder / f"rank-{os.environ.get('RANK', 0)}.json"
    file.write_text(json.dumps({"steps": steps, "sums": sums}))


if __name__ == "__main__":
    main()
