"""Several processes train as one does: the same patches, the same gradients, one end."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.hub import load_model
from common.training.folder import (
    list_checkpoints,
)
from helpers.forked import PATIENCE, run_forked
from helpers.ports import reserve_port
from running import (
    LATEST,
    OWN,
    RECIPE,
    ROOT,
    SCRIPT,
    SCRIPTS,
    SHARED,
    SMALL,
    SRGAN,
    TWO,
    assert_same_run,
    disturbed,
    metrics,
    run,
    run_two,
    start,
)

NO_SRGAN = [param for param in SHARED if SRGAN not in param.values]


@pytest.fixture(scope="module", params=SHARED)
def one_and_two(request, pictures_dir, tmp_path_factory):
    """What `first_step.py` finds on one process and on two: patches, gradients, world size."""
    folder = tmp_path_factory.mktemp("first_step")
    script = ROOT / "tests" / "helpers" / "first_step.py"
    architecture = request.param.removeprefix("train_").removesuffix(".py")
    for number in (1, 2):
        options = ("--train_data_dir", pictures_dir, "--output_dir", folder / f"{number}")
        own = OWN.get(request.param, ())
        run_forked(script, architecture, *SMALL, *own, *options, processes=number)
    return [
        [torch.load(path) for path in sorted((folder / f"{number}").glob("rank-*.pt"))]
        for number in (1, 2)
    ]


def test_two_processes_take_the_patches_of_one(one_and_two):
    (one,), two = one_and_two
    assert [result["num_processes"] for result in (one, *two)] == [1, 2, 2]
    for whole, *halves in zip(*(result["batches"] for result in (one, *two)), strict=True):
        for images, *parts in zip(whole, *halves, strict=True):  # LR, then HR
            assert len(images) == 4
            assert torch.equal(torch.cat(parts), images)


def test_two_processes_have_the_gradients_of_one(one_and_two):
    (one,), two = one_and_two
    whole = [
        torch.cat([gradient.flatten() for gradient in result["gradients"].values()])
        for result in (one, *two)
    ]
    for averaged in whole[1:]:
        assert (averaged - whole[0]).norm() <= 1e-5 * whole[0].norm()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_train_as_one(processes, straight, train, tmp_path):
    assert_as_one(SCRIPT, processes, straight, train, tmp_path / "run")


# (SRGAN's batch normalization sees half of the batch in each process.)
@pytest.mark.slow
@pytest.mark.parametrize("trained", NO_SRGAN, indirect=True)
def test_two_processes_train_as_one(trained, train, tmp_path):
    assert_as_one(trained[0], 2, trained[1], train, tmp_path / "run")


def assert_as_one(script, processes, straight, train, folder):
    """That so many processes log in a folder what one has logged in the folder `straight`."""
    process = train(script, folder, *RECIPE, runner=partial(run_forked, processes=processes))
    assert f"Batch: 4 patches over {processes} processes" in process.stdout
    for one, two in zip(metrics(straight), metrics(folder), strict=True):
        assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes_resumed_equal_straight(script, train, tmp_path):
    straight, folder = tmp_path / f"{script}-straight", tmp_path / f"{script}-resumed"
    # 8 does not divide 10: the mean loss of step 16 reaches over the checkpoint.
    options = ("--logging_steps", 8)
    train(script, straight, *options, runner=run_two)
    before, after = (
        load_file(straight / f"checkpoint-{step}" / "model.safetensors") for step in (10, 20)
    )
    learned = dict(load_model(straight).named_parameters())  # not the constants
    assert not any(torch.equal(before[name], after[name]) for name in learned)
    # As if killed before step 20: what is later than checkpoint-10 must be made again.
    shutil.copytree(straight, folder)
    shutil.rmtree(folder / "checkpoint-20")
    process = train(script, folder, *options, "--resume_from_checkpoint", "latest", runner=run_two)
    assert "Steps: 10 to 20" in process.stdout
    assert_same_run(folder, straight)


def test_batch_must_divide_among_the_processes(pictures_dir, tmp_path):
    process = run_two(
        *(SCRIPT, "--batch_size", 3, "--patch_size", 24),
        *("--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run"),
        check=False,
    )
    assert process.returncode == 1
    assert "--batch_size 3 is that of all 2 processes together" in process.stderr
    assert "for example 4" in process.stderr


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


def test_an_exception_on_one_process_ends_all(train, tmp_path):
    runner = disturbed(partial(start, *TWO), RAISE="1:13")
    process = train(SCRIPT, tmp_path / "run", *RECIPE, "--num_workers", 1, runner=runner)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "ArithmeticError: process 1 cannot go on" in errors
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-10"]


def launch_two_machines(train, folders: list[Path]) -> list[subprocess.Popen]:
    """One process on each of two "machines", whose launchers meet over the loopback device."""
    port, processes = reserve_port(), []
    for number, folder in enumerate(folders):
        launcher = ("-m", "torch.distributed.run", "--nnodes", 2, "--node_rank", number)
        launcher += ("--master_addr", "127.0.0.1", "--master_port", port)
        runner = partial(start, *launcher)
        processes.append(train(SCRIPT, folder, *RECIPE, runner=runner))
    return processes


def test_two_machines(straight, train, tmp_path):
    # They see one disk; each has a process that is the first of its machine.
    runner = partial(run_two, machines=2)
    process = train(SCRIPT, tmp_path / "run", *RECIPE, steps=5, runner=runner)
    assert "Batch: 4 patches over 2 processes" in process.stdout
    assert metrics(tmp_path / "run")[0] == pytest.approx(metrics(straight)[0], rel=1e-3)


@pytest.mark.slow
def test_the_launchers_of_two_machines(straight, train, tmp_path):
    first, second = launch_two_machines(train, [tmp_path / "run"] * 2)
    output, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, errors
    assert second.wait(timeout=PATIENCE) == 0
    assert "Batch: 4 patches over 2 processes" in output
    for one, two in zip(metrics(straight), metrics(tmp_path / "run"), strict=True):
        assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
def test_two_machines_need_a_common_disk(train, tmp_path):
    processes = launch_two_machines(train, [tmp_path / "one", tmp_path / "two"])
    errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert all(process.returncode for process in processes)
    assert "Name an --output_dir that all machines see" in errors[0]
