"""What a checkpoint of A2N costs: seconds, megabytes, and the share of the time of a training.

    python -m benchmarks.checkpoint --data_dir FOLDER

`train_a2n.py` with its own batch and patches saves after every step, as it does: with checksums,
flushed to the disk, the oldest of three deleted. So steps and checkpoints are timed in turns.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import datasets
import torch
from torch import Tensor

import train_a2n
from benchmarks.measure import benchmark_parser, report
from benchmarks.training import DEVICE, NEVER, data_options
from common.options import whole
from common.training.folder import list_checkpoints
from common.training.log import Log
from common.training.run import Run
from common.training.state import Checkpoints

SECONDS: dict[str, list[float]] = {"step": [], "checkpoint": []}  # of one run


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


class TimedRun(Run):
    """Notes the seconds of every step, from one call of `end_step` to the next."""

    before: float  # clock at the end of the last step

    def end_step(self, **values: Tensor | float) -> None:
        if self.step:
            SECONDS["step"].append(now() - self.before)
        super().end_step(**values)
        self.before = now()


class TimedCheckpoints(Checkpoints):
    """Notes the seconds of every checkpoint but the first."""

    def save(self, log: Log, **options: Any) -> None:
        start = now()
        super().save(log, **options)
        if self._state.step > 1:
            SECONDS["checkpoint"].append(now() - start)


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=20)
    parser.add_argument("--batch_size", type=whole(), default=32, help="default: %(default)s")
    parser.add_argument("--mixed_precision", default="bf16", help="default: %(default)s")
    args = parser.parse_args(argv)
    with (
        TemporaryDirectory() as name,
        mock.patch("train_a2n.Run", TimedRun),
        mock.patch("common.training.run.Checkpoints", TimedCheckpoints),
    ):
        datasets.config.HF_DATASETS_CACHE = Path(name, "cache")
        folder = Path(name, "run")
        options = [
            *("--batch_size", args.batch_size, "--mixed_precision", args.mixed_precision),
            *("--max_train_steps", args.rounds + 1, "--checkpointing_steps", 1),
            *("--validation_steps", NEVER, "--report_to", "none", "--output_dir", folder),
            *data_options(args.data_dir),
        ]
        train_a2n.main(list(map(str, options)))
        sizes = [path.stat().st_size for path in list_checkpoints(folder)[-1].iterdir()]
    medians = {name: sorted(values)[len(values) // 2] for name, values in SECONDS.items()}
    share = medians["checkpoint"] / (1000 * medians["step"] + medians["checkpoint"])
    report(
        *(args, "seconds", SECONDS, [("checkpoint", "step")], DEVICE),
        megabytes=round(sum(sizes) / 1e6, 2),
        share_of_time_at_checkpointing_steps_1000=round(share, 6),
        setting={"batch_size": args.batch_size, "mixed_precision": args.mixed_precision},
    )


if __name__ == "__main__":
    main()
