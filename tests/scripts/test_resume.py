"""A run is never lost: whatever ends it, and whatever has become of its checkpoints.

What is the same in all scripts is tested with A2N's; test_scripts.py has the rest, and
test_killed.py kills all of them at many moments.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

import common.training.folder
from common.errors import UserError
from common.hub import load_model
from common.training.folder import (
    choose_checkpoint,
    claim_folder,
    find_damage,
    list_checkpoints,
    seal,
)
from helpers.forked import PATIENCE, run_forked
from helpers.ports import reserve_port
from running import (
    RECIPE,
    SCRIPTS,
    SMALL,
    SRGAN,
    TWO,
    assert_equal,
    assert_same_run,
    disturbed,
    metrics,
    refusal,
    run,
    run_two,
    start,
)

SCRIPT = "train_a2n.py"
A2N_BYTES = 4_163_308  # of its weights; the state of its optimizer has twice as many
LATEST = ("--resume_from_checkpoint", "latest")
pytestmark = pytest.mark.xdist_group("resume")  # they share a run


@pytest.fixture(scope="module")
def straight(train, tmp_path_factory):
    """The folder of a run of 20 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(SCRIPT, folder, *RECIPE)
    return folder


@pytest.fixture
def copy(straight, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(straight, tmp_path / "copy"))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


# ------------------------------------------------------------------------------------ all state


def test_all_state_is_resumed(train, tmp_path):
    # Random numbers of every process, the loss scale of fp16, averages, rates, what is logged.
    watched = disturbed(run_two, WATCH="1")
    options = (*RECIPE, "--checkpointing_steps", 5, "--logging_steps", 4)
    train(SCRIPT, tmp_path / "straight", *options, steps=10, runner=watched)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-10")
    process = train(SCRIPT, tmp_path / "resumed", *options, *LATEST, steps=10, runner=watched)
    assert "Resuming from" in process.stdout
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")
    states = [tmp_path / name / "checkpoint-10" / "scaler.pt" for name in ("straight", "resumed")]
    ours, theirs = map(torch.load, states)
    assert_equal(ours, theirs)
    assert (ours["scale"], ours["_growth_tracker"]) == (2.0**19, 1)  # doubled every third step
    assert len({row["random"] for row in metrics(tmp_path / "straight") if "random" in row}) == 3


def test_a_loss_scale_begins_where_the_checkpoint_has_none(copy, train):
    train(SCRIPT, copy, *RECIPE, *LATEST, steps=22, runner=disturbed(run_forked, WATCH="1"))
    assert metrics(copy)[-2]["scale"] == 2.0**16


# ----------------------------------------------------------------------------- asked to stop


def wait_for_step(folder: Path, step: int) -> None:
    end = time.monotonic() + PATIENCE
    while not (folder / "metrics.jsonl").exists() or not any(
        row["step"] >= step for row in metrics(folder)
    ):
        assert time.monotonic() < end, "the training did not get that far"
        time.sleep(0.02)


def assert_stopped(folder: Path, output: str, name: str) -> int:
    """Says so, and the step that it names is saved and whole. Returns that step."""
    step = int(re.search(rf"{name}: stopped at step (\d+) of 2000, which is saved.", output)[1])
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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_signal_ends_the_run_after_the_step(name, begin, train, straight, tmp_path):
    number = signal.Signals[name]
    process = begin(tmp_path / "run", "--num_workers", 2, HOLD="4")
    os.killpg(process.pid, number)  # the loader's processes as well, as SLURM and terminals do
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert f"{name}: stopping after this step." in errors
    assert "Traceback" not in errors
    assert assert_stopped(tmp_path / "run", output, name) == 4
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
        (TWO, signal.SIGKILL),
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


# ------------------------------------------------------------------------- what a disk can do


def test_no_room_for_a_checkpoint(train, tmp_path):
    # On the disk of one process out of two, at step 10.
    runner = disturbed(run_two, NO_ROOM=f"8:12:{A2N_BYTES + 1_000_000}")
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


def test_no_room_for_anything(train, straight, tmp_path):
    # Not for a line of the log either, from step 7 until step 12.
    runner = disturbed(run, NO_ROOM="7:12:100")
    process = train(SCRIPT, tmp_path / "run", *RECIPE, runner=runner)
    for text in (
        "Warning: metrics.jsonl cannot be written ([Errno 27] File too large). Its lines are kept",
        "Warning: TensorBoard's log cannot be written ([Errno 27] File too large) and ends at step",
        "Warning: The model of step 10 could not be saved: [Errno 27] File too large.",
        "The latest checkpoint is none. Training goes on, to try again at step 20.",
    ):
        assert text in process.stdout
    assert_same_run(tmp_path / "run", straight)


def test_no_room_at_the_end(train, straight, tmp_path):
    runner = disturbed(partial(run, check=False), NO_ROOM="12:99:100")
    process = train(SCRIPT, tmp_path / "run", *RECIPE, "--report_to", "none", runner=runner)
    assert process.returncode == 1
    assert "Warning: checkpoint-20 could not be saved" in process.stdout
    assert "All steps are done, but this could not be saved in" in process.stderr
    assert f"the model in {tmp_path / 'run'} ([Errno 27] File too large); the " in process.stderr
    assert load_model(tmp_path / "run").scale == 2  # that of step 10
    assert "Traceback" not in process.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-10"]
    process = train(SCRIPT, tmp_path / "run", *RECIPE, *LATEST)
    assert_same_run(tmp_path / "run", straight)


@pytest.mark.slow
def test_a_full_disk(train, straight, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        process = train(SCRIPT, disk / "run", *RECIPE, runner=disturbed(start, SLOW_STEPS="1"))
        wait_for_step(disk / "run", 5)
        with contextlib.suppress(OSError), open(disk / "waste", "wb", buffering=0) as waste:
            while True:
                waste.write(bytes(4096))
        text = ""
        while "checkpoint-10 could not be saved" not in text:
            text += process.stdout.readline()
        (disk / "waste").unlink()
        text += process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0
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


def test_a_damaged_checkpoint_is_passed_over(copy, straight, train):
    flip_a_bit(copy / "checkpoint-20" / "optimizer.bin")
    (copy / "checkpoint-30.partial").mkdir()
    (copy / "model.safetensors.partial").write_bytes(b"half")
    process = train(SCRIPT, copy, *RECIPE, *LATEST)
    assert process.stdout.startswith(
        "Warning: Passed over checkpoint-30.partial, which is not whole, and removed it.\n"
        "Warning: Passed over checkpoint-20, which is damaged: optimizer.bin is not what was "
        "written. It is checkpoint-20.damaged now.\n"
    )
    assert f"Resuming from {copy / 'checkpoint-10'}." in process.stdout
    assert_same_run(copy, straight)
    assert {path.name for path in copy.iterdir()} == {
        *(path.name for path in straight.iterdir()),
        "checkpoint-20.damaged",
    }


def test_every_kind_of_damage_is_found(copy):
    checkpoint = copy / "checkpoint-20"
    assert find_damage(checkpoint) is None
    for file in sorted(checkpoint.iterdir()):
        content = file.read_bytes()
        file.unlink()
        assert find_damage(checkpoint) == f"{file.name} is missing"
        file.write_bytes(content)
        if file.name != "SHA256SUMS":
            flip_a_bit(file)
            assert find_damage(checkpoint) == f"{file.name} is not what was written"
            file.write_bytes(content[:-1])
            assert find_damage(checkpoint) == f"{file.name} is not what was written"
        file.write_bytes(content)
    for content in ("", "\0\0\0", "conv_first.weight"):
        (checkpoint / "SHA256SUMS").write_text(content)
        assert find_damage(checkpoint) == "SHA256SUMS is not what was written"
    (copy / "checkpoint-10" / ".DS_Store").touch()
    assert find_damage(copy / "checkpoint-10") is None


def test_no_whole_checkpoint_is_no_new_beginning(copy, pictures_dir):
    (copy / "checkpoint-10" / "scheduler.bin").unlink()
    flip_a_bit(copy / "checkpoint-20" / "model.safetensors")
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    message = refusal(*base, *LATEST)
    assert f"No checkpoint in {copy} is whole" in message
    assert "checkpoint-20: model.safetensors is not what was written" in message
    assert "checkpoint-10: scheduler.bin is missing" in message
    assert "by --init_from" in message
    assert len(list_checkpoints(copy)) == 2
    message = refusal(*base, "--resume_from_checkpoint", copy / "checkpoint-20")
    assert "checkpoint-20 is damaged: model.safetensors is not what was written" in message


def test_a_run_whose_checkpoints_are_gone_is_not_overwritten(copy, pictures_dir):
    for checkpoint in list_checkpoints(copy):
        shutil.rmtree(checkpoint)
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    message = refusal(*base, *LATEST)
    assert f"{copy} has no checkpoint, though its log goes to step 20" in message
    assert (copy / "model.safetensors").exists()


def test_another_networks_checkpoint_is_refused(copy, train, pictures_dir, tmp_path):
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    # Its weights alone are damage, and the checkpoint before is taken.
    train("train_srcnn.py", tmp_path / "srcnn", "--ema_decay", 0.9, steps=1)
    other, ours = tmp_path / "srcnn" / "checkpoint-1", copy / "checkpoint-20"
    shutil.copy(other / "model.safetensors", ours)
    assert choose_checkpoint(copy, "latest")[0] == copy / "checkpoint-10"
    # The whole of it, under the name of ours.
    record = json.loads((copy / "checkpoint-10" / "args.json").read_text())
    shutil.copytree(other, copy / "checkpoint-20.partial")
    (copy / "checkpoint-20.partial" / "SHA256SUMS").unlink()
    seal(copy / "checkpoint-20.partial", record)
    message = refusal(*base, *LATEST)
    assert "checkpoint-20 is of another network, optimizer or --ema_decay than this" in message
    assert "blocks.0.attention_branch" in message


def test_two_runs_cannot_share_a_folder(copy, pictures_dir, monkeypatch):
    monkeypatch.setattr(common.training.folder, "PATIENCE", 1)
    lock = claim_folder(copy, "latest")
    options = (*SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    message = refusal(SCRIPT, *options, *LATEST)
    lock.release()
    assert f"Another program still trains in --output_dir {copy}" in message


def test_a_run_that_ended_before_it_began_leaves_the_folder_free(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "args.json.partial").touch()
    assert choose_checkpoint(tmp_path, "latest") == (None, [])
    claim_folder(tmp_path, None).release()
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="is not empty"):
        claim_folder(tmp_path, None)


# ---------------------------------------------------------------------------- change of mind


def test_another_recipe_needs_permission(copy, train, pictures_dir, tmp_path):
    base = (SCRIPT, *SMALL, "--train_data_dir", pictures_dir, "--output_dir", copy, *LATEST)
    changes = (*RECIPE, "--learning_rate", 1e-6, "--loss", "charbonnier", "--seed", 3)
    changes += ("--max_train_steps", 22)
    message = refusal(*base, *changes)
    assert f"Cannot resume from {copy / 'checkpoint-20'} by another recipe: " in message
    assert "--seed was 0 and is 3" in message
    assert "--loss was l1 and is charbonnier, --learning_rate was 2e-05 and is 1e-06" in message
    assert "or go on with the new recipe by --allow_recipe_change." in message
    changes += ("--logging_steps", 1, "--allow_recipe_change")
    process = train(SCRIPT, copy, *LATEST, *changes, steps=22)
    assert re.search(r"The recipe changes at step 20: .*--loss was l1 and is char", process.stdout)
    # The rates are those of the new schedule: halved at steps 7, 14 and 21.
    rates = [row["learning_rate"] for row in metrics(copy) if row["step"] > 20 and "loss" in row]
    assert rates == [1e-6 / 8, 1e-6 / 8]
    optimizer = torch.load(copy / "checkpoint-22" / "optimizer.bin")
    assert optimizer["param_groups"][0]["initial_lr"] == 1e-6


def test_fewer_steps_than_there_are(copy, pictures_dir):
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    message = refusal(*base, *LATEST, "--max_train_steps", 19)
    assert f"{copy / 'checkpoint-20'} is later than the 19 steps of this command" in message
    (copy / "model.safetensors").unlink()
    message = refusal(*base, *LATEST, "--max_train_steps", 20)
    assert f"there is no model.safetensors in {copy}: somebody has taken it away" in message


def test_other_pictures_need_permission(copy, pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "fewer")
    (tmp_path / "fewer" / "0.png").unlink()
    options = (*SMALL, *RECIPE, "--train_data_dir", tmp_path / "fewer", "--output_dir", copy)
    message = refusal(SCRIPT, *options, *LATEST)
    assert "by another recipe: there were 7 training pictures and are 6. Give the sam" in message
    (tmp_path / "fewer" / "00.png").write_bytes((pictures_dir / "0.png").read_bytes())
    message = refusal(SCRIPT, *options, *LATEST)
    assert "the names or sizes of the training pictures are others" in message


def test_other_validation_pictures_choose_anew(copy, train, pictures_dir, tmp_path):
    (tmp_path / "same").mkdir()
    for number in range(7):  # those that were trained on
        shutil.copy(pictures_dir / f"{number}.png", tmp_path / "same")
    options = (*RECIPE, *LATEST, "--learning_rate", 1e-9, "--allow_recipe_change")
    options += ("--train_data_dir", tmp_path / "same", "--validation_data_dir", pictures_dir)
    process = train(SCRIPT, copy, *options, steps=21)
    assert "Best validation, at step 21, on 8 pictures: " in process.stdout
    scores = metrics(copy)[-1]
    assert f"PSNR-Y {scores['psnr_y']:.2f} dB" in (copy / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != SRGAN])
def test_other_numbers_of_processes(script, train, tmp_path):
    options = (*RECIPE, "--logging_steps", 1, "--checkpointing_steps", 7)
    train(script, tmp_path / "straight", *options, runner=disturbed(run_forked, WATCH="1"))
    for steps, runner in ((7, run), (14, run_two), (20, run)):
        folder = tmp_path / "changing"
        watched = disturbed(runner, WATCH="1")
        process = train(script, folder, *options, *LATEST, steps=steps, runner=watched)
        assert ("over 2 processes" in process.stdout) == (runner == run_two)
    rows = [
        [row for row in metrics(tmp_path / name) if "loss" in row]
        for name in ("straight", "changing")
    ]
    assert len(rows[0]) == 20
    for one, other in zip(*rows, strict=True):
        assert other["patches"] == one["patches"]
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


# -------------------------------------------------------------------------- several processes


def test_four_processes_train_as_one(straight, train, tmp_path):
    def run_four(*command):
        return run_forked(*command, processes=4)

    process = train(SCRIPT, tmp_path / "run", *RECIPE, runner=run_four)
    assert "Batch: 4 patches over 4 processes" in process.stdout
    for one, four in zip(metrics(straight), metrics(tmp_path / "run"), strict=True):
        assert four == pytest.approx(one, rel=1e-3)


def test_an_exception_on_one_process_ends_all(train, tmp_path):
    runner = disturbed(partial(start, *TWO), RAISE="1:13")
    process = train(SCRIPT, tmp_path / "run", *RECIPE, "--num_workers", 1, runner=runner)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "ArithmeticError: process 1 cannot go on" in errors
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-10"]


def two_machines(train, folders: list[Path]) -> list[subprocess.Popen]:
    """One process on each of two "machines", whose launchers meet over the loopback device."""
    port, processes = reserve_port(), []
    for number, folder in enumerate(folders):
        launcher = ("-m", "torch.distributed.run", "--nnodes", 2, "--node_rank", number)
        launcher += ("--master_addr", "127.0.0.1", "--master_port", port)
        runner = partial(start, *launcher)
        processes.append(train(SCRIPT, folder, *RECIPE, runner=runner))
    return processes


def test_two_machines(straight, train, tmp_path):
    first, second = two_machines(train, [tmp_path / "run"] * 2)
    output, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, errors
    assert second.wait(timeout=PATIENCE) == 0
    assert "Batch: 4 patches over 2 processes" in output
    for one, two in zip(metrics(straight), metrics(tmp_path / "run"), strict=True):
        assert two == pytest.approx(one, rel=1e-3)


def test_two_machines_need_a_common_disk(train, tmp_path):
    processes = two_machines(train, [tmp_path / "one", tmp_path / "two"])
    errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert all(process.returncode for process in processes)
    assert "Name an --output_dir that all machines see" in errors[0]
