import pytest
import torch

from common.images.color import luma, replace_luma


def test_luma_of_black_white_and_primaries():
    colors = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    y = luma(colors.T[:, None].double())[0, 0] * 255
    assert y.tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_replaced_luma_leaves_chroma():
    # The matrix of MATLAB's `rgb2ycbcr`.
    matrix = torch.tensor(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]],
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    y = torch.rand(2, 1, 5, 4, generator=generator, dtype=torch.float64)
    before, after = (
        torch.einsum("cd,ndhw->nchw", matrix, image) for image in (rgb, replace_luma(rgb, y))
    )
    torch.testing.assert_close((after[:, :1] + 16) / 255, y)
    torch.testing.assert_close(after[:, 1:], before[:, 1:])


def test_replaced_luma_is_found_again():
    rgb, y = torch.rand(1, 3, 9, 9), torch.rand(1, 1, 9, 9)
    torch.testing.assert_close(luma(replace_luma(rgb, y)), y)
    torch.testing.assert_close(replace_luma(rgb, luma(rgb)), rgb)
