"""What train_srcnn.py and train_vdsr.py train: the papers' losses, rates and scales."""

import json

import pytest
import torch
from safetensors.torch import load_file

import train_srcnn
import train_vdsr
from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import PatchDataset
from common.images.color import luma
from common.images.tensors import to_float
from running import (
    metrics,
    run_here,
)


@pytest.mark.parametrize("script", ["train_srcnn.py", "train_vdsr.py"])
def test_sgd_of_the_papers(script, train, tmp_path):
    options = ("--optimizer", "sgd", "--lr_scheduler", "step", "--lr_step_size", 2)
    options += ("--lr_gamma", 0.1, "--lr_warmup_steps", 0, "--logging_steps", 1)
    train(script, tmp_path / "run", *options, steps=4)
    rate = {"train_srcnn.py": 1e-4, "train_vdsr.py": 0.1}[script]
    rows = [row for row in metrics(tmp_path / "run") if "loss" in row]
    rates = [rate, rate / 10, rate / 10, rate / 100]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    optimizer = torch.load(tmp_path / "run" / "checkpoint-4" / "optimizer.bin")
    decay = {"train_srcnn.py": 0, "train_vdsr.py": 1e-4}[script]
    for group in optimizer["param_groups"]:
        assert (group["momentum"], group["weight_decay"]) == (0.9, decay)


def test_srcnn_changes_its_last_layer_at_a_tenth_of_the_rate(train, tmp_path):
    options = ("--learning_rate", 0.02, "--lr_scheduler", "step", "--lr_warmup_steps", 0)
    train("train_srcnn.py", tmp_path / "run", *options, steps=1)
    optimizer = torch.load(tmp_path / "run" / "checkpoint-1" / "optimizer.bin")
    rates = [(len(group["params"]), group["lr"]) for group in optimizer["param_groups"]]
    assert rates == [(4, 0.02), (2, pytest.approx(0.002))]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("script", ["train_srcnn.py", "train_vdsr.py"])
def test_loss_is_that_of_the_inner_luma(script, scale, train, tmp_path, pictures_dir):
    options = ("--scale", scale, "--logging_steps", 1)
    train(script, tmp_path / "run", *options, steps=1)
    pictures, _ = decode_pictures(find_pictures(pictures_dir, [scale]), [scale])
    patches = PatchDataset(pictures.subset(range(7)), [scale], 24, batch_size=4, seed=0)
    lr, hr = (to_float(images, torch.device("cpu")) for images in patches.__getitems__(range(4)))
    torch.manual_seed(0)
    if script == "train_vdsr.py":
        network = train_vdsr.VDSR([scale], num_layers=4)
    else:
        network = train_srcnn.SRCNN(scale)
    border = {"train_srcnn.py": 6, "train_vdsr.py": {2: 3, 3: 4, 4: 6}[scale]}[script]
    with torch.no_grad():
        error = luma(network(lr)) - luma(hr)
    inner = error[..., border:-border, border:-border]
    expected = inner.square().sum().item() / 2 / 4
    assert metrics(tmp_path / "run")[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_default_patches_and_rates(monkeypatch):
    def defaults(script, *options):
        monkeypatch.setattr("sys.argv", [f"{script.__name__}.py", *options])
        return script.parse_args()

    sides = {s: defaults(train_srcnn, "--scale", s).patch_size for s in ("2", "3", "4", "5")}
    assert sides == {"2": 32, "3": 33, "4": 32, "5": 30}
    assert defaults(train_srcnn, "--optimizer", "sgd").learning_rate == 1e-4
    vdsr = defaults(train_vdsr)
    assert (vdsr.patch_size, vdsr.scale, vdsr.num_layers) == (48, [2, 3, 4], 20)
    assert defaults(train_vdsr, "--optimizer", "sgd").learning_rate == 0.1


def test_vdsr_clips_the_gradients_of_sgd(train, tmp_path):
    # With a momentum of 0.9 the second step moves no weight by more than 1.9 theta.
    options = ("--optimizer", "sgd", "--clip_theta", 1e-3, "--weight_decay", 0)
    options += ("--lr_scheduler", "step", "--lr_warmup_steps", 0, "--checkpointing_steps", 1)
    train("train_vdsr.py", tmp_path / "run", *options, steps=2)
    first, second = (
        load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2)
    )
    moves = [(second[name] - first[name]).abs().max().item() for name in first]
    assert max(moves) == pytest.approx(1.9e-3, rel=1e-3)


def test_vdsr_for_three_scales_and_for_one(train, tmp_path, tiny_benchmark_dir):
    options = ("--num_layers", 4, "--no_bias")
    process = train("train_vdsr.py", tmp_path / "all", *options, "--scale", 4, 2, 3, 2, steps=6)
    assert "Network: VDSR x2 x3 x4" in process.stdout
    assert "Patches: LR 12x12 or 8x8 or 6x6, HR 24x24" in process.stdout
    scores = metrics(tmp_path / "all")[-1]
    for key in ("psnr_y", "ssim_y"):
        assert scores[key] == pytest.approx(
            sum(scores[f"{key}_x{scale}"] for scale in (2, 3, 4)) / 3
        )
    card = (tmp_path / "all" / "README.md").read_text()
    assert "# VDSR x2 x3 x4\n" in card
    assert "by a factor of 2 or 3 or 4." in card
    assert "sr = model(lr, scale=2)" in card
    assert f"x3: PSNR-Y {scores['psnr_y_x3']:.2f} dB" in card
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    reports = {}
    for scale in (2, 3, 4):
        output = tmp_path / f"{scale}.json"
        model = ("--model", tmp_path / "all", "--scale", scale)
        process = run_here("evaluate.py", *model, *tiny, "--output", output)
        assert f"VDSR x{scale}" in process.stdout
        reports[scale] = json.loads(output.read_text())["benchmarks"]["Tiny"]["psnr_y"]
    assert len(set(reports.values())) == 3
    assert "VDSR x2" in run_here("evaluate.py", "--model", tmp_path / "all", *tiny).stdout

    # One scale, from the weights for all.
    options += ("--scale", 2, "--init_from", tmp_path / "all", "--learning_rate", 1e-9)
    process = train("train_vdsr.py", tmp_path / "one", *options, steps=1)
    assert "4 of 4 tensors copied" in process.stdout
    assert json.loads((tmp_path / "one" / "config.json").read_text())["scales"] == [2]
    run_here("evaluate.py", "--model", tmp_path / "one", *tiny, "--output", tmp_path / "one.json")
    one = json.loads((tmp_path / "one.json").read_text())["benchmarks"]["Tiny"]["psnr_y"]
    assert one == pytest.approx(reports[2], abs=1e-3)
