"""A run goes on while the disk is full, and loses nothing when there is room again."""

import contextlib
import os
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from common.hub import load_model
from common.training.folder import list_checkpoints
from helpers.forked import PATIENCE, run_forked
from running import (
    LATEST,
    RECIPE,
    SCRIPT,
    assert_same_run,
    disturbed,
    refusal,
    run_two,
    start,
    wait_for_step,
)

# At this rate the model of step 20 is better than that of step 10, and is to be saved as well.
RISING = (*RECIPE, "--learning_rate", 3e-3)
BYTES = 33_000  # of the weights of `SCRIPT`; the state of its optimizer has twice as many


@pytest.fixture(scope="module")
def straight(train, tmp_path_factory) -> Path:
    """The folder of a run of 20 steps that had room."""
    folder = tmp_path_factory.mktemp("room") / "run"
    train(SCRIPT, folder, *RISING)
    return folder


def test_no_room_for_a_checkpoint(train, tmp_path):
    # On the disk of one process out of two, at step 10.
    runner = disturbed(run_two, NO_ROOM=f"8:12:{BYTES + 10_000}")
    options = ("--checkpointing_steps", 5, "--validation_steps", 20)
    process = train(SCRIPT, tmp_path / "run", *options, runner=runner)
    warning = re.search(r"Warning: checkpoint-10 could not be saved: .*", process.stdout)[0]
    assert re.search(r"\([0-9.]+ MB are free\). The latest checkpoint is checkpoint-5. ", warning)
    assert warning.endswith("Training goes on, to try again at step 15.")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == [
        "checkpoint-15",
        "checkpoint-20",
    ]
    assert not list((tmp_path / "run").glob("*.partial"))


def test_an_old_checkpoint_that_cannot_be_deleted(train, tmp_path, monkeypatch):
    def delete(folder, keep, spared):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("common.training.state.delete_oldest", delete)
    process = train(SCRIPT, tmp_path / "run")
    text = "Warning: Older checkpoints could not be deleted: [Errno 16] Device or resource busy."
    assert text in process.stdout
    assert "could not be saved" not in process.stdout
    found = [path.name for path in list_checkpoints(tmp_path / "run")]
    assert found == ["checkpoint-10", "checkpoint-20"]


def test_no_room_for_anything(train, straight, tmp_path):
    # Not for a line of the log either, from step 7 until step 12.
    runner = disturbed(run_forked, NO_ROOM="7:12:100")
    process = train(SCRIPT, tmp_path / "run", *RISING, runner=runner)
    for text in (
        "Warning: metrics.jsonl cannot be written ([Errno 27] File too large). Its lines are kept",
        "Warning: tensorboard fails and ends at step",
        "Warning: The model of step 10 could not be saved: [Errno 27] File too large.",
        "The latest checkpoint is none. Training goes on, to try again at step 20.",
    ):
        assert text in process.stdout
    assert_same_run(tmp_path / "run", straight)


def test_no_room_at_the_end(train, straight, tmp_path):
    runner = disturbed(partial(run_forked, check=False), NO_ROOM="12:99:100")
    process = train(SCRIPT, tmp_path / "run", *RISING, "--report_to", "none", runner=runner)
    assert process.returncode == 1
    assert "Warning: checkpoint-20 could not be saved" in process.stdout
    assert "All steps are done, but this could not be saved in" in process.stderr
    assert f"the model in {tmp_path / 'run'} ([Errno 27] File too large); the " in process.stderr
    assert load_model(tmp_path / "run").scale == 3  # that of step 10
    assert "Traceback" not in process.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-10"]
    process = train(SCRIPT, tmp_path / "run", *RISING, *LATEST)
    assert_same_run(tmp_path / "run", straight)


@pytest.mark.slow
def test_a_full_disk(train, straight, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        process = train(SCRIPT, disk / "run", *RISING, runner=disturbed(start, SLOW_STEPS="1"))
        wait_for_step(disk / "run", 5)
        with contextlib.suppress(OSError), open(disk / "waste", "wb", buffering=0) as waste:
            while True:
                waste.write(bytes(4096))
        text = ""
        while "The model of step 10 could not be saved" not in text:
            text += process.stdout.readline()
        (disk / "waste").unlink()
        text += process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0
        assert "checkpoint-10 could not be saved" in text
        assert "Warning: The model of step 10 could not be saved: [Errno 28] No space" in text
        assert "The latest checkpoint is none. Training goes on, to try again at step 20" in text
        assert_same_run(disk / "run", straight)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_that_cannot_be_written(pictures_dir, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]  # modes do not bind root
    if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and cannot mount a disk here")
    try:
        for output_dir in (folder, folder / "run"):
            message = refusal(SCRIPT, "--train_data_dir", pictures_dir, "--output_dir", output_dir)
            assert f"Cannot write to --output_dir {output_dir}: " in message
            assert "Name another folder, or make room there" in message
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
