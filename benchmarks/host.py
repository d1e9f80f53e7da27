"""What the host does in a training step besides the network: now, and in an older clone.

    python -m benchmarks.host
    git clone . ../older && git -C ../older checkout f936dfe
    python -m benchmarks.host --network a2n --before ../older

The training scripts themselves, with the paper's batches and an average of the weights. Their
networks are taken out: each gives a constant image, so that of its weights one tensor has a
gradient. What is left are patches, loss, optimizer and bookkeeping:

    workers 0  the training cuts its patches
    workers 2  two workers of the loader cut them
    device     with --pictures_on device; there the CPU also does what a GPU would

Milliseconds of CPU time of the thread that trains, medians of the steps of a turn. Time in which
it waits, for patches or on a busy machine, does not count. Each variant lives in a process of its
own, and they wait for their turns.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import thread_time
from typing import Any, TextIO

# A process that looks at an older clone imports what is in that clone, and nothing from here.
sys.path.insert(0, sys.argv[2] if "--serve" in sys.argv[1:2] else f"{Path(__file__).parents[1]}")

from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
NEVER = str(10**9)  # steps
NETWORKS = {
    "srcnn": ("SRCNN",),
    "vdsr": ("VDSR",),
    "srgan": ("SRGAN", "Discriminator"),
    "a2n": ("A2N",),
}
PHASE_2 = ["--pretrain_steps", "0", "--content_weight", "0"]  # VGG would be a network as well
VARIANTS = {
    "workers 0": ["--num_workers", "0", "--pictures_on", "loader"],
    "workers 2": ["--num_workers", "2", "--pictures_on", "loader"],
    "device": ["--pictures_on", "device"],
}
PARTS = ("batch", "step", "books")  # of a step: `Run.batches`, the script, `Run.end_step`


def take_out(network: type[nn.Module]) -> None:
    """Makes the networks of a class give constant images, or a number for each image."""

    def forward(self: Any, images: Tensor, scale: int | None = None) -> Tensor:
        number = next(self.parameters()).flatten()[0]
        if not hasattr(self, "scale"):
            return number + images[:, 0, 0, :1]  # what the generator learns from
        height, width = (side * (scale or self.scale) for side in images.shape[-2:])
        return number.expand(len(images), 3, height, width)

    network.forward = forward


def serve(network: str, options: Sequence[str], ask: TextIO, reply: TextIO) -> None:
    """Runs `train_{network}.py`, so many steps as a line says, and replies by their times.

    A line of the reply is a JSON list of the medians of `PARTS`, in milliseconds.
    """
    script: Any = importlib.import_module(f"train_{network}")
    for name in NETWORKS[network]:
        take_out(getattr(script, name))

    class Timed(script.Run):
        def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
            if until == 0:
                return
            batches = super().batches(until)
            for line in ask:
                times = []
                for _ in range(int(line)):
                    start = thread_time()
                    batch = next(batches)
                    got = thread_time()
                    yield batch
                    times.append((got - start, self.done - got, thread_time() - self.done))
                print(
                    json.dumps([1e3 * median(part) for part in zip(*times, strict=True)]),
                    file=reply,
                )
                reply.flush()
            raise SystemExit(0)  # before a later phase, which would have no turns

        def end_step(self, **values: Any) -> None:
            self.done = thread_time()
            super().end_step(**values)

    script.Run = Timed
    sys.argv = [f"train_{network}.py", *options]
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        script.main()


def start(
    root: Path, network: str, variant: str, data: Sequence[str], folder: Path
) -> subprocess.Popen[str]:
    """Starts `serve` in a process that has the code of a clone."""
    options = VARIANTS[variant.removesuffix(", before")]
    if "before" in variant:  # it had no --pictures_on yet
        options = options[:2]
    options = [*data, *options, *(PHASE_2 if network == "srgan" else [])]
    options += ["--ema_decay", "0.999", "--cpu_threads", "1", "--report_to", "none"]
    options += ["--output_dir", f"{folder / variant}"]
    for steps in ("max_train_steps", "validation_steps", "checkpointing_steps"):
        options += [f"--{steps}", NEVER]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--serve", str(root), network, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Each clone decodes for itself; a user's cache stays as it is.
        env=os.environ | {"HF_DATASETS_CACHE": f"{folder / 'cache'}"},
    )


def measure(process: subprocess.Popen[str], steps: int, found: list[list[float]]) -> float:
    """Milliseconds of a step; their parts are added to `found`."""
    assert process.stdin
    assert process.stdout
    print(steps, file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"It ended with exit status {process.wait()}: {process.args!r}")
    found.append(json.loads(line))
    return sum(found[-1])


def main(argv: Sequence[str] | None = None) -> None:
    from benchmarks.measure import benchmark_parser, report, take_turns
    from benchmarks.training import data_options
    from common.options import whole

    parser = benchmark_parser(__file__, __doc__, rounds=7)
    parser.add_argument("--before", type=Path, help="clone of this repository, at an older commit")
    parser.add_argument("--network", choices=NETWORKS, default="srcnn")
    parser.add_argument(
        "--steps", type=whole(), default=50, help="of a turn (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    args.output = args.output.with_stem(f"{args.output.stem}_{args.network}")
    data = [f"{word}" for word in data_options(args.data_dir and args.data_dir.resolve())]

    roots: dict[str, Path] = dict.fromkeys(VARIANTS, ROOT)
    if args.before:
        roots |= {f"workers {n}, before": args.before.resolve() for n in (0, 2)}
    found: dict[str, list[list[float]]] = {variant: [] for variant in roots}
    with TemporaryDirectory() as folder, ExitStack() as ends:
        turns = {}
        for variant, root in roots.items():
            process = start(root, args.network, variant, data, Path(folder))
            ends.enter_context(process)  # which ends it by closing its input
            turns[variant] = partial(measure, process, args.steps, found[variant])
        results = take_turns(turns, args.rounds)
    parts = {}
    for variant, times in found.items():
        medians = map(median, zip(*times[1:], strict=True))  # without the round that warms up
        parts[variant] = {p: round(ms, 3) for p, ms in zip(PARTS, medians, strict=True)}
    pairs = [
        (before, variant)
        for before in roots
        if before.endswith("before")
        for variant in (before.removesuffix(", before"), "device")
    ]
    setting = {"network": args.network, "steps": args.steps, "ema_decay": 0.999, "before": None}
    if args.before:
        command = ["git", "-C", args.before, "log", "-1", "--format=%h %cs"]
        setting["before"] = subprocess.check_output(command, text=True).strip()
    report(args, "milliseconds a step", results, pairs, setting=setting, medians_of_parts=parts)


if __name__ == "__main__":
    if "--serve" in sys.argv[1:2]:
        with os.fdopen(os.dup(1), "w") as pipe:
            serve(sys.argv[3], sys.argv[4:], sys.stdin, pipe)
    else:
        main()
