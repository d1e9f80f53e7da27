import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from common.errors import UserError
from common.losses import VGGContent, adversarial, total_variation
from convert_published import convert
from running import psnr_of
from train_srgan import SRGAN, Discriminator


def convolution(before: int, after: int, size: int) -> int:
    """Parameters of a convolution with biases."""
    return before * after * size**2 + after


def layers(network: nn.Module) -> list[tuple[str, int]]:
    """Type and number of parameters of every layer that has some; printed for `pytest -s`."""
    found = []
    for name, layer in network.named_modules():
        if count := sum(parameter.numel() for parameter in layer.parameters(recurse=False)):
            print(f"{name:28} {type(layer).__name__:12} {count:>12,}")
            found.append((type(layer).__name__, count))
    print(f"{sum(count for _, count in found):>54,}")
    return found


def test_generator_layer_by_layer():
    # Figure 4: k9n64, PReLU; 16 blocks of k3n64, BN, PReLU, k3n64, BN; k3n64, BN; twice k3n256,
    # PReLU; k9.
    k3n64, normalization = ("Conv2d", convolution(64, 64, 3)), ("BatchNorm2d", 2 * 64)
    activation = ("PReLU", 1)
    found = layers(SRGAN(4))
    assert found == [
        *[("Conv2d", convolution(3, 64, 9)), activation],
        *[k3n64, normalization, activation, k3n64, normalization] * 16,
        *[k3n64, normalization],
        *[("Conv2d", convolution(64, 256, 3)), activation] * 2,
        ("Conv2d", convolution(64, 3, 9)),
    ]
    assert sum(count for _, count in found) == 1_549_462


def test_discriminator_layer_by_layer():
    # Figure 4: k3n64s1; k3s2 and k3s1 in turns, of 64 to 512, with BN; dense 1024; dense 1.
    channels = [64, 64, 128, 128, 256, 256, 512, 512]
    expected = [("Conv2d", convolution(3, 64, 3))]
    for before, after in pairwise(channels):
        expected += [("Conv2d", convolution(before, after, 3)), ("BatchNorm2d", 2 * after)]
    expected += [("Linear", 512 * 6 * 6 * 1024 + 1024), ("Linear", 1024 + 1)]
    discriminator = Discriminator(96)
    found = layers(discriminator)
    assert found == expected
    assert sum(count for _, count in found) == 23_565_505
    strides = [m.stride[0] for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("head", ["dense", "pooled"])
@pytest.mark.parametrize("side", [24, 33])
def test_discriminator_takes_its_patches(head, side):
    assert Discriminator(side, head)(torch.rand(2, 3, side, side)).shape == (2, 1)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_output(scale):
    model = SRGAN(scale, num_blocks=1).eval()
    shuffles = [m.upscale_factor for m in model.modules() if isinstance(m, nn.PixelShuffle)]
    assert shuffles == {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
    with torch.no_grad():
        assert model(torch.rand(1, 3, 5, 7)).shape == (1, 3, 5 * scale, 7 * scale)


def test_no_such_network():
    with pytest.raises(ValueError, match=r"there is no srgan x5; .* x2, x3, x4 and x8"):
        SRGAN(5)


def test_published_generator_scores_as_published(published_weights, benchmark_dir):
    tensors = load_file(published_weights("srgan_x4_published.safetensors"))
    model = convert(tensors, "srgan", [4])
    assert len(model.blocks) == 5
    assert psnr_of(model, benchmark_dir / "Set5", 4) == pytest.approx(30.65, abs=0.02)


# --------------------------------------------------------------------------------------- losses


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert total_variation(image).item() == 2 * ((9 + 4) / 2 + (1 + 0) / 2)


@pytest.mark.parametrize(
    ("kind", "hr", "sr"),
    [
        ("vanilla", -math.log(0.75), -math.log(0.25)),
        ("least_squares", (math.log(3) - 1) ** 2, math.log(3) ** 2),
        ("linear", 0.25, 0.75),
    ],
)
def test_adversarial_by_hand(kind, hr, sr):
    logits = torch.full((4, 1), math.log(3))  # D = 0.75
    assert adversarial(logits, True, kind).item() == pytest.approx(hr, rel=1e-6)
    assert adversarial(logits, False, kind).item() == pytest.approx(sr, rel=1e-6)


def test_content_is_that_of_the_named_layer(vgg16):
    tensors = load_file(vgg16)
    sr, hr = torch.rand(2, 2, 3, 16, 16)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def features(x, activate):
        x = (x - mean) / std
        for index in (0, 2):
            weight, bias = (tensors[f"features.{index}.{kind}"] for kind in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=1)
            if index == 0 or activate:
                x = F.relu(x)
        return x

    for layer, activate in (("conv1_2", False), ("relu1_2", True)):
        content = VGGContent("vgg16", layer, vgg16, feature_scale=0.5)
        expected = F.mse_loss(features(sr, activate) / 2, features(hr, activate) / 2)
        torch.testing.assert_close(content(sr, hr), expected)
        assert not any(parameter.requires_grad for parameter in content.parameters())
    assert len(VGGContent("vgg16", "pool5", vgg16).features) == 31  # features[:31]


def test_content_mistakes(vgg16, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"vgg16 has no layer relu5_4\. It has conv1_1, relu1_1, "):
        VGGContent("vgg16", "relu5_4", vgg16)
    with pytest.raises(UserError, match="does not hold the weights of vgg19"):
        VGGContent("vgg19", "relu5_4", vgg16)
    with pytest.raises(UserError, match=r"--vgg_weights .*gone.* or train without content loss"):
        VGGContent("vgg19", "relu5_4", tmp_path / "gone.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"of vgg19 from torchvision cannot be had: no network\. "):
        VGGContent()


def unreachable(*args, **kwargs):
    raise OSError("no network")
