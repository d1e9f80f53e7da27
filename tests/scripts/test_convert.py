"""convert_published.py: weights of other programs become models."""

import json

import torch
from safetensors.torch import save_file

from common.hub import load_model
from convert_published import convert
from running import (
    refusal,
    run_here,
)
from train_srgan import SRGAN


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
    assert load_model(tmp_path / "srgan").trunk_end[1].weight.shape == (1,)  # a PReLU


def test_published_generator_of_the_later_form_is_converted():
    """Its trunk ends by batch normalization."""
    model = SRGAN(4, 1, "tutorial", num_features=64)
    names = {"head": "block1", "trunk_end": "block3", "tail": "block4.2"}
    names |= {"blocks.0.layers.0": "block2.conv1", "blocks.0.layers.1": "block2.bn1"}
    names |= {"blocks.0.layers.2": "block2.prelu", "blocks.0.layers.3": "block2.conv2"}
    names |= {"blocks.0.layers.4": "block2.bn2"}
    for number in (0, 1):
        names |= {f"upsamplers.{number}.0": f"block4.{number}.conv"}
        names |= {f"upsamplers.{number}.2": f"block4.{number}.prelu"}
    published = {}
    for name, tensor in model.state_dict().items():
        new = next(new for new in names if name.startswith(f"{new}."))
        published[f"{names[new]}{name.removeprefix(new)}"] = tensor
    converted = convert(published, "srgan", [4])
    for name, tensor in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], tensor)


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
    scalars = {"conv1.weight": torch.ones(()), "block8.weight": torch.ones(())}
    save_file(scalars, tmp_path / "scalars.safetensors")
    for name in ("srcnn", "vdsr", "srgan", "a2n"):
        options = ("--architecture", name, "--scale", 4, "--output_dir", tmp_path / "neither")
        message = refusal("convert_published.py", tmp_path / "scalars.safetensors", *options)
        assert f"does not hold published weights of {name} x4: its 2 tensors begin" in message
    options = ("--architecture", "vdsr", "--scale", 0, "--output_dir", tmp_path / "neither")
    assert "--scale 0 is not at least 2" in refusal("convert_published.py", vdsr, *options)
