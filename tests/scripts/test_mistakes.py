"""Command lines that no training script takes."""

import importlib

import pytest

from running import (
    SCRIPT,
    SCRIPTS,
    refusal,
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_mistakes_of_the_recipe(script, tmp_path):
    base = (script, "--train_data_dir", "pictures", "--output_dir", tmp_path / "run")
    assert "invalid choice: 9 (choose from 2, 3, 4" in refusal(*base, "--scale", 9)
    message = refusal(*base, "--scale", 2, "--patch_size", 33)
    assert "--patch_size 33 is not a multiple of --scale 2; try 34." in message
    assert "--learning_rate 0 is not above 0" in refusal(*base, "--learning_rate", 0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_with_a_cosine_the_steps_belong_to_the_recipe(script):
    parse_args = importlib.import_module(script.removesuffix(".py")).parse_args
    assert "max_train_steps" in parse_args(["--lr_scheduler", "cosine"]).fixed
    assert "max_train_steps" not in parse_args(["--lr_scheduler", "step"]).fixed


def test_mistakes_of_the_run(pictures_dir, tmp_path):
    base = (SCRIPT, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    base += ("--max_train_steps", 1)
    assert "fp16 does not work on a CPU" in refusal(*base, "--mixed_precision", "fp16")
    assert "smaller than a patch of 108x108" in refusal(*base, "--patch_size", 108)
    assert "There is no folder nowhere" in refusal(*base, "--train_data_dir", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "There is no picture in" in refusal(*base, "--train_data_dir", tmp_path / "empty")
    message = refusal(*base, "--pictures_on", "device", "--degradation", "jpeg")
    assert "--pictures_on device has no LR made by --degradation jpeg, which loaders m" in message
    message = refusal(*base, "--resume_from_checkpoint", "checkpoint-7")
    assert "--resume_from_checkpoint checkpoint-7 is not there" in message
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
    assert "--clip_theta belongs to --optimizer sgd. Leave it out, or add that" in message
    assert "--weight_decay -1 is not at least 0" in refusal(
        "train_vdsr.py", *base, "--weight_decay", -1
    )
