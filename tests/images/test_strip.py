"""Strips show the whole picture, and details that are no noise."""

import numpy as np
import torch

from common.images.resize import imresize
from common.images.strip import Versions, find_details, make_strip, patch_sheet, stack_strips


def test_details_are_lines_and_no_noise():
    generator = torch.Generator().manual_seed(0)
    hr = torch.full((3, 192, 192), 128.0)
    hr[:, :64, :64] += 60 * torch.randn((64, 64), generator=generator)
    hr[:, 128:, 128:] += 25 * torch.sign(torch.sin(torch.arange(64) * 1.5))  # thin stripes
    hr = hr.clamp(0, 255).to(torch.uint8)
    bicubic = imresize(imresize(hr, 0.5), 2)
    error = (hr.float() - bicubic.float()).square().mean(0)
    assert error[:64, :64].mean() > 2 * error[128:, 128:].mean()
    ((top, left), *others) = find_details(hr, bicubic, 64)
    assert top >= 104
    assert left >= 104
    assert len(others) == 2
    for row, column in others:  # which do not overlap
        assert max(abs(row - top), abs(column - left)) >= 64


def test_a_strip_of_another_factor_than_a_whole_one():
    lr = torch.randint(0, 255, (3, 80, 100), dtype=torch.uint8)
    versions = Versions.of(lr, [("A", imresize(lr, (200, 250)))])
    assert [label for label, _ in versions.named] == ["Bicubic", "A"]
    strip = make_strip(versions)
    assert strip.width >= 3 * 200
    small = make_strip(Versions.of(lr[:, :1, :1], [("A", imresize(lr[:, :1, :1], 2))]))
    assert stack_strips([strip, small]).height == strip.height + 8 + small.height


def test_of_a_huge_picture_the_middle_is_shown():
    lr = torch.zeros((3, 3, 3000), dtype=torch.uint8)
    lr[:, :, 1500] = 255
    versions = Versions.of(lr, [("A", imresize(lr, 2))])
    assert versions.named[0][1].shape == (3, 6, 4096)
    assert versions.lr.shape == (3, 3, 2048)
    assert int(versions.lr[0, 0].argmax()) == 1024


def test_patches_on_a_sheet():
    """Each HR left of its LR, four pairs in a row, 16 at most."""
    hr = (torch.arange(18, dtype=torch.uint8) * 10)[:, None, None, None].expand(18, 3, 4, 4)
    lr = (hr + 5)[..., :2, :2]
    sheet = np.asarray(patch_sheet(lr, hr, side=8))
    assert sheet.shape == (64, 128, 3)
    for number in (0, 3, 4, 15):
        top, left = number // 4 * 16, number % 4 * 32
        assert (sheet[top : top + 8, left : left + 8] == 10 * number).all()
        assert (sheet[top : top + 8, left + 16 : left + 24] == 10 * number + 5).all()
    assert (sheet[8:16] == 255).all()
    assert patch_sheet(lr[:5], hr[:5], side=8).size == (128, 32)
