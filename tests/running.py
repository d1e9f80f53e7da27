"""Runs the scripts as a user would, and reads what they leave. For the tests."""

import gc
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset
from common.evaluation import evaluate, mean_scores
from common.training.folder import list_checkpoints
from helpers.forked import PATIENCE, ROOT, run_forked

SCRIPTS = sorted(path.name for path in ROOT.glob("train_*.py"))
SCRIPT = "train_srcnn.py"  # where one is enough: its runs take the shortest time
SRGAN = "train_srgan.py"
# Of the runs that are compared: a schedule that does not depend on the number of steps, and small
# steps, because VDSR's first ones at its own rate make of rounding errors large differences.
RECIPE = "--ema_decay 0.9 --lr_scheduler step --lr_warmup_steps 0 --learning_rate 2e-5".split()
RECIPE += "--lr_step_size 7 --lr_gamma 0.5".split()
LATEST = ("--resume_from_checkpoint", "latest")
# Networks are small here, and SRGAN in its second phase; VGG's weights cannot be had.
OWN = {
    SRGAN: "--pretrain_steps 0 --num_blocks 1 --content_weight 0".split(),
    "train_vdsr.py": "--num_layers 4".split(),
}
# For fixtures: one process of pytest-xdist takes all tests of a script that share one.
SHARED = [pytest.param(script, marks=pytest.mark.xdist_group(script)) for script in SCRIPTS]
# Of what hardly depends on the network, one script is tested, and the others in `make test-slow`.
OTHERS = [script for script in SCRIPTS if script != SCRIPT]
ONE_OR_ALL = [SCRIPT, *(pytest.param(script, marks=pytest.mark.slow) for script in OTHERS)]
# One thread, because with more of them sums differ in the last bits from run to run.
SMALL = "--batch_size 4 --patch_size 24 --cpu_threads 1 --num_workers 0 --logging_steps 5".split()
# (`accelerate launch --cpu --num_processes 2` would start one.)
TWO = "-m torch.distributed.run --standalone --nproc_per_node 2".split()


def python(*command) -> list[str]:
    """The words of `python *command`."""
    return [sys.executable, *map(str, command)]


def environment(**variables: str) -> dict[str, str]:
    """That of a script: ours, the repository in the path, one thread, and these."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return os.environ | own | variables


def run(*command, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    """Runs `python *command` in the repository."""
    process = subprocess.run(
        python(*command), cwd=ROOT, env=environment(**variables), capture_output=True, text=True
    )
    if check:
        assert process.returncode == 0, process.stderr
    return process


def run_two(script, *options, **variables: str) -> subprocess.CompletedProcess:
    """Runs a script on two processes."""
    return run_forked(script, *options, processes=2, **variables)


def start(*command, **variables: str) -> subprocess.Popen:
    """Starts `python *command`, at the head of a group of processes."""
    # It takes signals also where ours ignores them: below `nohup`, or in the background.
    before = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)
    }
    try:
        return subprocess.Popen(
            python(*command),
            cwd=ROOT,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def disturbed(runner: Callable[..., Any], **variables: str) -> Callable[..., Any]:
    """A runner of training scripts in the trouble that `disturbed.py` tells of."""

    def run_disturbed(script, *options):
        return runner("tests/helpers/disturbed.py", script, *options, **variables)

    return run_disturbed


def run_here(script: str, *options, check: bool = True, **variables: str):
    """The same in this process, which saves the seconds of another start."""
    main = importlib.import_module(script.removesuffix(".py")).main
    output, errors, code, threads = io.StringIO(), io.StringIO(), 0, torch.get_num_threads()
    changes = mock.patch.dict(os.environ, variables)
    reset_accelerate()  # a test may have evaluated a network, by which a GPU would be chosen
    try:
        with changes, redirect_stdout(output), redirect_stderr(errors):
            main(options)
    except SystemExit as end:
        code = end.code
    finally:
        reset_accelerate()
        torch.set_num_threads(threads)
        gc.collect()  # which lets go of the output folder
    if check:
        assert code == 0, code
    return subprocess.CompletedProcess(options, code, output.getvalue(), errors.getvalue())


def train_from_hub(output_dir: Path, *options, runner: Callable[..., Any] = run_here, **variables):
    """Trains two steps on a data set of the tests' Hub, the default one unless options name it."""
    base = ("train_srcnn.py", *SMALL, "--scale", 2, "--max_train_steps", 2)
    return runner(*base, "--output_dir", output_dir, *options, **variables)


def reset_accelerate() -> None:
    """Lets accelerate choose a device anew, as in a process that has just begun."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def refusal(script: str, *options, **variables: str) -> str:
    """The message with which a script fails: without a traceback, with exit status 1 or 2."""
    end = run_here(script, *options, check=False, **variables)
    # argparse prints its message and leaves 2; that of a UserError is printed by Python, with 1.
    assert end.returncode == 2 or isinstance(end.returncode, str)
    return f"{end.stderr}{end.returncode}"


def assert_nearly_equal(ours: np.ndarray, theirs: np.ndarray, share: float = 1e-3) -> None:
    """Pixels that differ by 1 at most, and at most in so many of all values.

    Every processor, and every size of an image, has its own order in which float32 is summed, and
    a sum that is nearly half a value may then be rounded up or down.
    """
    differences = np.abs(ours.astype(int) - theirs)
    assert differences.max() <= 1
    assert np.mean(differences) <= share


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def metrics(folder: Path) -> list[dict]:
    """The whole lines of metrics.jsonl, to which a running training may be writing."""
    lines = (folder / "metrics.jsonl").read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def wait_for_step(folder: Path, step: int) -> None:
    """Waits until the log of a training that runs has come to a step."""
    end = time.monotonic() + PATIENCE
    while not (folder / "metrics.jsonl").exists() or not any(
        row["step"] >= step for row in metrics(folder)
    ):
        assert time.monotonic() < end, "the training did not get that far"
        time.sleep(0.02)


def assert_same_run(first: Path, second: Path) -> None:
    """Bit-equal networks and optimizers in the last checkpoint, best weights, and equal logs."""
    last, other = (list_checkpoints(folder)[-1] for folder in (first, second))
    assert last.name == other.name
    assert {path.name for path in last.iterdir()} == {path.name for path in other.iterdir()}
    pairs = [(first / name, second / name) for name in ("model.safetensors",)]
    pairs += [(path, other / path.name) for path in last.glob("*.safetensors")]
    for ours, theirs in ((load_file(one), load_file(two)) for one, two in pairs):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for path in sorted(last.glob("*.bin")):
        assert_equal(torch.load(path), torch.load(other / path.name))
    assert (first / "metrics.jsonl").read_text() == (second / "metrics.jsonl").read_text()


def assert_equal(ours: object, theirs: object) -> None:
    """Of states, however nested."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            assert_equal(one, two)
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def psnr_of(model: torch.nn.Module, folder: Path, scale: int) -> float:
    """PSNR-Y of a model on the benchmark set in a folder."""
    pictures, _ = decode_pictures(find_pictures(folder, [scale]), [scale])
    scores = evaluate(model, BenchmarkDataset(pictures, scale), torch.device("cpu"))
    return mean_scores(scores)["psnr_y"]
