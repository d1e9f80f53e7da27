"""Kills every training at many moments; it still ends with the same weights and the same logs.

    python -m pytest -m slow tests/scripts/test_killed.py -k any_moment    # prints 100 of 100

The moments are drawn by a seed: a call before which the process kills itself, or a time.
"""

import json
import random
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.forked import PATIENCE, run_forked
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
# Kills of each script: before a call that writes a checkpoint or the best weights, in the midst of
# the decoding or of a validation, at a step, at any time.
MOMENTS = {"writing": 5, "saving": 3, "decoding": 4, "validating": 5, "step": 3, "time": 5}
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
    """Of files and folders.

    A run that was asked to stop may have left another checkpoint, and somebody may edit the code.
    """
    others = re.compile(r"tensorboard|checkpoint-1\d|uncommitted\.patch")
    paths = {path.relative_to(folder) for path in folder.rglob("*")}
    return {path for path in paths if not others.fullmatch(path.parts[0])}


def assert_as_if_nothing_had_happened(folder: Path, straight: Path) -> None:
    assert_same_run(folder, straight)
    assert scalars(folder) == scalars(straight)
    assert names(folder) == names(straight)


@pytest.fixture(scope="module")
def counted(train_in_phases, copy_of_pictures, tmp_path_factory):
    """For a script, the folder of an uninterrupted run, and how often it did what."""
    found = {}

    def counted(script):
        if script not in found:
            folder = tmp_path_factory.mktemp("straight")
            pictures = ("--train_data_dir", copy_of_pictures(folder))  # which must be decoded
            runner = disturbed(run_forked, COUNT=f"{folder / 'counts'}")
            train_in_phases(script, folder / "run", *pictures, runner=runner)
            found[script] = folder / "run", json.loads((folder / "counts").read_text())
        return found[script]

    return counted


@pytest.fixture(scope="module")
def as_if_nothing_had_happened(request):
    """Names of the runs that were killed and ended well. Their number is printed."""
    names: list[str] = []
    yield names
    if terminal := request.config.pluginmanager.get_plugin("terminalreporter"):
        terminal.write_line(f"\n{len(names)} of {len(SCRIPTS) * sum(MOMENTS.values())}")


@pytest.fixture(scope="module")
def copy_of_pictures(pictures_dir):
    """Copies the pictures to a folder, where they are not decoded yet."""
    return lambda folder: shutil.copytree(pictures_dir, folder / "pictures")


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, n) for kind, count in MOMENTS.items() for n in range(count)]
)
@pytest.mark.parametrize(
    "script", [pytest.param(s, marks=pytest.mark.xdist_group(s)) for s in SCRIPTS]
)
def test_killed_at_any_moment(
    script,
    kind,
    number,
    counted,
    train_in_phases,
    copy_of_pictures,
    as_if_nothing_had_happened,
    tmp_path,
):
    straight, counts = counted(script)
    draw, most = random.Random(f"{script} {kind}"), counts[kind]
    if kind == "time":
        moment = [draw.uniform(0, most) for _ in range(number + 1)][-1]
    else:
        moment = draw.sample(range(1, int(most) + 1), MOMENTS[kind])[number]
    for attempt in range(9):
        # No two have one path, by which pictures would be found decoded: pytest uses its own again.
        place = tmp_path / f"{kind} {number} {attempt}"
        folder, pictures = place / "run", ("--train_data_dir", copy_of_pictures(place))
        runner = disturbed(run_forked, KILL=f"{kind}:{moment}", check=False)
        status = train_in_phases(script, folder, *pictures, runner=runner).returncode
        if status or kind != "time":
            break
        moment *= 0.8  # it was faster this time
    assert status == -signal.SIGKILL
    train_in_phases(script, folder, *pictures, *LATEST)
    assert_as_if_nothing_had_happened(folder, straight)
    as_if_nothing_had_happened.append(f"{script} {kind}:{moment}")


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
