"""Speed of `accelerate launch train_a2n.py` against `python train_a2n.py`.

    python -m benchmarks.launch --data_dir FOLDER

Both run as they are used, with the same data and options, in turns. The time is that between two
lines of `metrics.jsonl`, one after N steps and one after 2N: starting, validating and saving are
not in it. One process each, also where there are several GPUs.

`accelerate launch` allows a process on the CPU one thread, unless the script chooses otherwise, as
ours do. The aim is a ratio of 1.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/launch.py`

import common.start

import torch

from benchmarks.measure import SCALE, benchmark_parser, report, take_turns
from common.options import whole

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
VARIANTS = {
    "python": [sys.executable],
    "accelerate launch": [
        *(sys.executable, *LAUNCH, "--mixed_precision", "no", "--dynamo_backend", "no")
    ],
}


def steps_per_second(variant: str, args: argparse.Namespace, cache: str) -> float:
    """Trains in a new folder, and watches the log grow."""
    with TemporaryDirectory() as folder:
        output_dir, errors = Path(folder, "out"), Path(folder, "errors.txt")
        options = {
            "scale": SCALE,
            "patch_size": args.patch_size,
            "batch_size": args.batch_size,
            "max_train_steps": 2 * args.steps,
            "logging_steps": args.steps,
            "validation_steps": 2 * args.steps,
            "checkpointing_steps": 2 * args.steps,
            "mixed_precision": "no",
            "report_to": "none",
            "output_dir": output_dir,
        }
        options |= (
            {"train_data_dir": args.data_dir} if args.data_dir else {"dataset_name": "sample"}
        )
        words = [word for key, value in options.items() for word in (f"--{key}", f"{value}")]
        with open(errors, "wb") as file:
            process = subprocess.Popen(
                [*VARIANTS[variant], "train_a2n.py", *words],
                cwd=ROOT,
                env=os.environ | {"HF_DATASETS_CACHE": cache},
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        times: list[float] = []
        while process.poll() is None:
            if len(times) < 2 and _lines(output_dir / "metrics.jsonl") > len(times):
                times.append(perf_counter())
            sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{variant}: {errors.read_text()[-2000:]}")
    return args.steps / (times[1] - times[0])


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=5)
    parser.add_argument(
        "--patch_size", type=whole(), default=48, help="of HR (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=whole(), default=8, help="default: %(default)s")
    parser.add_argument(
        "--steps",
        type=whole(most=50),  # the first validation comes after step 100
        default=50,
        help="that are timed (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    args.data_dir = args.data_dir and args.data_dir.resolve()

    with TemporaryDirectory() as cache:
        results = take_turns(
            {variant: partial(steps_per_second, variant, args, cache) for variant in VARIANTS},
            args.rounds,
        )
    setting = {key: getattr(args, key) for key in ("batch_size", "patch_size", "steps")}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = [("accelerate launch", "python")]
    report(args, "steps a second", results, pairs, device, setting=setting)


if __name__ == "__main__":
    main()
