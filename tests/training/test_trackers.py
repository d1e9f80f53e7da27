"""Trackers of a run: which ones start, what they are told, how they end and go on."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.options import Arguments
from common.training.trackers import Trackers
from running import refusal


@pytest.fixture
def start(accelerator, processes, tmp_path):
    def start(*names: str, step: int = 0) -> Trackers:
        accelerator.trackers = []
        trackers = Trackers(accelerator, processes)
        args = Arguments(report_to=list(names), tracker_project_name="ours")
        args.output_dir, args.data_files, args.seed = tmp_path, [Path("a")], 3
        trackers.start(args, step)
        return trackers

    return start


def test_what_an_interrupted_run_logged_is_hidden_in_tensorboard(accelerator, start):
    start("tensorboard", step=20)
    assert accelerator.started == {"tensorboard": {"project": "tensorboard", "purge_step": 21}}


def test_a_resumed_run_goes_on_with_its_curve(accelerator, start, tmp_path):
    start("wandb", "trackio", "mlflow", "wandb")
    first = accelerator.started
    assert [tracker.name for tracker in accelerator.trackers] == ["wandb", "trackio", "mlflow"]
    assert accelerator.configured["wandb"]["seed"] == 3
    assert accelerator.configured["wandb"]["data_files"] == f"{[Path('a')]}"
    runs = json.loads((tmp_path / "trackers.json").read_text())
    name = tmp_path.name
    known = {"name": name, "id": runs["wandb"], "resume": "allow"}
    assert first["wandb"] == {"project": "ours", **known}
    assert first["mlflow"] == {"project": "ours", "run_name": name}

    accelerator.started, accelerator.configured = {}, {}
    start("wandb", "trackio", "mlflow", step=10)
    assert accelerator.started["wandb"] == first["wandb"]
    assert accelerator.started["trackio"] == first["trackio"]
    assert accelerator.started["mlflow"] == {"project": "ours", "run_id": "abc"}
    assert accelerator.configured == dict.fromkeys(["wandb", "trackio", "mlflow"])


def test_trackers_that_were_made_for_one_run_know_it_by_its_folder(accelerator, start, tmp_path):
    for step in (0, 10):
        start("dvclive", "swanlab", "clearml", step=step)
        folder = f"{tmp_path / 'dvclive'}"
        known = {"project": "ours", "dir": folder, "resume": step > 0}
        assert accelerator.started["dvclive"] == known
        run = json.loads((tmp_path / "trackers.json").read_text())["swanlab"]
        assert re.fullmatch("[0-9a-z]{21}", run)
        known = {"experiment_name": tmp_path.name, "id": run, "resume": "allow"}
        assert accelerator.started["swanlab"] == {"project": "ours", **known}
        known = {"task_name": tmp_path.name, "reuse_last_task_id": False}
        assert accelerator.started["clearml"] == {"project": "ours", **known}


def test_the_first_pictures_are_shown_where_pictures_can_be(accelerator, start, monkeypatch):
    trackers = start("comet_ml")
    assert not trackers.shows(0)
    trackers = start("comet_ml", "wandb", "tensorboard", "mlflow", "trackio")
    assert [index for index in range(9) if trackers.shows(index)] == [0, 1, 2]
    mlflow, by_mlflow = ModuleType("mlflow"), []
    mlflow.log_image = lambda image, key, step: by_mlflow.append((image.size, key, step))
    trackio = ModuleType("trackio")
    trackio.Image = lambda image: image.size
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    trackers.show("a(1).png x2", Image.new("RGB", (5, 4)), 10)
    shown = [({"a(1).png x2": (1, 4, 5, 3)}, 10)]
    by_trackio = [({"a(1).png x2": (5, 4)}, 10)]
    logged = [tracker.logged for tracker in accelerator.trackers]
    assert logged == [[], shown, shown, [], by_trackio]
    assert by_mlflow == [((5, 4), "a_1_.png x2", 10)]  # whose names have no parentheses


def test_patches_of_the_first_batch_are_shown(accelerator, start):
    batches = [(torch.full((2, 3, 4, 4), 0.2 * n), torch.full((2, 3, 8, 8), 1.0)) for n in (1, 2)]
    assert list(start("comet_ml").watch(batches, 5)) == batches
    assert accelerator.trackers[0].logged == []
    assert list(start("wandb").watch(batches, 5)) == batches
    (images, step) = accelerator.trackers[0].logged.pop()
    assert accelerator.trackers[0].logged == []
    assert (list(images), step) == (["patches, HR left of LR"], 5)
    assert images["patches, HR left of LR"] == (1, 104, 832, 3)


def test_a_tracker_that_fails_ends_alone(accelerator, start, capsys):
    trackers = start("wandb", "tensorboard")
    wandb, tensorboard = accelerator.trackers
    trackers.log({"loss": 1.0}, 5)
    wandb.full = True
    trackers.log({"loss": 2.0}, 6)
    wandb.full = False
    trackers.log({"loss": 3.0}, 7)
    assert wandb.logged == [({"loss": 1.0}, 5)]
    assert [step for _, step in tensorboard.logged] == [5, 6, 7]
    output = capsys.readouterr().out
    assert output == (
        "Warning: wandb fails and ends at step 6; training goes on, metrics.jsonl tells the same "
        "(no room)\n"
    )


def test_a_tracker_that_cannot_be_reached_is_said_before_the_training(accelerator, start, capsys):
    accelerator.unreachable = {"mlflow"}
    with pytest.raises(UserError, match=r"--report_to mlflow does not start \(ConnectionError: no"):
        start("wandb", "mlflow")
    assert accelerator.trackers == []
    # Nobody may sit at the terminal when a run is resumed.
    start("wandb", "mlflow", step=10)
    assert [tracker.name for tracker in accelerator.trackers] == ["wandb"]
    assert "Warning: mlflow fails and ends at step 10; training goes on" in capsys.readouterr().out


def test_trackers_that_there_are_not_are_named_with_the_other_mistakes():
    options = ("--report_to", "tensorboard", "clearml", "all", "none", "--batch_size", 0)
    message = refusal("train_srcnn.py", *options)
    assert "--batch_size 0 is not at least 1" in message
    assert (
        "--report_to clearml: the package clearml is not installed. Install it by `pip" in message
    )
    assert "--report_to all is none of aim, clearml, comet_ml, dvclive, mlflow, " in message
    assert "wandb, none. Name each to use." in message
    assert "none stands alone" in message


def test_none_is_none(accelerator, start):
    trackers = start("none")
    assert accelerator.trackers == []
    trackers.finish(5)


def test_trackers_finish(accelerator, start):
    trackers = start("tensorboard")
    (tracker,) = accelerator.trackers
    trackers.finish(5)
    assert tracker.finished


def test_trackers_that_know_failures_are_told_of_one(accelerator, start, monkeypatch):
    ends = []
    mlflow = ModuleType("mlflow")
    mlflow.end_run = lambda status: ends.append(status)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    trackers = start("wandb", "mlflow", "tensorboard")
    wandb, _, tensorboard = accelerator.trackers
    wandb.tracker.finish = lambda exit_code: ends.append(exit_code)
    trackers.finish(5, failed=True)
    assert (ends, wandb.finished, tensorboard.finished) == ([1, "FAILED"], False, True)
