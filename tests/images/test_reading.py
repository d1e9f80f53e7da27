"""Pictures of all kinds become RGB of 8 bits."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from common.images.formats import read_rgb
from common.images.tensors import to_float

GRADIENT = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)


def saved(image: Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG"} | options)
    file.seek(0)
    return file


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WebP"])
def test_lossless_formats(format):
    options = {"lossless": True} if format == "WebP" else {}
    file = saved(Image.fromarray(GRADIENT), format=format, **options)
    assert np.array_equal(read_rgb(file), GRADIENT)


def test_gray_becomes_three_equal_channels():
    gray = GRADIENT[..., 0]
    assert np.array_equal(read_rgb(saved(Image.fromarray(gray))), np.stack([gray] * 3, axis=2))


def test_black_and_white():
    bits = GRADIENT[..., 0] > 100
    pixels = read_rgb(saved(Image.fromarray(bits)))
    assert np.array_equal(pixels, np.stack([bits * np.uint8(255)] * 3, axis=2))


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    assert read_rgb(saved(image)).tolist() == [[[200, 100, 50], [10, 20, 30]]]


def test_transparency_shows_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)])
    assert read_rgb(saved(image)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = read_rgb(saved(image, format="TIFF"))
    assert pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray(format):
    values = np.array([[0, 257, 128 * 257, 65535, 300]], dtype=np.uint16)
    pixels = read_rgb(saved(Image.fromarray(values), format=format))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255, 1]
    assert pixels.shape == (1, 5, 3)


def test_16_bit_color(tmp_path):
    import tifffile

    values = np.array([[[0, 128 * 257, 65535]]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", values, photometric="rgb")
    assert read_rgb(tmp_path / "deep.tif").tolist() == [[[0, 128, 255]]]


def test_exif_orientation():
    image = Image.fromarray(GRADIENT)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    pixels = read_rgb(saved(image, exif=exif))
    assert np.array_equal(pixels, np.rot90(GRADIENT, k=-1))


def test_32_bits_are_refused():
    with pytest.raises(ValueError, match="32 bits"):
        read_rgb(saved(Image.fromarray(GRADIENT[..., 0].astype(np.float32)), format="TIFF"))


def test_bytes_become_floats_in_0_1():
    floats = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.device("cpu"))
    assert torch.equal(floats, torch.tensor([0, 0.2, 1.0]))
