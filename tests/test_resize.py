import numpy as np
import pytest
import torch

from common.data import read_picture, to_tensor
from common.resize import Bicubic, crop_to_multiple, imresize


@pytest.mark.parametrize("scale", [2, 4])
def test_published_lr_of_set5_pixel_by_pixel(benchmark_dir, scale):
    files = sorted((benchmark_dir / "Set5" / "HR").glob("*.png"))
    assert len(files) == 5
    for file in files:
        hr = crop_to_multiple(to_tensor(read_picture(file)), scale)
        (lr_file,) = (benchmark_dir / "Set5" / "LR_bicubic" / f"X{scale}").glob(f"{file.stem}*")
        lr = to_tensor(read_picture(lr_file))
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
    image = torch.rand(1, 1, 700, 8, dtype=torch.float64)
    whole, part = imresize(image, 2), imresize(image[..., :200, :], 2)
    torch.testing.assert_close(whole[..., :390, :], part[..., :390, :], rtol=0, atol=0)


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


@pytest.mark.gpu
def test_gpu_equals_cpu():
    image = torch.randint(0, 256, (3, 60, 91), dtype=torch.uint8)
    for factor in (0.5, 1 / 3, 0.25, 2, 3):
        assert torch.equal(imresize(image.cuda(), factor).cpu(), imresize(image, factor))
