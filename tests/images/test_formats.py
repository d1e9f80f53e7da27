"""Pictures are written as their owners know them, and can be read again."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from common.images.formats import Picture, read_picture
from common.images.writing import write_picture

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def ramp(*shape, dtype=np.uint8) -> np.ndarray:
    """Pixels that differ from one another."""
    return (np.arange(np.prod(shape)) * 37 % np.iinfo(dtype).max).astype(dtype).reshape(shape)


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tif", "tiff", "jpg", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits(ending, channels, tmp_path):
    pixels = np.full((6, 5, channels), 90, np.uint8)  # which JPEG and WebP keep as well
    write_picture(Picture(pixels, icc_profile=PROFILE), tmp_path / f"a.{ending}", quality=100)
    found = read_picture(tmp_path / f"a.{ending}")
    if ending == "webp":  # knows no gray
        pixels = np.repeat(pixels, 3 // channels, axis=2)
    assert np.array_equal(found.pixels, pixels)
    assert found.alpha is None
    assert found.icc_profile == (PROFILE if ending != "bmp" else None)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_bits_and_alpha_are_kept(ending, dtype, channels, alpha, tmp_path):
    pixels = ramp(7, 9, channels, dtype=dtype)
    opacity = ramp(7, 9, dtype=dtype) if alpha else None
    write_picture(Picture(pixels, opacity, PROFILE), tmp_path / f"a.{ending}")
    found = read_picture(tmp_path / f"a.{ending}")
    assert found.pixels.dtype == dtype
    assert np.array_equal(found.pixels, pixels)
    assert (found.alpha is None) != alpha
    assert not alpha or np.array_equal(found.alpha, opacity)
    assert found.icc_profile == PROFILE


def test_what_other_programs_wrote(tmp_path):
    pixels = ramp(6, 5, 3, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, pixels)
    planes = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.png")
    assert np.array_equal(read_picture(tmp_path / "gray.png").pixels, pixels[..., :1])
    palette = Image.fromarray(ramp(6, 5, 3)).convert("P")
    palette.save(tmp_path / "palette.png", transparency=3)
    found = read_picture(tmp_path / "palette.png")
    rgba = np.asarray(palette.convert("RGBA"))
    assert np.array_equal(found.pixels, rgba[..., :3])
    assert np.array_equal(found.alpha == 0, np.asarray(palette) == 3)


def test_a_picture_of_16_bits_can_be_opened_by_pillow(tmp_path):
    pixels = ramp(6, 5, 3, dtype=np.uint16)
    write_picture(Picture(pixels, ramp(6, 5, dtype=np.uint16), PROFILE), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
        assert (image.mode, image.size) == ("RGBA", (5, 6))
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_as_viewers_show_it(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = orientation, "2026:01:02 03:04:05"
    Image.fromarray(ramp(6, 5, 3)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    found = read_picture(tmp_path / "a.png")
    assert np.array_equal(found.pixels, expected)
    write_picture(found, tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as image:
        assert dict(image.getexif()) == {0x0132: "2026:01:02 03:04:05"}
        assert np.array_equal(np.asarray(image), expected)


def test_what_a_format_cannot_hold(tmp_path):
    pixels = np.full((4, 4, 3), 100 * 257, np.uint16)
    alpha = np.full((4, 4), 65535, np.uint16)
    alpha[:2] = 0
    write_picture(Picture(pixels, alpha), tmp_path / "a.jpg", quality=100)
    found = read_picture(tmp_path / "a.jpg")
    assert found.alpha is None
    assert np.all(found.pixels[0] == 255)  # white where nothing was to be seen
    assert np.all(found.pixels[-1] == 100)
    write_picture(Picture(pixels, alpha), tmp_path / "a.webp", quality=100)
    assert read_picture(tmp_path / "a.webp").alpha.tolist() == [[0] * 4] * 2 + [[255] * 4] * 2
    with pytest.raises(ValueError, match=r"be 16384x1, and a side of WEBP .*another ending or --f"):
        write_picture(Picture(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "wide.webp")
    assert not (tmp_path / "wide.webp").exists()


def test_cmyk_becomes_rgb_without_its_profile(tmp_path):
    image = Image.fromarray(ramp(6, 5, 3)).convert("CMYK")
    image.save(tmp_path / "a.tif", icc_profile=PROFILE)
    found = read_picture(tmp_path / "a.tif")
    assert np.array_equal(found.pixels, np.asarray(image.convert("RGB")))
    assert found.icc_profile is None


def test_what_is_not_enlarged(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="it has several pages"):
        read_picture(tmp_path / "two.tif")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(
        ValueError, match=r"1 channels MINISBLACK of 32 bits, float32; save it as RGB or gray"
    ):
        read_picture(tmp_path / "float.tif")
    Image.new("RGB", (2000, 1000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"2000x1000, 2 megapixels, and at most 1\.5 are read"):
        read_picture(tmp_path / "large.png", max_megapixels=1.5)
    tifffile.imwrite(tmp_path / "cmyk.tif", ramp(4, 4, 4, dtype=np.uint16), photometric="separated")
    with pytest.raises(ValueError, match=r"4 channels SEPARATED of 16 bits, uint16; save it"):
        read_picture(tmp_path / "cmyk.tif")


@pytest.mark.parametrize("bits", [9, 12])
def test_bits_between_8_and_16_are_not_clipped_silently(bits, tmp_path):
    pixels = ramp(4, 4, dtype=np.uint16) % 2**bits
    try:
        tifffile.imwrite(tmp_path / "a.tif", pixels, bitspersample=bits)
    except NotImplementedError:
        pytest.skip("this tifffile cannot write such files")
    with pytest.raises(ValueError, match=f"MINISBLACK of {bits} bits"):
        read_picture(tmp_path / "a.tif")


def test_premultiplied_opacity(tmp_path):
    tifffile.imwrite(
        *(tmp_path / "a.tif", ramp(4, 4, 4, dtype=np.uint16)),
        **{"photometric": "rgb", "extrasamples": ["assocalpha"]},
    )
    with pytest.raises(ValueError, match="multiplied by its opacity"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("extrasamples", [["unspecified"], None])
def test_a_channel_that_may_be_no_opacity(extrasamples, tmp_path):
    pixels = ramp(4, 4, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(ValueError, match="its last channel is not marked as opacity; save it w"):
        read_picture(tmp_path / "a.tif")


def test_what_a_camera_says(tmp_path):
    """The tags of a camera are in folders of their own, and sometimes against the rules."""
    exif = Image.Exif()
    exif[0x0132] = "2026:01:02 03:04:05"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    pixels = np.full((8, 8, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    found = read_picture(tmp_path / "a.jpg")
    for ending in ("png", "jpg", "webp", "tif", "bmp"):
        write_picture(found, tmp_path / f"b.{ending}")
        with Image.open(tmp_path / f"b.{ending}") as image:
            kept = image.getexif().get_ifd(0x8769).get(0x9003)
        assert kept == (None if ending in ("tif", "bmp") else "2026:01:02 03:04:05")
    write_picture(Picture(pixels, exif=b"Exif\0\0" + bytes(70000)), tmp_path / "b.jpg")
    assert not read_picture(tmp_path / "b.jpg").exif

    # ResolutionUnit is a number of 16 bits; here it has 32, and needs them.
    tags = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x0128, 4, 1, 70000, 0)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + tags)
    found = read_picture(tmp_path / "a.jpg")
    assert found.exif == b""
    assert np.array_equal(found.pixels, pixels)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_row_of_16_bits(shape, ending, channels, tmp_path):
    pixels = ramp(*shape, channels, dtype=np.uint16)
    write_picture(Picture(pixels), tmp_path / f"a.{ending}")
    assert np.array_equal(read_picture(tmp_path / f"a.{ending}").pixels, pixels)


def test_opacity_in_bmp_becomes_white(tmp_path):
    for channels in (1, 3):
        pixels, alpha = np.zeros((4, 4, channels), np.uint8), np.zeros((4, 4), np.uint8)
        write_picture(Picture(pixels, alpha), tmp_path / "a.bmp")
        assert np.all(read_picture(tmp_path / "a.bmp").pixels == 255)


def test_the_picture_inside_of_a_telephones_file(tmp_path):
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:], quality=100)
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    assert read_picture(tmp_path / "a.jpg").pixels[0, 0].tolist() == [254, 0, 0]
