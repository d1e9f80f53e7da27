"""train_srgan.py: two phases, two networks, a loss of many terms."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

import train_srgan
from running import (
    ROOT,
    SRGAN,
    assert_same_run,
    metrics,
    refusal,
    run,
    run_forked,
    run_here,
    run_two,
)

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


@pytest.mark.xdist_group(SRGAN)
def test_srgan_begins_with_the_second_phase_from_weights(train, two_phases, tmp_path):
    options = ("--init_from", two_phases / "one" / "pretrained", "--learning_rate", 1e-9)
    process = train(SRGAN, tmp_path / "run", *options, steps=1)
    assert "Steps: 0 to 1" in process.stdout
    scores = [row for row in metrics(two_phases / "one") if "psnr_y" in row]
    assert metrics(tmp_path / "run")[-1]["psnr_y"] == pytest.approx(scores[1]["psnr_y"], abs=0.05)


@pytest.fixture
def with_content(vgg16):
    """The options of a content loss by a VGG16 of random weights."""
    options = "--content_weight 5000 --content_network vgg16 --content_layer relu1_2".split()
    return (*options, "--vgg_weights", vgg16)


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


def test_srgan_mistakes(pictures_dir, with_content, tmp_path):
    base = (SRGAN, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    base += ("--pretrain_steps", 0)
    message = refusal(*base, TORCH_HOME=str(tmp_path))
    assert "The weights of vgg19 from torchvision cannot be had" in message
    assert "by --vgg_weights, or train without content loss by --content_weight 0." in message
    assert not (tmp_path / "run").exists()
    message = refusal(*base, "--tv_weight", -1)
    assert "--tv_weight -1 is not at least 0" in message
    # Said before VGG is wanted, which is not here.
    message = refusal(*base, "--max_train_steps", 0)
    assert "--pretrain_steps and --max_train_steps are both 0: nothing to train" in message
    message = refusal(*base, *with_content, "--content_layer", "pool5", "--patch_size", 24)
    assert "--patch_size 24 leaves nothing in --content_layer pool5" in message
    assert "which needs 32" in message
    message = refusal(*base, "--content_weight", 0, "--patch_size", 16, "--batch_size", 1)
    assert message == (
        "--patch_size 16, one at a time, leaves a channel one value, of which batch normalization "
        "has no spread. Give larger ones, or --batch_size 2."
    )
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
