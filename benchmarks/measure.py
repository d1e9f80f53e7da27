"""What the benchmarks share: variants that take turns, medians with their spread, a JSON file."""

import argparse
import json
import multiprocessing
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import datasets
import torch

from common.data.cache import Pictures, decode_pictures
from common.data.find import SAMPLE_TRAIN, Source, find_pictures, sample_pictures
from common.files import cannot_write, shorten_command
from common.machine import hardware, versions
from common.options import whole

SCALE = 2


def benchmark_parser(script: str, description: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir", type=Path, help="folder of HR pictures (default: the embedded sample)"
    )
    parser.add_argument(
        "--rounds",
        type=whole(),
        default=rounds,
        help="turns of every variant that count (default: %(default)s)",
    )
    name = Path(script).stem
    parser.add_argument(
        "--output",
        type=writable,
        default=Path(script).resolve().parent / "results" / f"{name}.json",
        help=f"default: {name}.json in the folder `results` next to the script",
    )
    return parser


def writable(text: str) -> Path:
    """Takes the name of a file on the command line if it can be written, or replaced."""
    path = Path(text)
    if reason := cannot_write(path, overwrite=True):
        raise argparse.ArgumentTypeError(f"{path} {reason}")
    return path


def find_sources(data_dir: Path | None) -> list[Source]:
    return find_pictures(data_dir, [SCALE]) if data_dir else sample_pictures(SAMPLE_TRAIN)


def decode(sources: Sequence[Source], cache: str) -> Pictures:
    """Decodes pictures for x2 into a cache that goes away with the benchmark."""
    datasets.config.HF_DATASETS_CACHE = Path(cache)
    return decode_pictures(sources, [SCALE])[0]


@contextmanager
def processes(
    work: Callable[..., None], variants: Sequence[str], *arguments: object
) -> Iterator[dict[str, Connection]]:
    """A process for each variant, since a process has only one state of Accelerate.

    Args:
        work: Is called as `work(pipe, variant, *arguments)`. It does so many steps as comes through
            the pipe, sends what it measured, and returns when told to do 0.
        variants: Their names.
        *arguments: That can be pickled.

    Yields:
        The other ends of the pipes.
    """
    context = multiprocessing.get_context("spawn")
    pipes, workers = {}, []
    for variant in variants:
        pipes[variant], end = context.Pipe()
        # Not daemons, because they may have the workers of a loader.
        worker = context.Process(target=work, args=(end, variant, *arguments))
        worker.start()
        end.close()  # so that a process that dies is noticed
        workers.append(worker)
    try:
        yield pipes
        for pipe in pipes.values():
            pipe.send(0)
    except BaseException:  # one has died: the others would wait for their turns for ever
        for worker in workers:
            worker.kill()  # a training would take SIGTERM as a wish to stop after the step
        raise
    finally:
        for worker in workers:
            worker.join()


def take_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Calls all variants in turn, in every other round backwards, so that none has the better hour.

    One round more goes first, which warms up and does not count.
    """
    results: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            value = variants[name]()
            if number:
                results[name].append(value)
    return results


def report(
    args: argparse.Namespace,
    unit: str,
    results: dict[str, list[float]],
    ratios: Sequence[tuple[str, str]],
    device: torch.device | None = None,
    packages: Sequence[str] = (),
    **facts: object,
) -> None:
    """Prints a table and writes it to `--output`.

    Args:
        args: The parsed command line.
        unit: Of the results.
        results: What `take_turns` returned.
        ratios: Pairs of variants to divide, the first by the second: medians by medians.
        device: What computed, if not the CPU.
        packages: Packages that were measured, beside those of `versions`.
        **facts: More for the file, and for those who read the table.
    """
    print(f"\n{unit:40} {'median':>10} {'smallest':>10} {'largest':>10}   n")
    for name, values in results.items():
        numbers = " ".join(f"{_rounded(v):>10}" for v in (median(values), *_ends(values)))
        print(f"{name:40} {numbers} {len(values):>3}")
    quotients = {}
    for above, below in ratios:
        by_round = [a / b for a, b in zip(results[above], results[below], strict=True)]
        quotient = median(results[above]) / median(results[below])
        smallest, largest = _ends(by_round)
        quotients[f"{above} / {below}"] = {
            "of_medians": quotient,
            "smallest_of_a_round": smallest,
            "largest_of_a_round": largest,
            "n": len(by_round),
        }
        span = f"{smallest:.3g} to {largest:.3g} in {len(by_round)} rounds"
        print(f"{above} / {below}: {quotient:.3g} ({span})")
    for name, fact in facts.items():
        print(f"{name}: {fact}")

    content = {
        "command": _command(),
        "date": date.today().isoformat(),
        "hardware": hardware(device or torch.device("cpu")),
        "versions": versions(*packages),
        "unit": unit,
        "medians": {name: median(values) for name, values in results.items()},
        "ratios": quotients,
        "rounds": results,
        **facts,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=2) + "\n")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _command() -> str:
    module = f"benchmarks.{Path(sys.argv[0]).stem}"
    return shorten_command(shlex.join(["python", "-m", module, *sys.argv[1:]]))
