"""convert_published.py: weights of other programs become models."""

import json

from running import (
    refusal,
    run_here,
)


def test_published_weights_are_converted(published_a2n, tmp_path):
    options = ("--architecture", "a2n", "--scale", 2, "--output_dir", tmp_path / "published")
    process = run_here("convert_published.py", published_a2n, *options)
    assert "172 tensors converted" in process.stdout
    config = json.loads((tmp_path / "published" / "config.json").read_text())
    assert (config["architecture"], config["scale"], config["variant"]) == ("a2n", 2, "a2n")
    assert "is not empty (README.md, config.json, model.safetensors)" in refusal(
        "convert_published.py", published_a2n, *options
    )
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
