"""The average of the weights is PyTorch's, bit for bit."""

import io

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.training.average import WeightAverage
from common.training.validation import float32_copy
from train_srgan import SRGAN


@pytest.mark.parametrize("resumed_at", [0, 1, 3])
def test_the_average_is_that_of_pytorch(resumed_at):
    network = SRGAN(2, num_blocks=1, num_features=4)  # batch statistics, one of them whole numbers
    theirs = AveragedModel(float32_copy(network), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    ours = WeightAverage(float32_copy(network), network, 0.9)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    for step in range(6):
        if step == resumed_at:
            file = io.BytesIO()
            torch.save(ours.state_dict(), file)
            file.seek(0)
            ours = WeightAverage(float32_copy(network), network, 0.9)
            ours.load_state_dict(torch.load(file, weights_only=True))
        network(torch.rand(2, 3, 4, 4)).square().mean().backward()
        optimizer.step()
        theirs.update_parameters(network)
        ours.update()
    expected, found = theirs.state_dict(), ours.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found["n_averaged"] == 6


def test_no_update_asks_the_device_for_a_number(monkeypatch):
    network = SRGAN(2, num_blocks=1, num_features=4)
    average = WeightAverage(float32_copy(network), network, 0.9)
    average.update()

    def refuse(*_, **__):
        raise AssertionError("a tensor travels between the devices")

    for name in ("to", "item", "cpu", "tolist", "__float__"):  # PyTorch's own calls the first
        monkeypatch.setattr(torch.Tensor, name, refuse)
    average.update()
