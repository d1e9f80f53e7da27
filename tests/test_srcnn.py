import pytest
import torch
from safetensors.torch import load_file

from common.evaluation import count_multiply_adds
from common.images.color import luma
from common.images.resize import imresize
from convert_published import convert
from running import psnr_of
from train_srcnn import SRCNN, padding_border


@pytest.mark.parametrize(
    ("kernel_sizes", "parameters"), [("9-1-5", 8_129), ("9-3-5", 24_513), ("9-5-5", 57_281)]
)
def test_parameters_and_output(kernel_sizes, parameters):
    model = SRCNN(3, kernel_sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with torch.no_grad():
        assert model(torch.rand(2, 3, 5, 1)).shape == (2, 3, 15, 3)


def test_initialization_is_the_papers():
    torch.manual_seed(0)
    for convolution in SRCNN(3, "9-5-5").layers[::2]:
        assert convolution.weight.std().item() == pytest.approx(0.001, rel=0.1)
        assert not convolution.bias.any()


def test_luma_is_the_networks_and_chroma_bicubic():
    torch.manual_seed(0)
    model = SRCNN(3)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    lr = torch.rand(1, 3, 7, 8)
    enlarged, sr = imresize(lr, 3), model(lr)
    torch.testing.assert_close(luma(sr), model.layers(luma(enlarged) - 0.5) + 0.5)
    change = sr - enlarged
    torch.testing.assert_close(change[:, :1].expand(-1, 3, -1, -1), change)


def test_with_replicated_borders_the_mean_only_moves_biases():
    torch.manual_seed(0)
    centered, plain = SRCNN(2), SRCNN(2, mean=0)
    for parameter in centered.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    plain.load_state_dict(centered.state_dict())
    with torch.no_grad():
        plain.layers[0].bias -= 0.5 * plain.layers[0].weight.sum((1, 2, 3))
        plain.layers[-1].bias += 0.5
    lr = torch.rand(1, 3, 7, 8)
    torch.testing.assert_close(plain(lr), centered(lr))


def test_no_filter_begins_dead():
    torch.manual_seed(0)
    model = SRCNN(3)
    y = torch.linspace(0, 1, 11).view(-1, 1, 1, 1).expand(-1, 1, 9, 9)  # black to white
    first = model.layers[:2]
    assert (first(y - model.mean) > 0).any(0).all()
    assert not (first(y) > 0).any(0).all()


@pytest.mark.parametrize(("kernel_sizes", "border"), [("9-1-5", 6), ("9-5-5", 8)])
def test_inside_the_border_padding_has_no_part(kernel_sizes, border):
    torch.manual_seed(0)
    model = SRCNN(2, kernel_sizes)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    assert padding_border(kernel_sizes) == border
    y = torch.rand(1, 1, 33, 33)
    padded = model.layers(y)
    for convolution in model.layers[::2]:
        convolution.padding = (0, 0)
        convolution.padding_mode = "zeros"
        convolution._reversed_padding_repeated_twice = [0] * 4
    torch.testing.assert_close(padded[..., border:-border, border:-border], model.layers(y))


def test_published_weights_score_as_published(published_weights, benchmark_dir):
    tensors = load_file(published_weights("srcnn_955_x3_published.safetensors"))
    model = convert(tensors, "srcnn", [3])
    assert psnr_of(model, benchmark_dir / "Set5", 3) == pytest.approx(32.66, abs=0.02)


def test_multiply_adds_are_those_of_the_convolutions():
    # Each weight once for each pixel of 1280x720; bicubic does not count.
    assert count_multiply_adds(SRCNN(2)) == (8_129 - 97) * 1280 * 720


def test_weights_of_something_else_are_no_srcnn():
    with pytest.raises(KeyError):
        convert({"weight": torch.zeros(1)}, "srcnn", [3])
