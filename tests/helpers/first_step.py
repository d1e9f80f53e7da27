"""Run by test_two_processes.py on one process and on two: what the first steps of a run see and do.

    python tests/helpers/first_step.py a2n OPTIONS OF train_a2n.py

Each process writes its patches of two steps, and the gradients of the first, to `rank-*.pt`.
"""

import importlib
import sys

import torch
import torch.nn.functional as F
from torch import nn

from common.data.load import load_pictures
from common.hub import find_network
from common.training.run import Run


def main() -> None:
    architecture = sys.argv.pop(1)
    args = importlib.import_module(f"train_{architecture}").parse_args()
    run = Run(args)
    model = find_network(architecture)(args.scale)
    scales = args.scale if isinstance(args.scale, list) else [args.scale]
    pictures = load_pictures(args, scales, say=run.print)
    prepared = run.accelerator.prepare(model)
    run.begin(prepared, pictures, [], [])
    batches = []
    for lr, hr in run.batches():
        if not batches:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()  # a process normalizes its part of the batch by itself
            model.scale = hr.shape[-1] // lr.shape[-1]
            run.accelerator.backward(F.mse_loss(prepared(lr), hr))
        batches.append((lr, hr))
        if len(batches) == 2:
            break
    result = {
        "num_processes": run.accelerator.num_processes,
        "batches": batches,
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
    }
    torch.save(result, args.output_dir / f"rank-{run.accelerator.process_index}.pt")


if __name__ == "__main__":
    main()
