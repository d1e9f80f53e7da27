"""A run that an older commit began is resumed. fixtures/README.md says how it was made."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.files import CHECKSUMS
from common.record import RECORD
from common.training.folder import NEEDED, find_damage, list_checkpoints, seal
from running import RECIPE, ROOT, SMALL, metrics, refusal, run_here

OLD = ROOT / "tests" / "fixtures" / "srcnn_run"
SCRIPT = "train_srcnn.py"
OPTIONS = (*RECIPE, "--scale", 2, "--kernel_sizes", "9-1-5", "--report_to", "none")
LATEST = ("--resume_from_checkpoint", "latest")
STATES = sorted(
    path.name for path in (OLD / "checkpoint-10").iterdir() if path.suffix not in ("", ".json")
)


@pytest.fixture
def copy(tmp_path):
    """A copy of the old run's folder."""
    return Path(shutil.copytree(OLD, tmp_path / "copy"))


@pytest.fixture
def refused(copy, pictures_dir):
    """Resumes the copy and returns the message of the script, which must refuse."""

    def refused():
        base = (*SMALL, *OPTIONS, "--train_data_dir", pictures_dir, "--output_dir", copy)
        return refusal(SCRIPT, *base, *LATEST, "--max_train_steps", 12)

    return refused


def test_the_old_run_is_whole():
    assert [path.name for path in list_checkpoints(OLD)] == ["checkpoint-10"]
    assert find_damage(OLD / "checkpoint-10") is None
    assert len(STATES) == 6


def test_an_old_run_is_resumed(copy, train):
    lines = (OLD / "metrics.jsonl").read_text()
    process = train(SCRIPT, copy, *OPTIONS, *LATEST, steps=12, runner=run_here)
    assert f"Resuming from {copy / 'checkpoint-10'}." in process.stdout
    assert "10 to 12" in process.stdout
    assert "The recipe changes" not in process.stdout  # nor are the pictures others
    assert "Warning" not in process.stdout

    # The log goes on.
    assert (copy / "metrics.jsonl").read_text().startswith(lines)
    assert [row["step"] for row in metrics(copy)] == [5, 10, 10, 12, 12]
    assert metrics(copy)[3]["learning_rate"] == 1e-5  # halved at step 7

    # All parts of the state count on from step 10.
    old, new = OLD / "checkpoint-10", copy / "checkpoint-12"
    assert find_damage(new) is None
    books = [torch.load(folder / "custom_checkpoint_0.pkl") for folder in (old, new)]
    assert (books[0]["step"], books[1]["step"]) == (10, 12)
    assert books[1]["validation"] == books[0]["validation"]  # else the best would begin anew
    assert books[1]["bicubic"] == books[0]["bicubic"]
    assert books[1]["best"]["psnr_y"] >= books[0]["best"]["psnr_y"]
    assert torch.load(new / "scheduler.bin")["last_epoch"] == 12
    moments = torch.load(new / "optimizer.bin")["state"].values()
    assert [int(state["step"]) for state in moments] == [12] * 6
    averages = [torch.load(folder / "custom_checkpoint_1.pkl") for folder in (old, new)]
    assert averages[1]["n_averaged"] == 12

    # Two small steps changed the weights, but not by much: they are not those of a new network.
    before, after = (load_file(folder / "model.safetensors") for folder in (old, new))
    for weights, trained in ((before, after), averages):
        assert weights.keys() == trained.keys()
        for name in weights.keys() - {"n_averaged"}:
            assert not torch.equal(trained[name], weights[name])
            assert torch.allclose(trained[name], weights[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", STATES)
def test_a_missing_piece_is_not_begun_anew(name, copy, refused):
    (copy / "checkpoint-10" / name).unlink()
    message = refused()
    assert f"No checkpoint in {copy} is whole (checkpoint-10: {name} is missing)" in message
    assert (copy / "model.safetensors").read_bytes() == (OLD / "model.safetensors").read_bytes()
    assert (copy / "metrics.jsonl").read_text() == (OLD / "metrics.jsonl").read_text()


@pytest.mark.parametrize("name", STATES)
def test_a_piece_that_never_was_is_not_begun_anew(name, copy, refused):
    checkpoint = copy / "checkpoint-10"
    partial = checkpoint.rename(copy / "checkpoint-10.partial")
    (partial / name).unlink()
    (partial / CHECKSUMS).unlink()
    seal(partial, json.loads((partial / RECORD).read_text()))
    if name in NEEDED:
        assert f"checkpoint-10: {name} is missing" in refused()
    else:
        assert f"{checkpoint} is of another network, optimizer or --ema_decay" in refused()
