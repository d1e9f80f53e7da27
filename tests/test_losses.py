import math

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from common.losses import SCALE_WEIGHTS, charbonnier, euclidean, frequency, ms_ssim


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


def test_frequency_by_hand():
    hr = torch.rand(2, 3, 8, 12)
    # A constant is at frequency 0 alone: one number of the 2 * 8 * 7 that a real image has.
    assert frequency(hr + 0.25, hr).item() == pytest.approx(0.25 * math.sqrt(8 * 12) / (2 * 8 * 7))
    wave = torch.cos(2 * math.pi * 2 * torch.arange(12) / 12).expand(2, 3, 8, 12)
    # Half of a wave is at its own frequency, the other half at the negative one, left out.
    expected = math.sqrt(8 * 12) / 2 / (2 * 8 * 7)
    assert frequency(hr + wave, hr).item() == pytest.approx(expected, abs=1e-7)


def similarity_of_torchmetrics(sr, hr, sizes):
    """MS-SSIM by torchmetrics' maps; its own takes the mean of the last one with its padding."""
    product = 1
    for size in range(sizes):
        if size:
            sr, hr = F.avg_pool2d(sr, 2), F.avg_pool2d(hr, 2)
        settings = {"data_range": 1.0, "reduction": "none"}
        _, mean = ssim(sr, hr, return_contrast_sensitivity=True, **settings)
        if size == sizes - 1:
            _, full = ssim(sr, hr, return_full_image=True, **settings)
            mean = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
        product = product * mean ** (SCALE_WEIGHTS[size] / sum(SCALE_WEIGHTS[:sizes]))
    return product.mean()


@pytest.mark.parametrize(("side", "sizes"), [(176, 5), (175, 4), (48, 3), (40, 2), (11, 1)])
def test_ms_ssim_is_that_of_torchmetrics(side, sizes):
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(2, 3, side, side + 5, generator=generator)
    sr = (hr + 0.2 * torch.rand(hr.shape, generator=generator)).requires_grad_()
    loss, expected = ms_ssim(sr, hr), 1 - similarity_of_torchmetrics(sr, hr, sizes)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    ours, theirs = (torch.autograd.grad(value, sr)[0] for value in (loss, expected))
    assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def test_ms_ssim_of_images_that_have_nothing_in_common_has_finite_gradients():
    hr = torch.rand(1, 1, 24, 24)
    sr = (1 - hr).requires_grad_()
    ms_ssim(sr, hr).backward()
    assert sr.grad.isfinite().all()
    assert ms_ssim(hr, hr).item() == pytest.approx(0, abs=1e-6)
