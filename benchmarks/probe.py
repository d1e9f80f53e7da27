"""A training script looked at while it runs, unchanged: its speed, its operations, its waits.

    python -m benchmarks.probe rate train_a2n.py --dataset_name sample --batch_size 8
    python -m benchmarks.probe profile train_srgan.py --mixed_precision bf16
    python -m benchmarks.probe sync train_vdsr.py --compile

rate     steps a second, share of the time that waits for patches, greatest memory of the GPU
profile  operations by time over 10 steps, and how long the GPU was busy: if that is far less than a
         step takes, the host does not start its work fast enough
sync     places of a step at which PyTorch waits for the GPU

The steps of a warm-up do not count. What follows the script are its own options. Nothing is saved
but the JSON of `--json`.
"""

import importlib
import json
import shlex
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script without -m

import common.start

import torch
from torch import Tensor

from common.errors import UserError
from common.files import shorten_command
from common.options import Arguments, Parser, whole
from common.training.run import Run

GPU = torch.cuda.is_available()
NEVER = "100000000"  # steps


def parse_args(argv: Sequence[str] | None = None) -> tuple[Arguments, list[str]]:
    """(options of the probe, words for the script)."""
    words = list(sys.argv[1:] if argv is None else argv)
    script = next((n for n, word in enumerate(words) if word.startswith("train_")), len(words) - 1)
    parser = Parser(__file__, __doc__)
    parser.add_argument("mode", choices=["rate", "profile", "sync"], help="what to look at")
    parser.add_argument("--steps", type=whole(), default=100, help="steps that count")
    parser.add_argument("--warm_up", type=whole(), default=20, help="steps before them")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("script", help="training script, and then its options")
    return parser.parse_args(words[: script + 1]), words[script + 1 :]


class Waits:
    """Counts the places at which PyTorch waits for the GPU, of which it warns."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()

    def note(self, message: object, *_: object, **__: object) -> None:
        if "synchroniz" in f"{message}":
            stack = [f for f in traceback.extract_stack() if "probe.py" not in f.filename]
            place = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in stack[-7:-1]]
            self.places[" < ".join(reversed(place))] += 1


def probed(args: Arguments, result: dict[str, Any]) -> type[Run]:
    """A `Run` that looks at its steps, puts the figures into `result`, and ends."""

    class Probed(Run):
        def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
            if until == 0:  # a phase that is left out
                return
            batches, waits, waited = super().batches(until), Waits(), 0.0
            with ExitStack() as watching:
                for number in range(args.warm_up + args.steps):
                    if number == args.warm_up:
                        synchronize()
                        profiler = watch(args.mode, waits, watching)
                        waited, start = 0.0, perf_counter()
                    asked = perf_counter()
                    batch = next(batches, None)
                    if batch is None:
                        raise UserError(
                            f"The training ends after {number} of {args.warm_up + args.steps} "
                            "steps. Give a larger --max_train_steps, or a smaller --steps."
                        )
                    waited += perf_counter() - asked
                    yield batch
                synchronize()
                seconds = perf_counter() - start
            result.update(
                ms_per_step=round(1e3 * seconds / args.steps, 3),
                steps_per_second=round(args.steps / seconds, 3),
                patches_per_second=round(args.steps / seconds * self.args.batch_size, 1),
                share_of_time_waiting=round(waited / seconds, 4),
                peak_gb=round(torch.cuda.max_memory_allocated() / 1e9, 3) if GPU else None,
                waits_per_step={k: n / args.steps for k, n in waits.places.most_common(20)},
            )
            if profiler:
                events = profiler.key_averages()
                key = "self_device_time_total" if GPU else "self_cpu_time_total"
                print(events.table(sort_by=key, row_limit=30))
                result.update(work_of_gpu(events, args.steps))
            self._close()
            raise SystemExit  # the script would save and evaluate

    return Probed


def watch(mode: str, waits: Waits, watching: ExitStack) -> torch.profiler.profile | None:
    """Begins to watch, until `watching` is closed."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    if mode == "profile":
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if GPU else []
        return watching.enter_context(torch.profiler.profile(activities=kinds))
    if mode == "sync" and GPU:
        watching.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always")
        warnings.showwarning = waits.note
        torch.cuda.set_sync_debug_mode("warn")
        watching.callback(torch.cuda.set_sync_debug_mode, "default")
    return None


def work_of_gpu(events: Iterable[Any], steps: int) -> dict[str, float]:
    """Milliseconds and kernels of the GPU in a step, from the averages of a profiler."""
    kernels = [event for event in events if event.device_type.name != "CPU"]
    busy = sum(event.self_device_time_total for event in kernels) / 1e3  # microseconds
    return {
        "gpu_busy_ms_per_step": round(busy / steps, 3),
        "kernels_per_step": round(sum(event.count for event in kernels) / steps, 1),
    }


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def main(argv: Sequence[str] | None = None) -> None:
    args, options = parse_args(argv)
    if args.mode == "profile":
        args.steps = min(args.steps, 10)
    command = shorten_command(shlex.join(["python", args.script, *options]))
    result: dict[str, Any] = {"command": command, "torch": torch.__version__}
    result["device"] = torch.cuda.get_device_name() if GPU else "CPU"
    module = importlib.import_module(args.script.removesuffix(".py"))
    looks = mock.patch.object(module, "Run", probed(args, result))
    never = ["--validation_steps", "--checkpointing_steps"]
    if args.mode == "sync":
        never.append("--logging_steps")  # a log waits, and belongs to no step
    early = mock.patch("common.training.validation.FIRST_VALIDATION", 0)  # of no step
    with TemporaryDirectory() as folder, early, looks:
        # (With 0 of its own, SRGAN has its first phase alone.)
        words = ["--max_train_steps", NEVER, *options]
        words += ["--output_dir", f"{folder}/run", "--report_to", "none"]
        try:
            module.main([*words, *(word for name in never for word in (name, NEVER))])
        except SystemExit as end:
            if end.code:
                raise
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
