import math

import pytest
import torch

from common.losses import charbonnier, euclidean


def test_charbonnier_by_hand():
    sr, hr = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.2, 1.0])
    expected = (0.001 + math.sqrt(0.09 + 1e-6) + 0.001) / 3
    assert math.isclose(charbonnier(sr, hr).item(), expected, rel_tol=1e-6)


def test_charbonnier_has_a_gradient_where_images_agree():
    sr = torch.full((4,), 0.5, requires_grad=True)
    charbonnier(sr, torch.full((4,), 0.5)).backward()
    assert sr.grad.tolist() == [0, 0, 0, 0]


def test_euclidean_by_hand():
    sr, hr = torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    hr[0] = 0.5
    hr[1, 0, 0, 0] = 1
    assert euclidean(sr, hr).item() == pytest.approx((12 * 0.25 + 1) / (2 * 2))
