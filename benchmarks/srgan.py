"""Speed of SRGAN's two phases: float32 and bfloat16, as they are and compiled.

    python -m benchmarks.srgan --data_dir FOLDER

`train_srgan.py` itself, x4, with the paper's networks and HR patches of 96x96. The first phase is
the generator's alone; the second also has the discriminator and VGG19, whose random weights take as
long as any. Each variant lives in a process of its own, and they wait for their turns.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import datasets
import torchvision
from safetensors.torch import save_file

from benchmarks.measure import benchmark_parser, processes, report, take_turns
from benchmarks.training import DEVICE, NEVER, data_options, run_script
from common.options import whole

VARIANTS = ("float32", "bf16", "float32, compiled", "bf16, compiled")


def work(
    pipe: Connection, variant: str, args: argparse.Namespace, phase: int, folder: Path
) -> None:
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    options = [
        *("--pretrain_steps", NEVER if phase == 1 else 0, "--max_train_steps", NEVER),
        *("--batch_size", args.batch_size, "--vgg_weights", folder / "vgg19.safetensors"),
        *("--mixed_precision", "bf16" if "bf16" in variant else "no"),
        *("--output_dir", folder / f"{phase}, {variant}", *data_options(args.data_dir)),
        *(["--compile"] if "compiled" in variant else []),
    ]
    run_script("srgan", options, pipe)


def seconds_per_step(pipe: Connection, steps: int) -> float:
    pipe.send(steps)
    seconds, _ = pipe.recv()
    return seconds / steps


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=5)
    parser.add_argument("--batch_size", type=whole(), default=16, help="default: %(default)s")
    steps = 50 if DEVICE.type == "cuda" else 2
    parser.add_argument(
        "--steps", type=whole(), default=steps, help="of a turn (default here: %(default)s)"
    )
    args = parser.parse_args(argv)
    args.data_dir = args.data_dir and args.data_dir.resolve()

    results: dict[str, list[float]] = {}
    pairs: list[tuple[str, str]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        vgg = torchvision.models.vgg19().features
        weights = {f"features.{name}": tensor for name, tensor in vgg.state_dict().items()}
        save_file(weights, folder / "vgg19.safetensors")
        for phase in (1, 2):
            with processes(work, VARIANTS, args, phase, folder) as pipes:
                turns = {
                    variant: partial(seconds_per_step, pipes[variant], args.steps)
                    for variant in VARIANTS
                }
                found = take_turns(turns, args.rounds)
            results |= {f"phase {phase}, {variant}": values for variant, values in found.items()}
            names = [f"phase {phase}, {variant}" for variant in VARIANTS]
            pairs += [(names[0], other) for other in names[1:]] + [(names[1], names[3])]
    setting = {key: getattr(args, key) for key in ("batch_size", "steps")}
    report(args, "seconds a step", results, pairs, DEVICE, setting=setting)


if __name__ == "__main__":
    main()
