import pytest
import torch
from safetensors.torch import load_file

from common.evaluation import count_multiply_adds
from common.images.color import luma
from common.images.resize import imresize
from convert_published import convert
from running import psnr_of
from train_vdsr import VDSR, bicubic_border


@pytest.fixture(scope="module")
def published(published_weights):
    return convert(load_file(published_weights("vdsr_published.safetensors")), "vdsr", [2, 3, 4])


@pytest.mark.parametrize(("bias", "parameters"), [(True, 665_921), (False, 664_704)])
def test_parameters_and_output(bias, parameters):
    model = VDSR([2, 3, 4], bias=bias)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with torch.no_grad():
        for scale in (2, 3, 4):
            assert model(torch.rand(2, 3, 5, 1), scale).shape == (2, 3, 5 * scale, scale)


def test_scale_is_the_smallest_unless_told():
    model = VDSR([4, 2], num_layers=2, num_features=4)
    lr = torch.rand(1, 3, 6, 6)
    assert model.scales == [2, 4]
    assert model(lr).shape[-1] == 12
    model.scale = 4
    assert torch.equal(model(lr), model(lr, scale=4))


def test_initialization_is_he():
    torch.manual_seed(0)
    convolutions = VDSR([2]).layers[::2]
    assert len(convolutions) == 20
    for convolution in convolutions:
        fan_in = 9 * convolution.in_channels
        assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert not convolution.bias.any()


def test_adds_to_the_luma_of_the_bicubic_enlargement():
    torch.manual_seed(0)
    model = VDSR([3], num_layers=3, num_features=8)
    lr = torch.rand(1, 3, 7, 8)
    enlarged = imresize(lr, 3)
    y = luma(enlarged)
    expected = y + model.layers(y)
    torch.testing.assert_close(luma(model(lr)), expected)
    # One amount for R, G and B leaves Cb and Cr as they were.
    change = model(lr) - enlarged
    torch.testing.assert_close(change[:, :1].expand(-1, 3, -1, -1), change)


def test_resize_and_color_stay_in_float32_under_autocast():
    model = VDSR([2], num_layers=2, num_features=4)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    lr = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        sr = model(lr)
    assert sr.dtype == torch.float32
    torch.testing.assert_close(sr, imresize(lr, 2))


@pytest.mark.parametrize(
    ("scale", "psnr"),
    [
        (2, 37.59),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in ((3, 33.75), (4, 31.43))),
    ],
)
def test_published_weights_score_as_published(published, benchmark_dir, scale, psnr):
    published.scale = scale
    assert psnr_of(published, benchmark_dir / "Set5", scale) == pytest.approx(psnr, abs=0.02)


def test_multiply_adds_are_the_papers():
    # Kim et al., and the tables of later papers: 612.6 G at any scale.
    model = VDSR([2, 3, 4], bias=False)
    for scale in (2, 3, 4):
        model.scale = scale
        assert count_multiply_adds(model) / 1e9 == pytest.approx(612.6, abs=0.1)


@pytest.mark.parametrize("scale", range(2, 9))
def test_inside_the_border_a_patch_is_enlarged_as_its_picture(scale):
    torch.manual_seed(0)
    picture = torch.rand(1, 1, 20, 20)
    whole = imresize(picture, scale)[..., 5 * scale : 15 * scale, 5 * scale : 15 * scale]
    patch = imresize(picture[..., 5:15, 5:15], scale)
    border = bicubic_border(scale)
    inner = slice(border, -border)
    torch.testing.assert_close(patch[..., inner, inner], whole[..., inner, inner])
    outer = slice(border - 1, 1 - border)
    assert not torch.allclose(patch[..., outer, outer], whole[..., outer, outer], atol=1e-4)


def test_a_bound_over_a_rate_of_nearly_0_does_not_overflow(train, tmp_path):
    options = "--optimizer sgd --lr_scheduler step --lr_step_size 1 --lr_gamma 1e-10".split()
    options += "--lr_warmup_steps 0 --num_layers 2 --scale 2".split()
    train("train_vdsr.py", tmp_path / "run", *options, steps=40)


def test_weights_of_something_else_are_no_vdsr():
    with pytest.raises((KeyError, ValueError)):
        convert({"weight": torch.zeros(1)}, "vdsr", [2])
