"""What every script leaves to `Run`, with the script that takes the shortest time."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from tqdm import tqdm

import train_srcnn
from common.signals import SIGNALS
from common.training import feed, trackers
from common.training.guard import StepGuard
from common.training.run import Run
from running import (
    LATEST,
    ONE_OR_ALL,
    RECIPE,
    SCRIPT,
    SMALL,
    assert_same_run,
    list_checkpoints,
    metrics,
    refusal,
    run,
    run_here,
)


def test_output_folder(straight):
    changed_code = {"uncommitted.patch"}  # where these tests run before a commit
    assert {path.name for path in straight.iterdir()} - changed_code == {
        ".lock",
        "args.json",
        "checkpoint-10",
        "checkpoint-20",
        "config.json",
        "example.png",
        "metrics.jsonl",
        "model.safetensors",
        "README.md",
        "curves.svg",
        "tensorboard",
        "times.jsonl",
    }
    record = json.loads((straight / "args.json").read_text())
    assert record["args"]["max_train_steps"] == 20
    assert record["args"]["ema_decay"] == 0.9
    assert record["torch"] == torch.__version__.split("+")[0]
    card = (straight / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: super-resolution-on-accelerate\nmetrics:\n")
    assert f"python {SCRIPT} --batch_size 4" in card
    assert "load_model(" in card
    assert str(straight.parent) not in card  # nobody needs to know where it was
    assert re.search(r"PSNR-Y \d+\.\d\d dB", card)


def test_log(straight):
    rows = metrics(straight)
    assert [row["step"] for row in rows] == [5, 10, 10, 15, 20, 20]
    losses = [row["loss"] for row in rows if "loss" in row]
    scores = [row for row in rows if "psnr_y" in row]
    assert len(losses) == 4
    assert len(scores) == 2
    events = EventAccumulator(str(straight / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert [event.step for event in events.Scalars("psnr_y")] == [10, 20]
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("7.png x")]
    assert tags
    for tag in tags:
        assert [event.step for event in events.Images(tag)] == [10, 20]


def test_workers_change_nothing(straight, train, tmp_path):
    train(SCRIPT, tmp_path / "run", *RECIPE, "--num_workers", 2)
    assert_same_run(tmp_path / "run", straight)


def test_begins_without_a_checkpoint_and_keeps_the_last_two(train, tmp_path):
    folder = tmp_path / "run"
    options = ("--resume_from_checkpoint", "latest", "--checkpoints_total_limit", 2)
    process = train(SCRIPT, folder, *options, "--checkpointing_steps", 1, steps=4)
    assert "7 to train on (0.1 megapixels), 1 to validate on" in process.stdout
    assert "Batch: 4 patches\n" in process.stdout
    assert "Device: CPU, 1 thread, float32\n" in process.stdout
    assert f"There is no checkpoint in {folder} yet: starting from the beginning." in process.stdout
    assert metrics(folder)[0]["step"] == 4
    kept = sorted(path.name for path in folder.glob("checkpoint*"))
    assert kept == ["checkpoint-3", "checkpoint-4"]


def test_learning_rates(train, tmp_path):
    options = ("--logging_steps", 1, "--lr_warmup_steps", 2, "--learning_rate", 0.0004)
    falls = ("--lr_scheduler", "step", "--lr_step_size", 3, "--lr_gamma", 0.5)
    train(SCRIPT, tmp_path / "step", *options, *falls, steps=8)
    train(SCRIPT, tmp_path / "cosine", *options, "--lr_scheduler", "cosine", steps=6)
    # Logged after the step, so each is the rate of the next one.
    rates = [row["learning_rate"] for row in metrics(tmp_path / "step") if "loss" in row]
    assert rates == pytest.approx([4e-4, 4e-4, 2e-4, 2e-4, 2e-4, 1e-4, 1e-4, 1e-4])
    rates = [row["learning_rate"] for row in metrics(tmp_path / "cosine") if "loss" in row]
    halves = [(1 + np.cos(np.pi * step / 4)) / 2 * 4e-4 for step in range(5)]
    assert rates == pytest.approx([4e-4, *halves], abs=1e-12)


@pytest.mark.parametrize("script", ONE_OR_ALL)
def test_divergence_stops_with_a_message(script, train, tmp_path):
    options = ("--learning_rate", 1e9, "--logging_steps", 2)
    message = train(script, tmp_path / script, *options, runner=refusal)
    # SRGAN's gradients are infinite in a step whose loss is not.
    found = r"(loss is (nan|inf)|the gradients of \d+ steps? are not finite)"
    assert re.search(rf"Training diverged before step \d+: {found}", message)
    assert "Try a smaller --learning_rate" in message


def test_gradients_that_are_no_numbers_do_not_ruin_the_weights(train, tmp_path, monkeypatch):
    losses = []

    def loss_of(sr, hr):
        losses.append(F.mse_loss(sr, hr))
        if len(losses) == 3:
            losses[-1].register_hook(lambda gradient: gradient * float("nan"))
        return losses[-1]

    monkeypatch.setattr(train_srcnn, "euclidean", loss_of)
    message = train(SCRIPT, tmp_path / "run", "--logging_steps", 5, steps=10, runner=refusal)
    assert "before step 5: the gradients of 1 step are not finite. Try" in message
    assert all(loss.isfinite() for loss in losses)
    assert len(losses) == 5


@pytest.mark.parametrize("place", ["batches", "loop", "end_step", "records"])
def test_a_run_that_fails_leaves_nothing_to_a_program_that_goes_on(
    place, train, tmp_path, monkeypatch
):
    def fail(*_: object) -> None:
        raise OSError("no room")

    where = {
        "batches": (feed, "number_of_workers"),
        "loop": (train_srcnn, "euclidean"),
        "end_step": (StepGuard, "values"),
        "records": (Run, "_begin_records"),
    }
    monkeypatch.setattr(*where[place], fail)
    finished, before = [], [signal.getsignal(number) for number in SIGNALS]
    note = lambda tracker, failed: finished.append((tracker.name, failed))  # noqa: E731
    monkeypatch.setattr(trackers, "_finish", note)
    with suppress(OSError):
        train(SCRIPT, tmp_path / "run", runner=partial(run_here, check=False))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert finished == [("tensorboard", True)]
    assert not tqdm._instances


def test_a_loop_that_was_left_is_not_begun_again(train, tmp_path, monkeypatch):
    class Left(Run):
        def batches(self, until: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
            for _ in super().batches(until):
                break
            yield from super().batches(until)

    monkeypatch.setattr(train_srcnn, "Run", Left)
    with pytest.raises(RuntimeError, match=r"A loop over run\.batches\(\) was left before its end"):
        train(SCRIPT, tmp_path / "run", runner=run_here)


def test_folders_train_and_val(train, pictures_dir, tmp_path):
    for number, name in enumerate(("train", "train", "val")):
        (tmp_path / "faces" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures_dir / f"{number}.png", tmp_path / "faces" / name)
    options = ("--train_data_dir", tmp_path / "faces")
    process = train(SCRIPT, tmp_path / "run", *options, steps=1)
    assert "2 to train on (0.0 megapixels), 1 to validate on" in process.stdout


def test_bad_pictures_are_named(train, pictures_dir, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_dir, folder)
    with Image.open(folder / "0.png") as image:
        image.save(folder / "cut.jpg")
        image.crop((0, 0, 20, 20)).save(folder / "small.png")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    for attempt in ("first", "cached"):
        options = ("--train_data_dir", folder, "--validation_data_dir", pictures_dir)
        process = train(SCRIPT, tmp_path / attempt, *options, steps=1)
        assert (
            "Left out 1 of 10 pictures: cut.jpg (it is damaged: image file is truncated"
            in process.stdout
        )
        assert "which are smaller than a patch of 24x24: small.png" in process.stdout
        assert "8 to train on" in process.stdout
    for number in range(3):
        (folder / f"text{number}.png").write_text("not a picture")
    base = (SCRIPT, *SMALL, "--train_data_dir", folder, "--output_dir", tmp_path / "run")
    message = refusal(*base)
    assert "Cannot read 4 of 13 pictures: cut.jpg" in message
    assert "Up to three, or 1 %, would be left out. Mend or remove them." in message
    for path in folder.glob("*.png"):
        path.write_text("not a picture")
    message = refusal(*base)
    assert "Cannot read 13 of 13 pictures: 0.png" in message
    assert " None is left. Mend them, or name others." in message
    assert "Up to three" not in message


def test_small_validation_pictures_are_refused(pictures_dir, tmp_path):
    Image.new("RGB", (14, 40)).save(tmp_path / "small.png")
    message = refusal(
        *(SCRIPT, *SMALL, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run"),
        *("--validation_data_dir", tmp_path),
    )
    assert "Too small to validate on: small.png" in message


def test_no_hub(tmp_path):
    message = refusal(SCRIPT, "--output_dir", tmp_path / "run")
    assert "Cannot reach http://127.0.0.1:" in message
    assert " for the data set yangtao9009/DIV2K (" in message
    assert "--train_data_dir FOLDER" in message
    assert "--dataset_name sample" in message


def test_used_folder_is_refused(straight, pictures_dir, tmp_path):
    folder, before = straight, (straight / "model.safetensors").read_bytes()
    options = ("--train_data_dir", pictures_dir, "--patch_size", 24)
    message = refusal(SCRIPT, *options, "--output_dir", folder)
    assert f"--output_dir {folder} is not empty" in message
    assert "--resume_from_checkpoint latest" in message
    older = folder / "checkpoint-10"
    message = refusal(SCRIPT, *options, "--output_dir", folder, "--resume_from_checkpoint", older)
    assert "goes on from elsewhere" in message
    message = refusal("train_vdsr.py", *options, "--output_dir", folder, *LATEST)
    checkpoint = list_checkpoints(folder)[-1]
    assert message.endswith(
        f"Cannot resume from {checkpoint}: it is of SRCNN, by train_srcnn.py, and train_vdsr.py "
        "trains VDSR. To train VDSR, name another --output_dir and no checkpoint of SRCNN. To go "
        "on with SRCNN, start train_srcnn.py."
    )
    assert (folder / "model.safetensors").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    message = refusal(SCRIPT, *options, "--output_dir", tmp_path, *LATEST)
    assert "not that of a run" in message


def test_a_longer_cosine_is_another_recipe(train, tmp_path):
    options = ("--lr_scheduler", "cosine")
    train(SCRIPT, tmp_path / "run", *options, steps=1)
    message = train(SCRIPT, tmp_path / "run", *options, *LATEST, steps=2, runner=refusal)
    assert "--max_train_steps was 1 and is 2" in message


def test_resuming_into_another_folder_leaves_a_model_there(straight, train, tmp_path):
    older = straight / "checkpoint-10"
    train(SCRIPT, tmp_path / "run", *RECIPE, "--resume_from_checkpoint", older, steps=11)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "at step 11" in (tmp_path / "run" / "README.md").read_text()


def test_all_cores_under_accelerate_launch(pictures_dir, tmp_path):
    # The launcher sets OMP_NUM_THREADS to 1.
    process = run(
        *f"-m accelerate.commands.launch --cpu {SCRIPT}".split(),
        *"--batch_size 4 --patch_size 24 --max_train_steps 1 --num_workers 0".split(),
        *("--train_data_dir", pictures_dir),
        *("--output_dir", tmp_path / "run"),
    )
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    threads = f"{cores} threads" if cores > 1 else "1 thread"
    assert f"Device: CPU, {threads}, float32" in process.stdout
