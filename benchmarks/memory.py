"""Memory of a process that reads training patches, from a data set and from one ten times as large.

    python -m benchmarks.memory --data_dir FOLDER

The larger data set is the same pictures ten times, each decoded and stored ten times. A fresh
process opens the decoded pictures, reads 2,000 batches of 32 pairs of LR 64x64 and HR 128x128, and
looks up in /proc/self/status (Linux only):

    RssAnon  its memory without the pages of mapped files
    growth   RssAnon less what it was after the imports
    mapped   the pages of mapped files, which the operating system can take back at any time

The aim is that RssAnon is the same for both.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/memory.py`

import common.start

import torch

from benchmarks.measure import SCALE, benchmark_parser, decode, find_sources, report, take_turns
from common.data.patches import PatchDataset

BATCH_SIZE, HR_SIZE = 32, 128
FACTOR = 10


def resident(kind: str) -> float:
    """RssAnon or RssFile of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{kind}:"))
    return int(line.split()[1]) / 1024


def read(args: argparse.Namespace) -> None:
    """What the fresh process does: decodes or opens the pictures, reads, and prints its memory."""
    torch.set_num_threads(1)
    sources = find_sources(args.data_dir)[: args.max_pictures]
    before = resident("RssAnon")
    pictures = decode(sources * args.copies, os.environ["HF_DATASETS_CACHE"])
    patches = PatchDataset(pictures, [SCALE], HR_SIZE, BATCH_SIZE, seed=0)
    for number in range(args.batches):
        patches.__getitems__(range(number * BATCH_SIZE, (number + 1) * BATCH_SIZE))
    memory = {
        "RssAnon": resident("RssAnon"),
        "growth": resident("RssAnon") - before,
        "mapped": resident("RssFile"),
        "pictures": len(pictures),
    }
    print(json.dumps(memory))


def read_in_fresh_process(args: argparse.Namespace, copies: int, batches: int) -> dict[str, float]:
    command = [sys.executable, os.path.abspath(__file__)]
    command += ["--copies", f"{copies}", "--batches", f"{batches}"]
    command += ["--max_pictures", f"{args.max_pictures}"]
    command += ["--data_dir", f"{args.data_dir}"] * (args.data_dir is not None)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> None:
    parser = benchmark_parser(__file__, __doc__, rounds=3)
    parser.add_argument("--batches", type=int, default=2000, help="default: %(default)s")
    parser.add_argument(
        "--max_pictures", type=int, default=100, help="the first ones (default: %(default)s)"
    )
    parser.add_argument("--copies", type=int, help=argparse.SUPPRESS)  # of the fresh process
    args = parser.parse_args(argv)
    if args.copies:
        return read(args)

    names = {1: "the data set", FACTOR: f"{FACTOR} times as large"}
    memory: dict[int, list[dict[str, float]]] = {copies: [] for copies in names}

    def measure(copies: int) -> float:
        memory[copies].append(read_in_fresh_process(args, copies, args.batches))
        return memory[copies][-1]["RssAnon"]

    with TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        for copies in names:  # decoding is not measured
            read_in_fresh_process(args, copies, batches=0)
        variants = {name: lambda c=copies: measure(c) for copies, name in names.items()}
        take_turns(variants, args.rounds)
    results = {
        f"{kind}, {name}": [one[kind] for one in memory[copies][1:]]
        for kind in ("RssAnon", "growth", "mapped")
        for copies, name in names.items()
    }
    pairs = [(f"RssAnon, {names[FACTOR]}", f"RssAnon, {names[1]}")]
    pictures = {name: memory[copies][0]["pictures"] for copies, name in names.items()}
    report(args, "MiB", results, pairs, batches=args.batches, pictures=pictures)


if __name__ == "__main__":
    main()
