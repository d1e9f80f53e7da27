"""What depends on the network and the recipe of a script holds for every `train_*.py`."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from running import (
    ONE_OR_ALL,
    RECIPE,
    SCRIPTS,
    SRGAN,
    assert_same_run,
    metrics,
    refusal,
    run_here,
)


def test_resumed_equals_straight(trained, train, tmp_path):
    script, straight = trained
    # What an interrupted run leaves: a half-written checkpoint, and logs from after the last one.
    folder = Path(shutil.copytree(straight, tmp_path / "run"))
    (folder / "checkpoint-20").rename(folder / "checkpoint-20.partial")
    if "at step 20, on" in (folder / "README.md").read_text():
        (folder / "model.safetensors").unlink()  # which is not yet that of step 10
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 2')
    options = (*RECIPE, "--resume_from_checkpoint", "latest")
    process = train(script, folder, *options)
    assert f"Resuming from {folder / 'checkpoint-10'}" in process.stdout
    assert "Steps: 10 to 20" in process.stdout
    assert_same_run(folder, straight)
    again = train(script, folder, *options)
    assert "Steps: 20 to 20" in again.stdout
    assert_same_run(folder, straight)


def test_parts_of_a_batch_train_as_the_whole(trained, train, tmp_path):
    # 4 = 4 x 1, from step 10 on, which is no multiple of 4.
    script, whole = trained
    parts = shutil.copytree(whole, tmp_path / "parts")
    shutil.rmtree(parts / "checkpoint-20")
    options = (*RECIPE, "--gradient_accumulation_steps", 4, "--resume_from_checkpoint", "latest")
    runner = partial(run_here, ACCELERATE_GRADIENT_ACCUMULATION_STEPS="3")  # which does not count
    if script == SRGAN:  # whose batch normalization sees a part of the batch at a time
        message = train(script, parts, *options, runner=refusal)
        assert "by another recipe: --gradient_accumulation_steps was 1 and is 4" in message
        return
    process = train(script, parts, *options, runner=runner)
    assert "Batch: 4 patches in 4 parts" in process.stdout
    rows = metrics(parts)
    assert [row["step"] for row in rows] == [5, 10, 10, 15, 20, 20]
    for ours, theirs in zip(rows, metrics(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    before, one, four = (
        load_file(folder / name / "model.safetensors")
        for folder, name in (
            (whole, "checkpoint-10"),
            (whole, "checkpoint-20"),
            (parts, "checkpoint-20"),
        )
    )
    for key in before:
        # (A constant of the network is equal in all three.)
        assert (four[key] - one[key]).norm() <= 0.02 * (one[key] - before[key]).norm()


# (SRGAN's has batch normalization.)
@pytest.mark.parametrize("script", [*ONE_OR_ALL, SRGAN])
def test_saved_weights_are_the_average(script, train, tmp_path):
    folder = tmp_path / "run"
    options = ("--checkpointing_steps", 1, "--checkpoints_total_limit", 9, "--ema_decay", 0.9)
    train(script, folder, *options, steps=4)
    latest = [
        load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in range(1, 5)
    ]
    saved = load_file(folder / "model.safetensors")
    for name, average in latest[0].items():
        if "running_" in name or "num_batches" in name:  # batch normalization's are the latest
            assert torch.equal(saved[name], latest[-1][name])
            continue
        for weights in latest[1:]:
            average = 0.9 * average + 0.1 * weights[name]
        torch.testing.assert_close(saved[name], average, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("script", [script for script in ONE_OR_ALL if SRGAN not in str(script)])
def test_best_weights_are_kept(script, train, tmp_path):
    # A learning rate that becomes too high: the last validation is not the best. (One that is too
    # high from the beginning makes rounding errors decide which is.)
    folder = tmp_path / "run"
    options = ("--validation_steps", 1, "--checkpointing_steps", 1, "--learning_rate", 0.02)
    options += ("--lr_warmup_steps", 8)
    train(script, folder, *options, "--checkpoints_total_limit", 9, steps=8)
    scores = [row["psnr_y"] for row in metrics(folder) if "psnr_y" in row]
    best = max(range(8), key=scores.__getitem__)
    assert best != 7
    saved = load_file(folder / "model.safetensors")
    kept = load_file(folder / f"checkpoint-{best + 1}" / "model.safetensors")
    assert all(torch.equal(saved[name], kept[name]) for name in saved)
    card = (folder / "README.md").read_text()
    assert f"Best validation, at step {best + 1}, on 1 picture: " in card
    assert " One picture is too few to tell which step is the best." in card
    row = [row for row in metrics(folder) if "psnr_y" in row][best]
    for key in row.keys() - {"step", "psnr_y", "ssim_y"} or {"psnr_y"}:
        if "psnr" in key:
            assert f"PSNR-Y {row[key]:.2f} dB" in card


def test_bf16(trained, train, tmp_path):
    script, float32 = trained
    process = train(script, tmp_path / "run", *RECIPE, "--mixed_precision", "bf16", steps=10)
    assert "Device: CPU, 1 thread, bf16" in process.stdout
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert torch.float32 in {tensor.dtype for tensor in tensors.values()}
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.int64}
    ours, exact = metrics(tmp_path / "run")[0]["loss"], metrics(float32)[0]["loss"]
    assert ours == pytest.approx(exact, rel=0.02)
    ours, exact = (
        load_file(folder / "checkpoint-10" / "model.safetensors")
        for folder in (tmp_path / "run", float32)
    )
    assert any(not torch.equal(ours[name], exact[name]) for name in exact)


@pytest.mark.parametrize("variant", ["a2n", pytest.param("a2n-m", marks=pytest.mark.slow)])
def test_a2n_x4_starts_from_x2(train, tmp_path, variant):
    options = ("--variant", variant)
    train("train_a2n.py", tmp_path / "x2", *options, "--loss", "charbonnier", steps=1)
    options += ("--scale", 4, "--init_from", tmp_path / "x2", "--lr_scheduler", "cosine")
    process = train("train_a2n.py", tmp_path / "x4", *options, steps=1)
    assert "172 of 178 tensors copied" in process.stdout
    assert "A2N x4" in process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_compiled(script, train, tmp_path):
    options = (*RECIPE, "--checkpointing_steps", 1)
    train(script, tmp_path / "compiled", *options, "--compile", steps=3)
    train(script, tmp_path / "plain", *options, steps=3)
    changes = []
    for kind in ("compiled", "plain"):
        before, after = (
            load_file(tmp_path / kind / f"checkpoint-{step}" / "model.safetensors")
            for step in (2, 3)
        )
        changes.append(torch.cat([(after[name] - before[name]).flatten() for name in before]))
    compiled, plain = changes
    assert plain.norm() > 0
    assert (compiled - plain).norm() < 0.02 * plain.norm()
    options = (*options, "--compile", "--resume_from_checkpoint", "latest")
    train(script, tmp_path / "compiled", *options, steps=4)


def test_evaluation_finds_the_scores_of_the_validation(trained, pictures_dir, tmp_path):
    _, folder = trained
    (tmp_path / "One" / "HR").mkdir(parents=True)
    shutil.copy(pictures_dir / "7.png", tmp_path / "One" / "HR")
    run_here(
        *("evaluate.py", "--model", folder, "--benchmark_dir", tmp_path, "--benchmarks", "One"),
        *("--output", tmp_path / "report.json"),
    )
    report = json.loads((tmp_path / "report.json").read_text())
    key = f"psnr_y_x{report['scale']}"  # of a network for several scales
    logged = [row.get(key, row["psnr_y"]) for row in metrics(folder) if "psnr_y" in row]
    assert min(abs(report["benchmarks"]["One"]["psnr_y"] - psnr) for psnr in logged) < 1e-3
