"""A run that is asked to stop ends after the step, with a checkpoint."""

import os
import re
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from common.hub import load_model
from common.training.folder import (
    find_damage,
    list_checkpoints,
)
from helpers.forked import PATIENCE
from helpers.ports import reserve_port
from running import (
    LATEST,
    RECIPE,
    SCRIPT,
    TWO,
    assert_equal,
    disturbed,
    metrics,
    start,
    wait_for_step,
)


def assert_stopped(folder: Path, output: str, name: str) -> int:
    """Says so, and the step that it names is saved and whole. Returns that step."""
    step = int(re.search(rf"{name}: stopped at step (\d+) of 2,000, which is saved.", output)[1])
    newest = list_checkpoints(folder)[-1]
    assert newest.name == f"checkpoint-{step}"
    assert find_damage(newest) is None
    assert metrics(folder)[-1]["step"] == step
    return step


@pytest.fixture
def begin(train):
    """Starts a training of 2000 steps that logs every step, and waits for step 3."""

    def begin(folder, *options, launcher=(), **variables):
        runner = disturbed(partial(start, *launcher), **variables)
        options = (*RECIPE, "--logging_steps", 1, *options)
        process = train(SCRIPT, folder, *options, steps=2000, runner=runner)
        wait_for_step(folder, 3)
        return process

    return begin


# (What the signals have in common is tested without a process, in training/test_signals.py.)
@pytest.mark.parametrize(
    "name",
    [
        *("SIGTERM", "SIGINT"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGUSR1", "SIGHUP")),
    ],
)
def test_a_signal_ends_the_run_after_the_step(name, begin, train, straight, tmp_path):
    number = signal.Signals[name]
    process = begin(tmp_path / "run", "--num_workers", 2, HOLD="4")
    os.killpg(process.pid, number)  # the loader's processes as well, as SLURM and terminals do
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert f"{name}: stopping after this step." in errors
    assert "Traceback" not in errors
    assert assert_stopped(tmp_path / "run", output, name) == 4
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Stopped at step 4, before the first validation." in card
    stopped, saved = load_model(tmp_path / "run"), load_model(tmp_path / "run" / "checkpoint-4")
    assert_equal(stopped.state_dict(), saved.state_dict())
    if name == "SIGTERM":
        train(SCRIPT, tmp_path / "run", *RECIPE, *LATEST)
        assert_equal(*(load_file(f / "model.safetensors") for f in (tmp_path / "run", straight)))


def test_a_second_ctrl_c_ends_at_once(begin, tmp_path):
    process = begin(tmp_path / "run", HANG="4")
    process.send_signal(signal.SIGINT)
    errors = ""
    while "SIGINT: stopping after this step. Once more ends it at once." not in errors:
        assert process.poll() is None
        errors += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert "SIGINT" not in rest
    assert not list_checkpoints(tmp_path / "run")


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        (("-m", "accelerate.commands.launch", "--cpu"), signal.SIGTERM),
        (TWO, signal.SIGTERM),
        *(
            pytest.param(launcher, signal.SIGINT, marks=pytest.mark.slow)
            for launcher in (("-m", "accelerate.commands.launch", "--cpu"), TWO)
        ),
        pytest.param(TWO, signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_launcher_that_ends_leaves_no_training_behind(launcher, number, begin, tmp_path):
    process = begin(tmp_path / "run", launcher=launcher, SLOW_STEPS="0.1")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert not psutil.wait_procs(children, timeout=PATIENCE)[1]
    assert_stopped(tmp_path / "run", output, "SIG(?:TERM|INT)")


def test_processes_without_a_launcher_stop_together(train, tmp_path):
    # As `srun` starts them. Only one of them is told.
    port = str(reserve_port())

    def start_two(*command, **variables):
        world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"} | variables
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [start(*command, **world, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]

    options = (*RECIPE, "--logging_steps", 1)
    runner = disturbed(start_two, SLOW_STEPS="0.1")
    first, second = train(SCRIPT, tmp_path / "run", *options, steps=2000, runner=runner)
    wait_for_step(tmp_path / "run", 3)
    second.send_signal(signal.SIGUSR1)
    output, _ = first.communicate(timeout=PATIENCE)
    assert "over 2 processes" in output
    assert_stopped(tmp_path / "run", output, "SIGUSR1")
    second.communicate(timeout=PATIENCE)
    assert first.returncode == second.returncode == 128 + signal.SIGUSR1
