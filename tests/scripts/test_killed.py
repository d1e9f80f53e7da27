"""Kills every training at many moments; it still ends with the same weights and the same logs.

    python -m pytest -m slow tests/scripts/test_killed.py --numprocesses 2 --dist loadgroup

Half an hour on two cores. The moments are drawn by a seed, and are others on another machine.
"""

import random
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.forked import PATIENCE
from running import (
    RECIPE,
    SCRIPTS,
    SRGAN,
    TWO,
    assert_same_run,
    disturbed,
    run,
    run_two,
    start,
)

# 20 steps, and a file or folder that is written, renamed or deleted in most of the moments.
OPTIONS = (*RECIPE, *"--logging_steps 3 --validation_steps 5 --checkpointing_steps 5".split())
LATEST = ("--resume_from_checkpoint", "latest")
SLOW = {"SLOW_WRITES": "0.02"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def train_in_phases(train):
    """Like `train`, and SRGAN's steps are ten of each phase."""

    def train_in_phases(script, folder, *options, runner=run):
        steps = 20
        if script == SRGAN:
            steps, options = 10, (*options, "--pretrain_steps", 10)
        return train(script, folder, *OPTIONS, *options, steps=steps, runner=runner)

    return train_in_phases


def begin(train_in_phases, script, folder, launcher=()):
    """A training, slow to write, that has just taken up its checkpoint or begun."""
    process = train_in_phases(script, folder, runner=disturbed(partial(start, *launcher), **SLOW))
    while not (folder / "args.json").exists():
        assert process.poll() is None
        time.sleep(0.005)
    return process


def straight_run(train_in_phases, script, folder, launcher=()) -> float:
    """A run that nothing happens to; the seconds that its steps take."""
    process = begin(train_in_phases, script, folder, launcher)
    before = time.monotonic()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return time.monotonic() - before


@pytest.fixture(scope="module")
def straight(train_in_phases, tmp_path_factory):
    """For a script and a launcher, the folder of an uninterrupted run and the time it took."""
    found = {}

    def straight(script, launcher=()):
        if (script, launcher) not in found:
            folder = tmp_path_factory.mktemp("straight") / "run"
            seconds = straight_run(train_in_phases, script, folder, launcher)
            found[script, launcher] = folder, seconds
        return found[script, launcher]

    return straight


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def names(folder: Path) -> set[Path]:
    """Of files and folders; but a run that was asked to stop may have left another checkpoint."""
    others = re.compile(r"tensorboard|checkpoint-1\d")
    paths = {path.relative_to(folder) for path in folder.rglob("*")}
    return {path for path in paths if not others.fullmatch(path.parts[0])}


def assert_as_if_nothing_had_happened(folder: Path, straight: Path) -> None:
    assert_same_run(folder, straight)
    assert scalars(folder) == scalars(straight)
    assert names(folder) == names(straight)


def stop_inside(process, folder: Path, pattern: str, delay: float) -> bool:
    """Stops a process while there is something of that name; False if it ended before."""
    while process.poll() is None:
        if any(folder.glob(pattern)):
            time.sleep(delay)
            process.send_signal(signal.SIGSTOP)
            if process.poll() is None and any(folder.glob(pattern)):
                return True
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("number", range(25))
@pytest.mark.parametrize(
    "script", [pytest.param(s, marks=pytest.mark.xdist_group(s)) for s in SCRIPTS]
)
def test_killed_at_any_moment(script, number, straight, train_in_phases, tmp_path):
    expected, seconds = straight(script)
    folder = tmp_path / "run"
    draw = random.Random(f"{script} {number}")
    if number < 6:  # while a checkpoint is written or an old one deleted
        pattern, first, delay = "checkpoint-*.partial", draw.random() * seconds / 2, 0.2
    elif number < 8:  # while the best weights are written
        pattern, first, delay = ".sr-*.partial", 0, 0.03
    else:
        pattern, first, delay = "args.json", draw.uniform(0, seconds), 0
    delay *= draw.random()
    for _ in range(9):
        process = begin(train_in_phases, script, folder)
        time.sleep(first)
        if stopped := stop_inside(process, folder, pattern, delay):
            break
        # This time it was faster, or this program slower.
        shutil.rmtree(folder)
        first, delay = 0.8 * first, 0.8 * delay
    assert stopped
    process.kill()
    process.communicate()
    train_in_phases(script, folder, *LATEST)
    assert_as_if_nothing_had_happened(folder, expected)


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize(
    "script", [pytest.param(s, marks=pytest.mark.xdist_group(s)) for s in SCRIPTS]
)
def test_two_processes_asked_to_stop(script, number, straight, train_in_phases, tmp_path):
    expected, seconds = straight(script, tuple(TWO))
    folder = tmp_path / "run"
    moment = random.Random(f"{script} {number}").uniform(0, seconds)
    for _ in range(9):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was faster this time
        process = begin(train_in_phases, script, folder, tuple(TWO))
        time.sleep(moment)
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
        if stopped := "SIGTERM: stopped at step" in output:
            break
        moment *= 0.8
    assert stopped
    assert process.returncode != 0
    train_in_phases(script, folder, *LATEST, runner=run_two)
    assert_as_if_nothing_had_happened(folder, expected)
