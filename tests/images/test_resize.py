import warnings

import numpy as np
import pytest
import torch

from common.evaluation import Bicubic
from common.images.formats import read_rgb
from common.images.resize import crop_to_multiple, enlarge, imresize
from common.images.tensors import to_tensor


@pytest.mark.parametrize("scale", [2, 4])
def test_published_lr_of_set5_pixel_by_pixel(benchmark_dir, scale):
    files = sorted((benchmark_dir / "Set5" / "HR").glob("*.png"))
    assert len(files) == 5
    for file in files:
        hr = crop_to_multiple(to_tensor(read_rgb(file)), scale)
        (lr_file,) = (benchmark_dir / "Set5" / "LR_bicubic" / f"X{scale}").glob(f"{file.stem}*")
        lr = to_tensor(read_rgb(lr_file))
        assert torch.equal(imresize(hr, 1 / scale), lr)


def test_uint8_is_rounded_half_up_after_each_pass():
    # Rows first: [0, 255, 0, 255] halves to [x, 255 - x], with x from the kernel's weights by hand.
    column = torch.tensor([[0], [255], [0], [255]], dtype=torch.uint8)
    offsets = np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]) / 2
    x = np.abs(offsets)
    kernel = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) / 2
    pixels = np.array([0, 255, 0, 0, 255, 0, 255, 255])  # rows 2 1 0 | 0 1 2 3 | 3 by reflection
    expected = np.floor(kernel @ pixels + 0.5)
    resized = imresize(column, (2, 1))
    assert resized.tolist() == [[expected], [255 - expected]]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (40, 3), (300, 257)])
def test_any_size_keeps_a_flat_image_flat(size):
    image = torch.full((2, 3, 17, 13), 77, dtype=torch.uint8)
    assert torch.equal(imresize(image, size), torch.full((2, 3, *size), 77, dtype=torch.uint8))


def test_factor_rounds_the_size_up_as_matlab_does():
    assert imresize(torch.zeros(3, 7, 9), 0.5).shape == (3, 4, 5)
    assert imresize(torch.zeros(3, 7, 9), 3).shape == (3, 21, 27)


def test_batch_equals_its_images():
    images = torch.randint(0, 256, (4, 3, 21, 30), dtype=torch.uint8)
    batch = imresize(images, 1 / 3)
    assert all(torch.equal(batch[i], imresize(images[i], 1 / 3)) for i in range(4))


def test_blocks_of_rows_join_without_a_seam():
    # 700 rows make several blocks, which must equal the rows of a picture that is cut off below.
    # Weights of a factor 2 are multiples of 1/128, so that sums of whole numbers are exact.
    image = torch.randint(0, 256, (1, 1, 700, 8)).double()
    whole, part = imresize(image, 2), imresize(image[..., :200, :], 2)
    assert torch.equal(whole[..., :390, :], part[..., :390, :])


def test_float_agrees_with_uint8_up_to_the_rounding_of_two_passes():
    image = torch.randint(64, 192, (3, 40, 44), dtype=torch.uint8)  # so that nothing is clipped
    exact = imresize(image.float(), 0.5)
    assert exact.dtype == torch.float32
    assert (imresize(image, 0.5).float() - exact.clamp(0, 255)).abs().max() < 1.5


def test_gradient():
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 2), image)


def test_training_after_evaluation_in_inference_mode():
    with torch.inference_mode():
        imresize(torch.rand(1, 1, 31, 33), 2)
    image = torch.rand(1, 1, 31, 33, requires_grad=True)
    imresize(image, 2).sum().backward()
    torch.testing.assert_close(image.grad, torch.full_like(image, 4.0))


def test_float32_under_autocast():
    image = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        resized = imresize(image, 2)
    assert torch.equal(resized, imresize(image, 2))


def test_nothing_to_resize():
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        imresize(torch.zeros(3, 0, 4), 2)


def test_bicubic_gives_the_pixels_of_matlab():
    lr = torch.randint(0, 256, (1, 3, 9, 8), dtype=torch.uint8)
    assert torch.equal(Bicubic(3)(lr / 255) * 255, imresize(lr, 3).float())


@pytest.mark.parametrize("factor", range(2, 9))
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 1, 2), (1, 3, 3, 2), (2, 3, 17, 23)])
def test_convolution_enlarges_as_the_matrices_do(shape, factor):
    torch.manual_seed(0)
    image = torch.rand(shape, dtype=torch.float64)
    expected = imresize(image, factor)
    torch.testing.assert_close(enlarge(image, factor), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(enlarge(image.float(), factor), expected.float(), rtol=0, atol=5e-7)


def test_gradient_of_the_convolution():
    image = torch.rand(1, 2, 5, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: enlarge(x, 3), image)


def test_convolution_in_float32_for_half_precision_and_under_autocast():
    image = torch.rand(1, 3, 9, 8)
    assert torch.equal(enlarge(image.half(), 2), enlarge(image.half().float(), 2).half())
    with torch.autocast("cpu", torch.bfloat16):
        resized = enlarge(image, 2)
    assert torch.equal(resized, enlarge(image, 2))


def test_only_an_export_takes_the_convolution(monkeypatch):
    image = torch.rand(1, 3, 40, 33)
    eight_bits = image.mul(255).to(torch.uint8)
    matrices = imresize(image, 3), imresize(eight_bits, 3), imresize(image, 0.5)
    assert not torch.equal(matrices[0], enlarge(image, 3))
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert torch.equal(imresize(image, 3), enlarge(image, 3))
    assert torch.equal(imresize(eight_bits, 3), matrices[1])
    assert torch.equal(imresize(image, 0.5), matrices[2])


@pytest.mark.gpu
def test_gpu_equals_cpu():
    image = torch.randint(0, 256, (3, 60, 91), dtype=torch.uint8)
    for factor in (0.5, 1 / 3, 0.25, 2, 3):
        assert torch.equal(imresize(image.cuda(), factor).cpu(), imresize(image, factor))


def test_training_patches_are_enlarged_within_the_graph_of_a_compiler():
    compiled = torch.compile(imresize, fullgraph=True, dynamic=False, backend="aot_eager")
    for scale in (2, 3, 2):
        lr = torch.rand(2, 3, 12, 12, requires_grad=True)
        sr = compiled(lr, scale)
        assert torch.equal(sr, imresize(lr, scale))
        (ours,) = torch.autograd.grad(sr.square().sum(), lr)
        (expected,) = torch.autograd.grad(imresize(lr, scale).square().sum(), lr)
        assert torch.equal(ours, expected)


def test_pictures_of_many_sizes_are_enlarged_beside_the_graph_of_a_compiler():
    compiled = torch.compile(imresize, dynamic=True, backend="aot_eager")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (8, 9, 10):
            lr = torch.rand(1, 3, side, side)
            assert torch.equal(compiled(lr, 2), imresize(lr, 2))
