"""Run by test_scripts.py on one process and on two: what the first steps of a run see and do.

Each process writes its patches of two steps, and the gradients of the first, to `rank-*.pt`.
"""

import torch
import torch.nn.functional as F

import train_a2n
from common.run import Run


def main() -> None:
    args = train_a2n.parse_args()
    run = Run(args)
    model = train_a2n.A2N(args.scale)
    run.initialize(model)
    prepared = run.accelerator.prepare(model)
    run.resume()
    batches = []
    for lr, hr in run.batches():
        if not batches:
            run.accelerator.backward(F.l1_loss(prepared(lr), hr))
        batches.append((lr, hr))
        if len(batches) == 2:
            break
    result = {
        "num_processes": run.accelerator.num_processes,
        "lr": torch.stack([lr for lr, _ in batches]),
        "hr": torch.stack([hr for _, hr in batches]),
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
    }
    torch.save(result, args.output_dir / f"rank-{run.accelerator.process_index}.pt")


if __name__ == "__main__":
    main()
