"""What must hold for the network of every `train_*.py`, also one that is added."""

import inspect

import pytest
import torch

import train_srcnn
from common.errors import UserError
from common.hub import find_network, load_model
from common.network import SuperResolutionModel
from common.training.validation import float32_copy
from running import SCRIPTS
from train_srcnn import SRCNN

ARCHITECTURES = [script.removeprefix("train_").removesuffix(".py") for script in SCRIPTS]


def make(architecture: str) -> SuperResolutionModel:
    """The network with fresh weights and its own defaults, for the smallest scale it can have."""
    network = find_network(architecture)
    first = next(iter(inspect.signature(network).parameters))
    torch.manual_seed(0)
    return network([2] if first == "scales" else 2).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_margin_is_as_far_as_the_network_sees(architecture):
    network = make(architecture)
    scale = network.scale
    if network.attention_window is None:  # convolutions see so far and no farther
        network.double()
        width = 2 * network.margin + 33
        lr = torch.rand(1, 3, 12, width, dtype=torch.float64, requires_grad=True)
        network(lr)[..., width // 2 * scale : (width // 2 + 1) * scale].sum().backward()
        seen = lr.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        assert (seen - width // 2).abs().max() <= network.margin
        return
    network.attention_window = 64  # whose means reach farther, and tell less and less
    lr = torch.rand(1, 3, 12, 2 * network.margin + 64)
    with torch.no_grad():
        whole = network(lr)[..., network.margin * scale : -network.margin * scale]
        other = lr.clone()
        other[..., 0] = other[..., -1] = 0
        tile = network(other)[..., network.margin * scale : -network.margin * scale]
    assert (whole - tile).abs().max() < 0.1 / 255


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(1, 1), (7, 5)])
def test_any_picture_is_enlarged(architecture, size):
    network = make(architecture)
    with torch.no_grad():
        sr = network(torch.rand(2, 3, *size))
    assert sr.shape == (2, 3, *(side * network.scale for side in size))
    assert sr.dtype == torch.float32
    assert sr.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_it_is_the_same(architecture, tmp_path):
    network = make(architecture)
    network.save_pretrained(tmp_path)
    lr = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        expected = network(lr)
        assert torch.equal(load_model(tmp_path)(lr), expected)
        assert torch.equal(float32_copy(network)(lr), expected)


def test_an_argument_that_is_no_json_value_is_refused_when_the_network_is_made():
    with pytest.raises(TypeError, match=r"SRCNN\(padding_mode=<class 'int'>\): an argument"):
        SRCNN(2, padding_mode=int)


def test_a_script_of_two_networks_is_refused(monkeypatch):
    class Another(SuperResolutionModel):
        pass

    Another.__module__ = "train_srcnn"
    monkeypatch.setattr(train_srcnn, "Another", Another, raising=False)
    with pytest.raises(UserError, match=r"train_srcnn.py must have one subclass .* 2 \(SRCNN, A"):
        find_network("srcnn")
