import math
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from skimage.metrics import structural_similarity

from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.evaluation import Bicubic, count_multiply_adds, evaluate, mean_scores
from common.images.color import luma
from common.images.formats import read_rgb
from common.images.resize import crop_to_multiple, imresize
from common.metrics import check_names, make_lpips, psnr_rgb, psnr_y, score, ssim_rgb, ssim_y
from train_a2n import A2N

CPU = torch.device("cpu")
# Printed in the papers, up to 0.01 dB and 0.0007 that come from their 8-bit luma; Set14 with its
# gray picture taken as RGB.
BICUBIC = {
    ("Set5", 2): (33.673, 0.9303),
    ("Set5", 3): (30.403, 0.8689),
    ("Set5", 4): (28.429, 0.8111),
    ("Set14", 2): (30.325, 0.8699),
    ("Set14", 3): (27.631, 0.7759),
    ("Set14", 4): (26.088, 0.7048),
    ("B100", 2): (29.560, 0.8434),
    ("B100", 3): (27.208, 0.7394),
    ("B100", 4): (25.961, 0.6681),
}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        pytest.param(name, scale, marks=[pytest.mark.slow] if name == "B100" else [])
        for name, scale in BICUBIC
    ],
)
def test_bicubic_scores_as_published(benchmark_dir, name, scale):
    pictures, errors = decode_pictures(find_pictures(benchmark_dir / name, [scale]), [scale])
    assert not errors
    means = mean_scores(evaluate(Bicubic(scale), BenchmarkDataset(pictures, scale), CPU))
    psnr, ssim = BICUBIC[name, scale]
    assert means["psnr_y"] == pytest.approx(psnr, abs=0.005)
    assert means["ssim_y"] == pytest.approx(ssim, abs=0.0002)


@pytest.mark.parametrize(("scale", "printed"), [(2, 33.661), (3, 30.392), (4, 28.421)])
def test_bicubic_by_the_rounding_of_the_papers(benchmark_dir, scale, printed):
    """The luma of HR is rounded, LR is made from it and is not: the printed 33.66, 30.39, 28.42."""
    found = []
    for file in sorted((benchmark_dir / "Set5" / "HR").iterdir()):
        rgb = torch.from_numpy(np.array(read_rgb(file))).permute(2, 0, 1).double() / 255
        hr = crop_to_multiple((luma(rgb) * 255).round(), scale)
        sr = imresize(imresize(hr, 1 / scale), scale).clamp(0, 255).round()
        difference = (sr - hr)[..., scale:-scale, scale:-scale]
        found.append(10 * math.log10(255**2 / difference.square().mean().item()))
    assert sum(found) / len(found) == pytest.approx(printed, abs=0.001)


def test_psnr_by_hand():
    hr = torch.zeros(3, 10, 10)
    sr = torch.full((3, 10, 10), 5 / 255)
    assert psnr_rgb(sr, hr, 0) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr_y(sr, hr, 0) == pytest.approx(20 * math.log10(255 / (5 * 219 / 255)))


def test_sr_is_rounded_to_8_bits_and_clipped_first():
    hr = torch.full((3, 20, 20), 1.0)
    assert psnr_y(hr + 0.3, hr, 0) == math.inf
    assert psnr_y(hr - 0.0019, hr, 0) == math.inf  # 254.52 rounds to 255
    assert psnr_rgb(hr - 0.0021, hr, 0) == pytest.approx(20 * math.log10(255))


def test_border_does_not_count():
    hr = torch.rand(3, 30, 30)
    sr = hr.clone()
    sr[:, :2] = sr[:, -2:] = 0
    sr[:, :, :2] = sr[:, :, -2:] = 1
    assert psnr_y(sr, hr, 2) == math.inf
    assert ssim_y(sr, hr, 2) == pytest.approx(1)
    assert psnr_y(sr, hr, 1) < 30


def test_ssim_agrees_with_scikit_image():
    generator = np.random.default_rng(0)
    hr = generator.integers(0, 256, (3, 40, 50)).astype(np.uint8)
    sr = np.clip(hr + generator.normal(0, 20, hr.shape), 0, 255).round().astype(np.uint8)
    # Its window reaches over the border; the valid region lies 5 pixels inside.
    _, full = structural_similarity(
        hr.astype(float),
        sr.astype(float),
        channel_axis=0,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ours = ssim_rgb(torch.from_numpy(sr) / 255, torch.from_numpy(hr) / 255, 0)
    assert ours == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-7)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(3, 4, 4\).*\(3, 4, 5\)"):
        psnr_y(torch.zeros(3, 4, 4), torch.zeros(3, 4, 5), 0)
    with pytest.raises(ValueError, match="border of 2"):
        psnr_y(torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), 2)
    with pytest.raises(ValueError, match="11x11"):
        ssim_y(torch.zeros(3, 14, 14), torch.zeros(3, 14, 14), 2)


@pytest.mark.parametrize(("scale", "giga"), [(2, 247.5), (4, 72.4)])
def test_multiply_adds_of_a2n_are_the_papers(scale, giga):
    assert count_multiply_adds(A2N(scale)) / 1e9 == pytest.approx(giga, abs=0.05)


@pytest.fixture
def lpips(monkeypatch):
    """LPIPS with random weights of AlexNet."""
    torch.manual_seed(0)
    weights = torchvision.models.alexnet().state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *args, **options: weights
    )
    return make_lpips(torch.device("cpu"))


def test_lpips_grows_with_the_difference(lpips):
    hr, noise = torch.rand(2, 3, 40, 40)
    assert lpips(hr, hr, 4) == 0
    assert 0 < lpips(0.9 * hr + 0.1 * noise, hr, 4) < lpips(noise, hr, 4)
    inner = hr.clone()
    inner[:, :4] = 0
    assert lpips(inner, hr, 4) == 0
    assert score(noise, hr, 4, [lpips]) == {"lpips": lpips(noise, hr, 4)}


def test_lpips_needs_pixels(lpips):
    with pytest.raises(UserError, match=r"LPIPS needs 31x31 .* a picture of 32x30\. Leave"):
        lpips(torch.rand(3, 38, 40), torch.rand(3, 38, 40), 4)


def test_lpips_without_weights(monkeypatch):
    def unreachable(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"AlexNet, .* no network\. Do without LPIPS, or put alex"):
        make_lpips(torch.device("cpu"))


def test_own_metrics_have_names_of_their_own():
    def sharpness(sr, hr, crop_border):
        return 0.0

    def loss(sr, hr, crop_border):
        return 0.0

    check_names([psnr_rgb, sharpness])
    with pytest.raises(UserError, match=r"has no name for the log\. Write a function by `def`, or"):
        check_names([partial(psnr_rgb)])
    for metrics, name in (([sharpness, psnr_rgb, sharpness], "sharpness"), ([loss], "loss")):
        with pytest.raises(UserError, match=f"The metric {name} has the name of another value"):
            check_names(metrics)
