"""Runs every script as a user would. What holds for one training script holds for all."""

import json
import os
import re
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_srcnn
import train_srgan
import train_vdsr
from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import PatchDataset
from common.hub import load_model
from common.images.color import luma
from common.images.formats import read_rgb
from common.images.tensors import to_float
from running import (
    OWN,
    RECIPE,
    ROOT,
    SCRIPTS,
    SHARED,
    SMALL,
    SRGAN,
    assert_same_run,
    metrics,
    refusal,
    run,
    run_forked,
    run_here,
    run_two,
)
from train_a2n import A2N

# Of what all scripts leave to `Run`, one is tested, and the others in `make test-slow`.
ONE_OR_ALL = [SCRIPTS[0], *(pytest.param(script, marks=pytest.mark.slow) for script in SCRIPTS[1:])]


@pytest.fixture(scope="module", params=SHARED)
def trained(request, train, tmp_path_factory):
    """The script, the folder of a run of 20 steps with averaged weights, and what it printed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return request.param, folder, train(request.param, folder, *RECIPE)


# ------------------------------------------------------------------------------------- training


def test_output_folder(trained):
    script, folder, _ = trained
    changed_code = {"uncommitted.patch"}  # where these tests run before a commit
    assert {path.name for path in folder.iterdir()} - changed_code == {
        ".lock",
        "args.json",
        "checkpoint-10",
        "checkpoint-20",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "README.md",
        "tensorboard",
        "times.jsonl",
    }
    record = json.loads((folder / "args.json").read_text())
    assert record["args"]["max_train_steps"] == 20
    assert record["args"]["ema_decay"] == 0.9
    assert record["torch"] == torch.__version__.split("+")[0]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch\nlicense: apache-2.0\n")
    assert f"python {script} --batch_size 4" in card
    assert "load_model(" in card
    assert str(folder.parent) not in card  # nobody needs to know where it was
    assert re.search(r"PSNR-Y \d+\.\d\d dB", card)


def test_banner(trained):
    _, _, process = trained
    assert "7 to train on (0.1 megapixels), 1 to validate on" in process.stdout
    assert "Batch: 4 patches" in process.stdout
    assert "Device: CPU, 1 thread, float32" in process.stdout


def test_log(trained):
    _, folder, _ = trained
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [5, 10, 10, 15, 20, 20]
    losses = [row["loss"] for row in rows if "loss" in row]
    scores = [row for row in rows if "psnr_y" in row]
    assert len(losses) == 4
    assert len(scores) == 2
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert [event.step for event in events.Scalars("psnr_y")] == [10, 20]
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("7.png x")]
    assert tags
    for tag in tags:
        assert [event.step for event in events.Images(tag)] == [10, 20]


def test_resumed_equals_straight(trained, train, tmp_path):
    script, straight, _ = trained
    folder = tmp_path / "run"
    train(script, folder, *RECIPE, steps=10)
    # What an interrupted run leaves: a half-written checkpoint, and logs from after the last one.
    shutil.copytree(folder / "checkpoint-10", folder / "checkpoint-15.partial")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "loss": 1.0}\n{"step": 1')
    options = (*RECIPE, "--resume_from_checkpoint", "latest")
    process = train(script, folder, *options)
    assert f"Resuming from {folder / 'checkpoint-10'}" in process.stdout
    assert "Steps: 10 to 20" in process.stdout
    assert_same_run(folder, straight)
    again = train(script, folder, *options)
    assert "Steps: 20 to 20" in again.stdout
    assert_same_run(folder, straight)


def test_workers_change_nothing(trained, train, tmp_path):
    script, straight, _ = trained
    train(script, tmp_path / "run", *RECIPE, "--num_workers", 2)
    assert_same_run(tmp_path / "run", straight)


def test_parts_of_a_batch_train_as_the_whole(trained, train, tmp_path):
    # 4 = 4 x 1, from step 10 on, which is no multiple of 4.
    script, whole, _ = trained
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


@pytest.mark.parametrize("script", SCRIPTS)
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


@pytest.mark.parametrize("script", ONE_OR_ALL)
def test_begins_without_a_checkpoint_and_keeps_the_last_two(script, train, tmp_path):
    folder = tmp_path / "run"
    options = ("--resume_from_checkpoint", "latest", "--checkpoints_total_limit", 2)
    process = train(script, folder, *options, "--checkpointing_steps", 1, steps=4)
    assert f"There is no checkpoint in {folder} yet: starting from the beginning." in process.stdout
    assert metrics(folder)[0]["step"] == 4
    kept = sorted(path.name for path in folder.glob("checkpoint*"))
    assert kept == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != SRGAN])
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
    row = [row for row in metrics(folder) if "psnr_y" in row][best]
    for key in row.keys() - {"step", "psnr_y", "ssim_y"} or {"psnr_y"}:
        if "psnr" in key:
            assert f"PSNR-Y {row[key]:.2f} dB" in card


def test_bf16(trained, train, tmp_path):
    script, float32, _ = trained
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_divergence_stops_with_a_message(script, train, tmp_path):
    options = ("--learning_rate", 1e30, "--logging_steps", 2)
    message = train(script, tmp_path / script, *options, runner=refusal)
    assert re.search(r"Training diverged before step \d+: loss is (nan|inf)", message)
    assert "Try a smaller --learning_rate" in message


def test_all_cores_under_accelerate_launch(pictures_dir, tmp_path):
    # The launcher sets OMP_NUM_THREADS to 1.
    process = run(
        *"-m accelerate.commands.launch --cpu train_a2n.py".split(),
        *"--batch_size 4 --patch_size 24 --max_train_steps 1 --num_workers 0".split(),
        *("--train_data_dir", pictures_dir),
        *("--output_dir", tmp_path / "run"),
    )
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    threads = f"{cores} threads" if cores > 1 else "1 thread"
    assert f"Device: CPU, {threads}, float32" in process.stdout


def test_all_threads_take_tiny_numbers_for_zero():
    code = (
        "import torch; from common.machine import set_up_cpu; set_up_cpu(2);"
        "print(torch.full((1_000_000,), 1e-39).mul(1).count_nonzero().item())"
    )
    assert run("-c", code).stdout == "0\n"


@pytest.mark.parametrize("variant", ["a2n", "a2n-m"])
def test_a2n_x4_starts_from_x2(train, tmp_path, variant):
    options = ("--variant", variant)
    train("train_a2n.py", tmp_path / "x2", *options, "--loss", "charbonnier", steps=1)
    options += ("--scale", 4, "--init_from", tmp_path / "x2", "--lr_scheduler", "cosine")
    process = train("train_a2n.py", tmp_path / "x4", *options, steps=1)
    assert "172 of 178 tensors copied" in process.stdout
    assert "A2N x4" in process.stdout


def test_learning_rates(train, tmp_path):
    options = ("--logging_steps", 1, "--lr_warmup_steps", 2, "--learning_rate", 0.0004)
    train("train_a2n.py", tmp_path / "step", *options, "--lr_step_size", 3, steps=8)
    train("train_a2n.py", tmp_path / "cosine", *options, "--lr_scheduler", "cosine", steps=6)
    # Logged after the step, so each is the rate of the next one.
    rates = [row["learning_rate"] for row in metrics(tmp_path / "step") if "loss" in row]
    assert rates == pytest.approx([4e-4, 4e-4, 2e-4, 2e-4, 2e-4, 1e-4, 1e-4, 1e-4])
    rates = [row["learning_rate"] for row in metrics(tmp_path / "cosine") if "loss" in row]
    halves = [(1 + np.cos(np.pi * step / 4)) / 2 * 4e-4 for step in range(5)]
    assert rates == pytest.approx([4e-4, *halves], abs=1e-12)


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
    train(script, tmp_path / "run", "--scale", scale, "--logging_steps", 1, steps=1)
    pictures, _ = decode_pictures(find_pictures(pictures_dir, [scale]), [scale])
    patches = PatchDataset(pictures.subset(range(7)), [scale], 24, batch_size=4, seed=0)
    lr, hr = (to_float(images, torch.device("cpu")) for images in patches.__getitems__(range(4)))
    torch.manual_seed(0)
    model = {"train_srcnn.py": train_srcnn.SRCNN, "train_vdsr.py": train_vdsr.VDSR}[script]
    border = {"train_srcnn.py": 6, "train_vdsr.py": {2: 3, 3: 4, 4: 6}[scale]}[script]
    network = model([scale] if script == "train_vdsr.py" else scale)
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


# ---------------------------------------------------------------------------------------- SRGAN

PHASES = ("--pretrain_steps", 10, "--logging_steps", 1, "--validation_steps", 5)
PHASES += ("--checkpointing_steps", 5, "--checkpoints_total_limit", 9, "--lr_step_size", 5)


@pytest.fixture(scope="module")
def two_phases(train, tmp_path_factory):
    """Ten steps of each phase, on one process and on two."""
    folder = tmp_path_factory.mktemp("two_phases")
    for name, runner in (("one", run_here), ("two", run_two)):
        process = train(SRGAN, folder / name, *PHASES, steps=10, runner=runner)
        assert ("over 2 processes" in process.stdout) == (name == "two")
        assert "Phase 1, squared error, to step 10.\n" in process.stdout
        assert "Phase 2, against the discriminator" in process.stdout
    return folder


def test_default_content_layers(monkeypatch):
    for network, layer in (("vgg16", "relu5_3"), ("vgg19", "relu5_4")):
        assert train_srgan.parse_args(["--content_network", network]).content_layer == layer


@pytest.mark.xdist_group(SRGAN)
def test_srgan_in_two_phases(two_phases):
    folder = two_phases / "one"
    first, second = ([r for r in metrics(folder) if (r["step"] > 10) == late] for late in (0, 1))
    assert {key for row in first for key in row if "_y" not in key} == {
        *("step", "loss", "learning_rate")
    }
    assert {key for row in second for key in row if "_y" not in key} == {
        *("step", "loss", "adversarial", "d_loss", "d_hr", "d_sr", "learning_rate")
    }
    losses = [row for row in second if "loss" in row]
    for row in losses:
        assert row["loss"] == pytest.approx(1e-3 * row["adversarial"])
        assert 0 < row["d_sr"] < 1
        assert 0 < row["d_hr"] < 1
    # The schedule is that of the second phase, and of both optimizers. A rate is the next step's.
    rates = [row["learning_rate"] for row in metrics(folder) if "loss" in row]
    assert rates == pytest.approx([1e-4] * 14 + [1e-5] * 5 + [1e-6])
    for number, rate in enumerate((1e-4, 1e-5, 1e-5)):
        name = "optimizer.bin" if number == 0 else f"optimizer_{number}.bin"
        optimizer = torch.load(folder / "checkpoint-15" / name)
        assert optimizer["param_groups"][0]["lr"] == pytest.approx(rate)

    # The network of the first phase is kept; in the second it is the latest that counts.
    for kept, step in (("pretrained", 10), (".", 20)):
        ours = load_file(folder / kept / "model.safetensors")
        latest = load_file(folder / f"checkpoint-{step}" / "model.safetensors")
        assert all(torch.equal(ours[name], latest[name]) for name in ours)
    assert "\nValidation, at step 20, on 1 picture: " in (folder / "README.md").read_text()
    psnr = next(r["psnr_y"] for r in metrics(folder) if r["step"] == 10 and "psnr_y" in r)
    card = (folder / "pretrained" / "README.md").read_text()
    assert f"\nValidation, at step 10, on 1 picture: PSNR-Y {psnr:.2f} dB" in card


@pytest.mark.xdist_group(SRGAN)
@pytest.mark.parametrize(
    ("name", "runner", "checkpoint"),
    [
        *(("one", run_here, checkpoint) for checkpoint in (5, 10, 15)),
        ("two", run_two, 10),
        *(pytest.param("two", run_two, step, marks=pytest.mark.slow) for step in (5, 15)),
    ],
)
def test_srgan_resumes_in_both_phases(two_phases, train, tmp_path, name, runner, checkpoint):
    straight, folder = two_phases / name, tmp_path / "run"
    shutil.copytree(straight, folder)
    (folder / "model.safetensors").unlink()
    for step in (10, 15, 20):
        if step > checkpoint:
            shutil.rmtree(folder / f"checkpoint-{step}")
    if checkpoint <= 10:
        shutil.rmtree(folder / "pretrained")
    options = (*PHASES, "--resume_from_checkpoint", "latest")
    train(SRGAN, folder, *options, steps=10, runner=runner)
    assert_same_run(folder, straight)
    for file in ("pretrained/model.safetensors", "checkpoint-20/model_1.safetensors"):
        ours, theirs = (load_file(path / file) for path in (folder, straight))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(("processes", "runner"), [(1, run_forked), (2, run_two)])
def test_srgan_gradients_of_one_network_at_a_time(train, tmp_path, processes, runner):
    helper = ROOT / "tests" / "helpers" / "srgan_gradients.py"

    def run_helper(script, *command):
        return runner(helper, tmp_path, *command)

    train(SRGAN, tmp_path / "run", "--pretrain_steps", 2, steps=2, runner=run_helper)
    first = {"optimizer": "pretraining", "generator": 1, "discriminator": 0}
    d_step = {"optimizer": "discriminator", "generator": 0, "discriminator": 1}
    g_step = {"optimizer": "generator", "generator": 1, "discriminator": 0}
    files = [json.loads(file.read_text()) for file in tmp_path.glob("rank-*.json")]
    assert len(files) == processes
    for file in files:
        assert file["steps"] == [first, first, d_step, g_step, d_step, g_step]
        assert file["sums"] == files[0]["sums"]  # though the processes saw other patches


def test_srgan_of_the_tutorial(train, tmp_path):
    options = "--variant tutorial --discriminator pooled --adversarial_loss linear".split()
    options += "--mse_weight 1 --tv_weight 2e-8 --logging_steps 1 --learning_rate 1e-9".split()
    train(SRGAN, tmp_path / "run", *options, steps=1)
    row = metrics(tmp_path / "run")[0]
    assert row["d_loss"] == pytest.approx(1 - row["d_hr"] + row["d_sr"])
    # The generator wishes to pass for HR, before a discriminator that hardly changed meanwhile.
    assert row["adversarial"] == pytest.approx(1 - row["d_sr"], abs=1e-4)
    assert abs(row["d_sr"] - 0.5) > 1e-3
    expected = row["mse"] + 1e-3 * row["adversarial"] + 2e-8 * row["tv"]
    assert row["loss"] == pytest.approx(expected)


def test_srgan_begins_with_the_second_phase_from_weights(train, two_phases, tmp_path):
    options = ("--init_from", two_phases / "one" / "pretrained", "--learning_rate", 1e-9)
    process = train(SRGAN, tmp_path / "run", *options, steps=1)
    assert "Steps: 0 to 1" in process.stdout
    scores = [row for row in metrics(two_phases / "one") if "psnr_y" in row]
    assert metrics(tmp_path / "run")[-1]["psnr_y"] == pytest.approx(scores[1]["psnr_y"], abs=0.05)


@pytest.fixture(scope="module")
def with_content(tmp_path_factory):
    """The options of a content loss by a VGG16 of random weights."""
    with torch.device("meta"):
        shapes = torchvision.models.vgg16(weights=None).features.state_dict()
    torch.manual_seed(0)
    tensors = {f"features.{name}": torch.randn(shape.shape) / 30 for name, shape in shapes.items()}
    file = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(tensors, file)
    options = "--content_weight 5000 --content_network vgg16 --content_layer relu1_2".split()
    return (*options, "--vgg_weights", file)


@pytest.mark.parametrize("precision", ["no", pytest.param("bf16", marks=pytest.mark.slow)])
def test_srgan_resumes_with_content_loss(train, with_content, tmp_path, precision):
    options = (*with_content, "--logging_steps", 1, "--mixed_precision", precision)
    options += ("--adversarial_weight", 0.3, "--mse_weight", 2, "--tv_weight", 5)
    train(SRGAN, tmp_path / "run", *options, steps=1)
    train(SRGAN, tmp_path / "run", *options, "--resume_from_checkpoint", "latest", steps=2)
    rows = [row for row in metrics(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2]
    saved = load_file(tmp_path / "run" / "checkpoint-2" / "model_1.safetensors")
    assert len(saved) == len(train_srgan.Discriminator(24).state_dict())
    assert not list((tmp_path / "run" / "checkpoint-2").glob("model_2*"))  # VGG is not saved
    for row in rows:
        assert row["content"] > 0
        weights = {"content": 5000, "adversarial": 0.3, "mse": 2, "tv": 5}
        terms = {name: weight * row[name] for name, weight in weights.items()}
        assert min(terms.values()) > 1e-3 * row["loss"]
        assert row["loss"] == pytest.approx(sum(terms.values()))


@pytest.mark.gpu
def test_srgan_on_a_gpu(train, with_content, tmp_path):
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 1".split()  # DDP by nccl
    options = ("--pretrain_steps", 2, "--mixed_precision", "bf16", "--logging_steps", 1)
    runner = partial(run, *launcher)
    process = train(SRGAN, tmp_path / "run", *with_content, *options, steps=2, runner=runner)
    assert "Device: CPU" not in process.stdout
    assert [row["step"] for row in metrics(tmp_path / "run") if "loss" in row] == [1, 2, 3, 4]


def test_folders_train_and_val(train, pictures_dir, tmp_path):
    for number, name in enumerate(("train", "train", "val")):
        (tmp_path / "faces" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures_dir / f"{number}.png", tmp_path / "faces" / name)
    options = ("--train_data_dir", tmp_path / "faces")
    process = train(SRGAN, tmp_path / "run", *options, steps=1)
    assert "2 to train on (0.0 megapixels), 1 to validate on" in process.stdout


def test_srgan_mistakes(pictures_dir, with_content, tmp_path):
    base = (SRGAN, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    base += ("--pretrain_steps", 0)
    message = refusal(*base, TORCH_HOME=str(tmp_path))
    assert "The weights of vgg19 from torchvision cannot be had" in message
    assert "by --vgg_weights, or train without content loss by --content_weight 0." in message
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    message = refusal(*base, "--tv_weight", -1)
    assert "--tv_weight -1 is not at least 0" in message
    # Said before VGG is wanted, which is not here.
    message = refusal(*base, "--max_train_steps", 0)
    assert "--pretrain_steps and --max_train_steps are both 0: nothing to train" in message
    message = refusal(*base, *with_content, "--content_layer", "pool5", "--patch_size", 24)
    assert "Of patches of --patch_size 24, nothing is left in --content_layer pool5" in message
    assert "it needs 32" in message
    train_srgan.SRGAN(4, num_blocks=2).save_pretrained(tmp_path / "x4")
    for scale, blocks in ((8, 2), (4, 1)):  # tensors that it lacks, tensors left over
        options = ("--scale", scale, "--num_blocks", blocks, "--init_from", tmp_path / "x4")
        message = refusal(*base, *options, "--content_weight", 0, "--patch_size", 24)
        assert f"holds another generator than --scale {scale} --num_blocks {blocks} " in message
        assert "train the rest first, by --pretrain_steps N." in message


def test_srresnet_alone(train, tmp_path):
    # Without a second phase, nobody needs VGG, and the best weights are kept.
    options = ("--pretrain_steps", 4, "--validation_steps", 1, "--learning_rate", 0.02)
    options += ("--content_weight", 1)
    train(SRGAN, tmp_path / "run", *options, steps=0)
    scores = {r["step"]: r["psnr_y"] for r in metrics(tmp_path / "run") if "psnr_y" in r}
    best = max(scores, key=scores.get)
    assert list(scores) == [1, 2, 3, 4]
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"\nBest validation, at step {best}, on 1 picture: PSNR-Y {scores[best]:.2f} dB" in card


# ------------------------------------------------------------------------------- many processes


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


def test_two_processes_train_as_one(trained, train, tmp_path):
    script, straight, _ = trained
    if script == SRGAN:
        pytest.skip("batch normalization sees half of the batch in each process")
    folder = tmp_path / "run"
    process = train(script, folder, *RECIPE, runner=run_two)
    assert "Batch: 4 patches over 2 processes" in process.stdout
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


# ----------------------------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def evaluation(trained, tiny_benchmark_dir):
    """The output, the JSON and the pictures of evaluating the trained network."""
    _, folder, _ = trained
    process = run_here(
        *("evaluate.py", "--model", folder),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--output", folder.parent / "report.json", "--save_images", folder.parent / "sr"),
        *("--comparison", folder.parent / "comparison.png", "--per_image", "--rgb"),
    )
    return process.stdout, json.loads((folder.parent / "report.json").read_text()), folder.parent


def test_report(evaluation):
    output, report, folder = evaluation
    tiny = report["benchmarks"]["Tiny"]
    assert list(tiny["images"]) == ["0", "1", "2"]
    for key in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        assert tiny[key] == pytest.approx(sum(i[key] for i in tiny["images"].values()) / 3)
    assert report["model"] == str(folder / "run")
    assert "8 bits" in report["protocol"]
    assert report["versions"]["torch"]
    assert f"{report['parameters']:,} parameters" in output
    assert f"{report['multiply_adds'] / 1e9:.1f} G multiply-adds" in output
    line = next(line for line in output.splitlines() if line.startswith("Tiny"))
    assert f" {tiny['psnr_y']:.2f} " in line
    assert f" {tiny['ssim_y']:.4f} " in line


def test_saved_pictures_score_the_same(evaluation, tiny_benchmark_dir, tmp_path):
    _, report, folder = evaluation
    run_here(
        *("evaluate.py", "--sr_dir", folder / "sr", "--scale", report["scale"]),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--output", tmp_path / "report.json"),
    )
    again = json.loads((tmp_path / "report.json").read_text())["benchmarks"]["Tiny"]
    for name, scores in report["benchmarks"]["Tiny"]["images"].items():
        assert again["images"][name]["psnr_y"] == scores["psnr_y"]
        assert again["images"][name]["ssim_y"] == scores["ssim_y"]


def test_comparison_shows_four_panels(evaluation, tiny_benchmark_dir):
    strip = read_rgb(evaluation[2] / "comparison.png")
    scale = evaluation[1]["scale"]
    size = 80 // scale * scale
    assert strip.shape == (size * 3 + 28, 4 * size * 3 + 3 * 8, 3)
    lr, bicubic, sr, original = (
        strip[28::3, x : x + 3 * size : 3] for x in range(0, 4 * (3 * size + 8), 3 * size + 8)
    )
    hr = read_rgb(tiny_benchmark_dir / "Tiny" / "HR" / "0.png")[:size]
    crops = [hr[:, left : left + size] for left in range(0, 96 - size + 1)]
    left = next(left for left, crop in enumerate(crops) if np.array_equal(crop, original))
    made = read_rgb(evaluation[2] / "sr" / "Tiny" / "0.png")[:, left : left + size]
    assert np.array_equal(sr, made)
    assert np.array_equal(lr[::scale, ::scale], lr[1::scale, 1::scale])
    error = [np.square(panel.astype(float) - original).mean() for panel in (lr, bicubic)]
    assert error[1] < error[0]


def test_comparison_of_two_models(tiny_benchmark_dir, tmp_path):
    for folder in ("one", "other"):
        A2N(2, num_blocks=1).save_pretrained(tmp_path / folder)
    run_here(
        *("evaluate.py", "--model", tmp_path / "one", "--comparison_model", tmp_path / "other"),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--comparison", tmp_path / "comparison.png", "--save_images", tmp_path),
    )
    strip = read_rgb(tmp_path / "comparison.png")
    assert strip.shape[1] == 5 * 240 + 4 * 8
    _, _, other, one, _ = (strip[28::3, x : x + 240 : 3] for x in range(0, 5 * 248, 248))
    made = read_rgb(tmp_path / "Tiny" / "0.png")
    crops = [made[:, left : left + 80] for left in range(made.shape[1] - 79)]
    assert any(np.array_equal(crop, one) for crop in crops)
    assert not any(np.array_equal(crop, other) for crop in crops)


def test_two_processes_evaluate_the_same(evaluation, tiny_benchmark_dir, tmp_path):
    _, report, folder = evaluation
    run_two(
        *("evaluate.py", "--model", folder / "run"),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--output", tmp_path / "report.json"),
    )
    written = json.loads((tmp_path / "report.json").read_text())
    assert (report["processes"], written["processes"]) == (1, 2)
    again = written["benchmarks"]["Tiny"]
    assert list(again["images"]) == ["0", "1", "2"]
    assert again["psnr_y"] == pytest.approx(report["benchmarks"]["Tiny"]["psnr_y"], abs=1e-3)


def test_a_process_group_ends_with_its_threads():
    """Those of gloo abort a process that ends while they still want Python."""
    code = """
import common, os, torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
import torch.distributed.nn
dist.destroy_process_group()
print([open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")])
"""
    assert "gloo" not in run("-c", code).stdout


def test_bicubic_on_the_embedded_benchmark():
    process = run_here("evaluate.py", "--model", "bicubic", "--scale", 2, "--benchmarks", "sample")
    assert "Protocol: output rounded to 8 bits" in process.stdout
    assert re.search(r"^sample +2 +31\.15 +0\.9157 .*\+0\.00 dB$", process.stdout, re.M)


def test_published_weights_are_converted(published_a2n, tmp_path):
    options = ("--architecture", "a2n", "--scale", 2, "--output_dir", tmp_path / "published")
    process = run_here("convert_published.py", published_a2n, *options)
    assert "172 tensors converted" in process.stdout
    config = json.loads((tmp_path / "published" / "config.json").read_text())
    assert (config["architecture"], config["scale"], config["variant"]) == ("a2n", 2, "a2n")
    assert "exists already" in refusal("convert_published.py", published_a2n, *options)
    options = ("--architecture", "a2n", "--scale", 2, 3, "--output_dir", tmp_path / "two")
    message = refusal("convert_published.py", published_a2n, *options)
    assert "A2N is for one scale, not for 2 and 3" in message


def test_published_generator_is_converted(published_weights, tmp_path):
    weights = published_weights("srgan_x4_published.safetensors")
    options = ("--architecture", "srgan", "--scale", 4, "--output_dir", tmp_path / "srgan")
    run_here("convert_published.py", weights, *options)
    assert json.loads((tmp_path / "srgan" / "config.json").read_text()) == {
        "architecture": "srgan",
        "scale": 4,
        "num_blocks": 5,
        "variant": "tutorial",
        "num_features": 64,
    }


def test_published_luma_networks_are_converted(published_weights, tmp_path):
    vdsr = published_weights("vdsr_published.safetensors")
    options = ("--architecture", "vdsr", "--scale", 2, 3, 4, "--output_dir", tmp_path / "vdsr")
    run_here("convert_published.py", vdsr, *options)
    assert json.loads((tmp_path / "vdsr" / "config.json").read_text()) == {
        "architecture": "vdsr",
        "scales": [2, 3, 4],
        "num_layers": 20,
        "num_features": 64,
        "bias": False,
    }
    srcnn = published_weights("srcnn_955_x3_published.safetensors")
    options = ("--architecture", "srcnn", "--scale", 3, "--output_dir", tmp_path / "srcnn")
    run_here("convert_published.py", srcnn, *options)
    assert json.loads((tmp_path / "srcnn" / "config.json").read_text()) == {
        "architecture": "srcnn",
        "scale": 3,
        "kernel_sizes": "9-5-5",
        "padding_mode": "zeros",
        "mean": 0,
    }
    options = ("--architecture", "vdsr", "--scale", 3, "--output_dir", tmp_path / "neither")
    message = refusal("convert_published.py", srcnn, *options)
    assert "does not hold published weights of vdsr x3: its 6 tensors begin conv1.bias" in message
    options = ("--architecture", "vdsr", "--scale", 0, "--output_dir", tmp_path / "neither")
    assert "--scale 0 is not at least 2" in refusal("convert_published.py", vdsr, *options)


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("script", SCRIPTS)
def test_command_line_mistakes(script, pictures_dir, tmp_path):
    base = (script, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    base += ("--max_train_steps", 1, *OWN.get(script, ()))
    assert "invalid choice: 9 (choose from 2, 3, 4" in refusal(*base, "--scale", 9)
    message = refusal(*base, "--scale", 2, "--patch_size", 33)
    assert "--patch_size 33 is not a multiple of --scale 2; try 34." in message
    assert "fp16 does not work on a CPU" in refusal(*base, "--mixed_precision", "fp16")
    assert "smaller than a patch of 108x108" in refusal(*base, "--patch_size", 108)
    assert "There is no folder nowhere" in refusal(*base, "--train_data_dir", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "There is no picture in" in refusal(*base, "--train_data_dir", tmp_path / "empty")
    message = refusal(*base, "--resume_from_checkpoint", "checkpoint-7")
    assert "checkpoint-7 is no checkpoint folder" in message
    assert not (tmp_path / "run" / "args.json").exists()


def test_mistakes_of_the_luma_networks(pictures_dir, tmp_path):
    base = ("--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    message = refusal("train_srcnn.py", *base, "--patch_size", 12)
    assert "--patch_size 12 leaves nothing between borders of 6 pixels" in message
    message = refusal("train_vdsr.py", *base, "--scale", 2, 3, 4, "--patch_size", 41)
    assert "--patch_size 41 is not a multiple of --scale 2 3 4; try 48." in message
    message = refusal("train_vdsr.py", *base, "--scale", 4, "--patch_size", 12)
    assert "--patch_size 12 leaves nothing between borders of 6 pixels" in message
    assert "--num_layers 1 is not at least 2" in refusal("train_vdsr.py", *base, "--num_layers", 1)
    sgd = ("train_vdsr.py", *base, "--optimizer", "sgd")
    assert "--clip_theta 0 is not above 0" in refusal(*sgd, "--clip_theta", 0)
    message = refusal("train_vdsr.py", *base, "--clip_theta", 1e-4)
    assert "--clip_theta belongs to --optimizer sgd; leave it out, or add that" in message
    assert "--weight_decay -1 is not at least 0" in refusal(
        "train_vdsr.py", *base, "--weight_decay", -1
    )
    for script in SCRIPTS:
        message = refusal(script, *base, *OWN.get(script, ()), "--learning_rate", 0)
        assert "--learning_rate 0 is not above 0" in message


@pytest.mark.parametrize("script", ONE_OR_ALL)
def test_a_longer_cosine_is_another_recipe(script, train, tmp_path):
    train(script, tmp_path / "run", "--lr_scheduler", "cosine", steps=1)
    message = refusal(
        *(
            script,
            *SMALL,
            *OWN.get(script, ()),
            "--output_dir",
            tmp_path / "run",
            "--lr_scheduler",
            "cosine",
        ),
        *("--resume_from_checkpoint", "latest", "--max_train_steps", 2),
    )
    assert "--max_train_steps was 1 and is 2" in message


def test_resuming_by_another_recipe_is_refused(trained, pictures_dir):
    script, folder, _ = trained
    options = ("--train_data_dir", pictures_dir, "--output_dir", folder, *SMALL)
    options += tuple(OWN.get(script, ()))
    message = refusal(
        script,
        *(*options, *RECIPE, "--resume_from_checkpoint", "latest"),
        *("--max_train_steps", 40, "--learning_rate", 1e-6, "--num_workers", 1),
    )
    assert f"Cannot resume from {folder / 'checkpoint-20'} by another recipe" in message
    assert "recipe: --learning_rate was" in message
    assert "and is 1e-06. Give the same options" in message


def test_resuming_into_another_folder_leaves_a_model_there(trained, train, tmp_path):
    script, folder, _ = trained
    older = folder / "checkpoint-10"
    train(script, tmp_path / "run", *RECIPE, "--resume_from_checkpoint", older, steps=11)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "at step 11" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("script", SCRIPTS)
def test_small_validation_pictures_are_refused(script, pictures_dir, tmp_path):
    Image.new("RGB", (14, 40)).save(tmp_path / "small.png")
    message = refusal(
        *(
            script,
            *SMALL,
            *OWN.get(script, ()),
            "--train_data_dir",
            pictures_dir,
            "--output_dir",
            tmp_path / "run",
        ),
        *("--validation_data_dir", tmp_path),
    )
    assert "Too small to validate on: small.png" in message


@pytest.mark.parametrize("script", SCRIPTS)
def test_batch_must_divide_among_the_processes(script, pictures_dir, tmp_path):
    process = run_two(
        *(script, "--batch_size", 3, "--patch_size", 24, *OWN.get(script, ())),
        *("--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run"),
        check=False,
    )
    assert process.returncode == 1
    assert "--batch_size 3 is that of all 2 processes together" in process.stderr
    assert "for example 4" in process.stderr


def test_used_folder_is_refused(trained, pictures_dir, tmp_path):
    script, folder, _ = trained
    before = (folder / "model.safetensors").read_bytes()
    options = ("--train_data_dir", pictures_dir, "--patch_size", 24, *OWN.get(script, ()))
    message = refusal(script, *options, "--output_dir", folder)
    assert f"--output_dir {folder} is not empty" in message
    assert "--resume_from_checkpoint latest" in message
    older = folder / "checkpoint-10"
    message = refusal(script, *options, "--output_dir", folder, "--resume_from_checkpoint", older)
    assert "goes on from elsewhere" in message
    assert (folder / "model.safetensors").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    message = refusal(
        script, *options, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest"
    )
    assert "not that of a run" in message


@pytest.mark.parametrize("script", ONE_OR_ALL)
def test_bad_pictures_are_named(script, train, pictures_dir, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_dir, folder)
    with Image.open(folder / "0.png") as image:
        image.save(folder / "cut.jpg")
        image.crop((0, 0, 20, 20)).save(folder / "small.png")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    for attempt in ("first", "cached"):
        options = ("--train_data_dir", folder, "--validation_data_dir", pictures_dir)
        process = train(script, tmp_path / attempt, *options, steps=1)
        assert "Left out 1 of 10 pictures: cut.jpg (image file is truncated" in process.stdout
        assert "which are smaller than a patch of 24x24: small.png" in process.stdout
        assert "8 to train on" in process.stdout
    for number in range(3):
        (folder / f"text{number}.png").write_text("not a picture")
    base = (
        script,
        *SMALL,
        *OWN.get(script, ()),
        "--train_data_dir",
        folder,
        "--output_dir",
        tmp_path / "run",
    )
    assert "Cannot read 4 of 13 pictures: cut.jpg" in refusal(*base)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_hub(script, tmp_path):
    message = refusal(script, "--output_dir", tmp_path / "run", *OWN.get(script, ()))
    assert "Cannot reach http://127.0.0.1:" in message
    assert " for the data set yangtao9009/DIV2K (" in message
    assert "--train_data_dir FOLDER" in message
    assert "--dataset_name sample" in message


def test_scale_that_a_model_is_not_for(trained, tiny_benchmark_dir):
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    message = refusal("evaluate.py", "--model", trained[1], "--scale", 7, *tiny)
    assert re.search(r"is trained to enlarge by [2-4 or]+, not by 7", message)


def test_evaluation_mistakes(tiny_benchmark_dir, tmp_path):
    folder = tmp_path / "model"
    A2N(2).save_pretrained(folder)
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    assert "nowhere is no model" in refusal("evaluate.py", "--model", "nowhere", *tiny)
    bicubic = ("evaluate.py", "--model", "bicubic", *tiny)
    assert "bicubic needs a --scale" in refusal(*bicubic)
    message = refusal(*bicubic, "--scale", 2, "--lpips", TORCH_HOME=str(tmp_path))
    assert "--lpips needs the weights of AlexNet, which torchvision cannot download" in message
    message = refusal("evaluate.py", "--model", folder)
    assert "Set5 (eugenesiow/Set5 on the Hub) cannot be had: Cannot reach http://127" in message
    assert "With its pictures in DIR/Set5/HR, use --benchmark_dir DIR." in message
    message = refusal("evaluate.py", "--model", "out/nothing", *tiny)
    assert "There is no folder out/nothing. Cannot reach http://127.0.0.1:" in message
    message = refusal("evaluate.py", "--model", folder, *tiny[:2])
    assert f"There is no folder {tiny_benchmark_dir / 'Set5'}" in message
    message = refusal("evaluate.py", "--sr_dir", tmp_path, "--scale", 2, *tiny)
    assert f"There is no 0.png or 0x2.png in {tmp_path}" in message
    assert "need a --model" in refusal("evaluate.py", "--sr_dir", tmp_path, "--save_images", "x")
    assert "needs a --comparison FILE" in refusal(
        *bicubic, "--scale", 2, "--comparison_model", folder
    )
    assert "--sr_dir needs a --scale" in refusal("evaluate.py", "--sr_dir", tmp_path, *tiny)
    other = ("--comparison_model", folder, "--comparison", "x.png")
    message = refusal(*bicubic, "--scale", 3, *other)
    assert f"{folder} is trained to enlarge by 2, not by 3" in message
    Image.new("RGB", (95, 80)).save(tmp_path / "0.png")
    message = refusal("evaluate.py", "--sr_dir", tmp_path, "--scale", 2, *tiny)
    assert "0.png is 95x80; 0.png, cropped to a multiple of 2, is 96x80" in message
