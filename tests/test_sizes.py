"""Sizes that a user asks for, and the way of a network to them."""

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.inputs import read_sizes
from common.images.formats import Picture, read_picture
from common.images.resize import imresize
from common.images.tensors import to_tensor
from common.inference import Enlarger
from common.metrics import to_uint8
from common.sizes import Size, passes
from running import assert_nearly_equal
from train_srcnn import SRCNN
from train_vdsr import VDSR


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def srcnn() -> SRCNN:
    torch.manual_seed(0)
    return SRCNN(2, "9-1-5").eval()


@pytest.fixture(scope="module")
def vdsr() -> VDSR:
    torch.manual_seed(0)
    return VDSR([2, 3], num_layers=3, num_features=4).eval()


def test_sizes_of_headers_are_those_of_upright_pictures(tmp_path):
    files = [tmp_path / "upright.jpg", tmp_path / "sideways.jpg", tmp_path / "sideways.tif"]
    for file, orientation in zip(files, (1, 6, 8), strict=True):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (40, 30)).save(file, exif=exif)
    assert read_sizes(files, 1) == [(30, 40), (40, 30), (40, 30)]
    assert [read_picture(file).pixels.shape[:2] for file in files] == read_sizes(files, 1)


@pytest.mark.parametrize(
    ("size", "result", "suffix"),
    [
        (Size.parse("4000x3000"), (2667, 4000), "_4000x3000"),  # fit into
        (Size.parse("4000x2000"), (2000, 3000), "_4000x2000"),
        (Size.parse("1920X"), (1280, 1920), "_w1920"),
        (Size.parse("x3000"), (3000, 4500), "_h3000"),
        (Size(factor=1.5), (30, 45), "_x1.5"),
        (Size(factor=4.0), (80, 120), "_x4"),
        (Size(7, 9, stretch=True), (9, 7), "_7x9"),
        (Size.parse("1x"), (1, 1), "_w1"),
    ],
)
def test_the_size_of_a_result(size, result, suffix):
    assert size.of(20, 30) == result
    assert size.suffix == suffix


@pytest.mark.parametrize("text", ["", "x", "4000", "-5x", "1.5x", "4000x3000x", "٣x", "axb"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is no size; give 4000x3000 to fit into, or one side"):
        Size.parse(text)


@pytest.mark.parametrize("text", ["0x", "x65536", "9" * 5000 + "x"])
def test_sides_have_bounds(text):
    with pytest.raises(ValueError, match="a side has from 1 to 65,535 pixels"):
        Size.parse(text)


@pytest.mark.parametrize(
    ("scales", "factor", "result"),
    [
        ([2], 2, [2]),
        ([2], 1.3, [2]),
        ([2], 2.01, [2]),  # a last per cent is bicubic's
        ([2], 2.1, [2, 2]),
        ([2], 8, [2, 2, 2]),
        ([2], 0.5, []),
        ([2, 3, 4], 2.5, [3]),
        ([2, 3, 4], 10, [4, 3]),
    ],
)
def test_how_often_a_network_is_applied(scales, factor, result):
    assert passes(scales, factor) == result


@pytest.mark.parametrize("size", [1.5, "30x", Size(30, 20, stretch=True)])
def test_what_a_program_gives_as_size(size, srcnn, pixels):
    assert Enlarger(srcnn)(pixels[:20, :20], size=size).shape[1] == 30


@pytest.mark.parametrize("size", [(1920, 1080), 1920, 0, 1, True, [2]])
def test_what_a_program_cannot_give_as_size(size, srcnn, pixels):
    with pytest.raises(ValueError, match=r"is no size; give a text, as '4000x3000', .* factor abo"):
        Enlarger(srcnn)(pixels, size=size)


def test_by_the_network_and_then_by_bicubic(srcnn, pixels):
    larger = Enlarger(srcnn)(pixels, size="75x")
    assert larger.shape == (50, 75, 3)
    with torch.no_grad():
        once = srcnn(to_tensor(pixels)[None] / 255).clamp(0, 1)
        twice = srcnn(once).clamp(0, 1)
    expected = to_uint8(imresize(twice, (50, 75)))[0].movedim(0, -1).numpy()
    assert_nearly_equal(larger, expected)


def test_a_network_of_several_factors_goes_beyond_and_back(vdsr, pixels):
    """Not VDSR's own enlargement by any factor: below its smallest that is worse than bicubic."""
    enlarger = Enlarger(vdsr)
    larger = enlarger(pixels, size="45x")
    with torch.no_grad():
        beyond = vdsr(to_tensor(pixels)[None] / 255, scale=2).clamp(0, 1)
    expected = to_uint8(imresize(beyond, (30, 45)))[0].movedim(0, -1).numpy()
    assert_nearly_equal(larger, expected)
    assert vdsr.scale == 2  # as before
    assert enlarger.factors((20, 30), (30, 45)) == [2]
    assert enlarger.factors((20, 30), (60, 90)) == [3]
    assert enlarger.factors((20, 30), (200, 300)) == [3, 3, 2]
    assert enlarger.count_pixels((20, 30), (200, 300)) == 20 * 30 * (1 + 9 + 81)
    tiles = Enlarger(vdsr, tile=16)(pixels, size="45x")
    assert_nearly_equal(tiles, larger)


def test_a_larger_picture_becomes_smaller_by_bicubic(srcnn, pixels):
    expected = imresize(to_tensor(pixels).float(), (10, 15)).round().clamp(0, 255)
    assert_nearly_equal(Enlarger(srcnn)(pixels, size="15x"), expected.movedim(0, -1).numpy())


def test_opacity_and_16_bits_have_the_size_as_well(srcnn, pixels):
    fine = pixels.astype(np.uint16) * 257
    picture = Picture(fine, fine[..., 0], exif=b"exif")
    larger = Enlarger(srcnn).enlarge(picture, size=(30, 45))
    assert larger.pixels.dtype == larger.alpha.dtype == np.uint16
    assert larger.pixels.shape == (30, 45, 3)
    assert larger.exif == b"exif"
    alpha = imresize(torch.from_numpy(fine[..., 0].astype(np.float64)), (30, 45))
    assert np.abs(larger.alpha - alpha.round().clamp(0, 65535).numpy()).max() <= 1


def test_what_no_memory_holds_is_refused_before_it_is_made(srcnn, pixels):
    with pytest.raises(ValueError, match="65535x43690 takes more than 1,074 megapixels at once"):
        Enlarger(srcnn)(pixels, size="65535x")


KINDS = {
    "gray": lambda rgb: rgb[..., 0],
    "gray with an axis": lambda rgb: rgb[..., :1],
    "gray and opacity": lambda rgb: rgb[..., :2],
    "color and opacity": lambda rgb: np.dstack([rgb, rgb[..., :1]]),
    "uint16": lambda rgb: rgb.astype(np.uint16) * 257,
    "float32": lambda rgb: (rgb / 255).astype(np.float32),
    "float64": lambda rgb: rgb / 255,
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_stay_what_they_are(kind, srcnn, pixels):
    given = KINDS[kind](pixels)
    larger = Enlarger(srcnn)(given)
    assert larger.dtype == given.dtype
    assert larger.shape == (40, 60, *given.shape[2:])


def test_floats_are_not_rounded(srcnn, pixels):
    larger = Enlarger(srcnn)((pixels / 255).astype(np.float32))
    with torch.no_grad():
        sr = srcnn(to_tensor(pixels)[None] / 255)[0].clamp(0, 1).movedim(0, -1).numpy()
    assert np.abs(larger - sr).max() < 1e-5


@pytest.mark.parametrize(
    ("mode", "result"),
    [("RGB", "RGB"), ("L", "L"), ("1", "L"), ("P", "RGB"), ("RGBA", "RGBA"), ("LA", "LA")],
)
def test_images_of_pillow(mode, result, srcnn, pixels):
    image = Image.fromarray(pixels).convert(mode)
    image.info["icc_profile"] = b"profile"
    larger = Enlarger(srcnn)(image)
    assert (larger.mode, larger.size) == (result, (60, 40))
    assert larger.info["icc_profile"] == b"profile"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda rgb: rgb.astype(int), TypeError, "int64 may mean anything; convert it to uint8"),
        (lambda rgb: rgb.transpose(2, 0, 1), ValueError, "shape .3, 20, 30. is no picture; give"),
        (lambda rgb: rgb[:0], ValueError, "is no picture"),
        (lambda rgb: rgb / 100, ValueError, "floats from 0 to 2.55 are no picture; they must be"),
        (lambda rgb: rgb * np.nan, ValueError, "floats from nan to nan are no picture"),
        (torch.from_numpy, TypeError, "not Tensor; read a file by common.images.formats"),
        (
            lambda rgb: Image.fromarray(rgb[..., 0].astype(np.int32)),
            ValueError,
            "mode I has 32 bits a channel, and nobody knows its white",
        ),
    ],
)
def test_what_is_no_picture(make, error, message, srcnn, pixels):
    with pytest.raises(error, match=message):
        Enlarger(srcnn)(make(pixels))
