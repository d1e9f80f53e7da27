"""upscale.py on folders of all kinds of pictures."""

import shutil
import struct
import zlib
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from common.hub import load_model
from common.images.formats import Picture, read_picture, read_rgb
from common.images.resize import imresize
from common.images.tensors import to_tensor
from common.images.writing import write_picture
from common.inference import Enlarger
from common.metrics import to_uint8
from running import assert_nearly_equal, refusal, run_here, run_two
from train_a2n import A2N
from train_srcnn import SRCNN
from train_vdsr import VDSR


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The folder of a small network, x2."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "small"
    SRCNN(2, "9-1-5").save(folder)
    return folder


def upscale(*options, runner=run_here, **settings):
    return runner("upscale.py", *options, **settings)


def expected(model: Path, pixels: np.ndarray) -> np.ndarray:
    """What the network makes of RGB of 8 bits."""
    with torch.no_grad():
        sr = load_model(model)(to_tensor(pixels)[None] / 255)
    return to_uint8(sr)[0].movedim(0, -1).numpy()


def test_pictures_folders_and_patterns(model, pictures_dir, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(pictures_dir, folder / "a" / "b")
    shutil.copy(pictures_dir / "0.png", folder / "top.PNG")
    single = tmp_path / "single.png"
    shutil.copy(pictures_dir / "1.png", single)
    output = tmp_path / "out"
    options = (folder, single, tmp_path / "sing*.png", "--model", model, "--output", output)
    process = upscale(*options)
    assert f"Enlarged 10 of 10 pictures, in {output}." in process.stdout
    written = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert written == {f"a/b/{n}_x2.png" for n in range(8)} | {"top_x2.png", "single_x2.png"}
    for number in (0, 7):
        sr = np.asarray(Image.open(output / "a" / "b" / f"{number}_x2.png"))
        assert_nearly_equal(sr, expected(model, read_rgb(pictures_dir / f"{number}.png")))

    (output / "top_x2.png").unlink()
    (output / "single_x2.png").write_text("mine")
    process = upscale(*options)
    assert "Enlarged 1 of 1 picture, in" in process.stdout
    assert f"Written: {output / 'top_x2.png'}\n" in process.stdout
    assert "9 results in" in process.stdout
    assert (output / "single_x2.png").read_text() == "mine"
    upscale(*options, "--overwrite")
    assert read_picture(output / "single_x2.png").pixels.shape == (160, 192, 3)


def test_its_own_results_are_no_inputs(model, pictures_dir, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(pictures_dir, folder)
    for _ in range(2):
        upscale(folder, "--model", model, "--output", folder / "out", "--overwrite")
    assert len(list((folder / "out").rglob("*.png"))) == 8
    (tmp_path / "one").mkdir()
    shutil.copy(pictures_dir / "0.png", tmp_path / "one")
    options = ("--model", model, "--output", tmp_path / "one" / "big.png", "--comparison")
    once = "Enlarged 1 of 1 picture, in"
    for words, message in (((), once), ((), "Kept as before"), (("--overwrite",), once)):
        assert message in upscale(tmp_path / "one", *options, *words).stdout


def test_a_file_for_the_result_of_one_picture(model, pictures_dir, tmp_path):
    base = (pictures_dir / "0.png", "--model", model)
    upscale(*base, "--output", tmp_path)
    big = tmp_path / "new" / "big.jpg"
    process = upscale(*base, "--output", big, "--comparison")
    assert f"Written: {big}, {big}_comparison.png" in process.stdout
    with Image.open(big) as image:
        assert (image.format, image.size) == ("JPEG", (192, 160))
    upscale(*base, "--output", tmp_path / "big.png")
    assert_nearly_equal(*(read_rgb(tmp_path / name) for name in ("big.png", "0_x2.png")))
    assert "model: 1 result in" in upscale(*base, "--output", big).stdout
    named = (tmp_path / "[0b]*.png", "--model", model, "--output", tmp_path / "big.png")
    assert "model: 1 result in" in upscale(*named).stdout  # of 0_x2.png, and big.png is no input
    assert "is one picture, and 2 are to be" in upscale(*named, "--overwrite", runner=refusal)
    (tmp_path / "folder.png").mkdir()
    upscale(*base, "--output", tmp_path / "folder.png")
    assert (tmp_path / "folder.png" / "0_x2.png").is_file()


def test_two_processes_share_the_pictures(model, pictures_dir, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0_x2.png")  # as if it had been made before
    options = (pictures_dir, "--model", model, "--output", tmp_path)
    process = run_two("upscale.py", *map(str, options))
    assert process.stdout.count("Enlarged 7 of 7 pictures, in") == 1
    assert len(list(tmp_path.glob("*_x2.png"))) == 8
    for number in range(1, 8):
        sr = read_picture(tmp_path / f"{number}_x2.png").pixels
        assert_nearly_equal(sr, expected(model, read_rgb(pictures_dir / f"{number}.png")))


def test_what_a_picture_is_it_stays(model, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (14, 12, 3), dtype=np.uint8)
    alpha = np.linspace(1, 255, 14 * 12).astype(np.uint8).reshape(14, 12)
    write_picture(Picture(rgb, alpha, b"profile"), tmp_path / "alpha.png")
    write_picture(Picture(rgb[..., :1]), tmp_path / "gray.png")
    write_picture(Picture(rgb.astype(np.uint16) * 257 + 5), tmp_path / "fine.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif)
    upscale(tmp_path, "--model", model, "--output", tmp_path / "out")

    found = read_picture(tmp_path / "out" / "alpha_x2.png")
    assert_nearly_equal(found.pixels, expected(model, rgb))
    larger = imresize(torch.from_numpy(alpha).double(), 2).round().clamp(0, 255)
    assert np.abs(found.alpha - larger.numpy()).max() <= 1
    assert found.icc_profile == b"profile"
    found = read_picture(tmp_path / "out" / "gray_x2.png")
    assert found.pixels.shape == (28, 24, 1)
    color = expected(model, np.repeat(rgb[..., :1], 3, axis=2))
    # Half a value by rounding the mean, and a third if one of the three colors differs by 1.
    assert np.abs(found.pixels[..., 0] - color.mean(axis=2)).max() < 0.9
    found = read_picture(tmp_path / "out" / "fine_x2.tif")
    assert found.pixels.dtype == np.uint16
    assert np.abs(found.pixels / 257 - expected(model, rgb)).max() <= 0.6
    assert read_picture(tmp_path / "out" / "turned_x2.jpg").pixels.shape == (24, 28, 3)


def test_bad_files_are_named_and_the_others_done(model, pictures_dir, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(pictures_dir, folder)
    content = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.jpg").touch()
    Image.new("RGB", (1, 1), "red").save(folder / "one.png")
    header = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    size = struct.pack(">I", 13)
    (folder / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + size
        + header
        + struct.pack(">I", zlib.crc32(header))
        + bytes(4)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    options = (folder, "--model", model, "--output", tmp_path / "out")
    message = upscale(*options, runner=refusal)
    assert "Could not enlarge 4 of 13 pictures:\n" in message
    for line in (
        f"\n  {folder}/cut.png: it is damaged: image file is truncated",
        f"\n  {folder}/text.png: it is no PNG, JPEG, BMP, WebP, TIFF, GIF, JPEG 2000, PPM, AVIF",
        f"\n  {folder}/empty.jpg: it is empty",
        f"\n  {folder}/huge.png: it is 40000x40000, 1600 megapixels, and at most 200 are read; see",
    ):
        assert line in message
    assert len(list((tmp_path / "out").iterdir())) == 9
    assert read_picture(tmp_path / "out" / "one_x2.png").pixels.shape == (2, 2, 3)


def test_formats_and_strips(model, pictures_dir, tmp_path):
    base = (pictures_dir / "0.png", "--model", model, "--output", tmp_path, "--suffix", "_large")
    upscale(*base, "--format", "jpg", "--quality", 30, "--comparison")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"0_large.jpg", "0_large.jpg_comparison.png"}
    strip = Image.open(tmp_path / "0_large.jpg_comparison.png")
    assert strip.size == (230 + 3 * 200, 192 + 28)  # the whole, LR, bicubic and the network
    small = (tmp_path / "0_large.jpg").stat().st_size
    upscale(*base, "--format", "jpg", "--overwrite")
    assert (tmp_path / "0_large.jpg").stat().st_size > small
    upscale(*base, "--format", "webp")
    assert read_picture(tmp_path / "0_large.webp").pixels.shape == (160, 192, 3)


def test_how_it_is_computed(pictures_dir, tmp_path):
    torch.manual_seed(0)
    network = A2N(2, num_features=8, num_blocks=2)
    for parameter in network.parameters():
        if parameter.dim() > 1:  # larger, so that windows and rounding show
            torch.nn.init.kaiming_uniform_(parameter, a=1)
    network.save(tmp_path / "a2n")
    with Image.open(pictures_dir / "0.png") as image:
        image.crop((0, 0, 48, 40)).save(tmp_path / "small.png")
    lr = read_rgb(tmp_path / "small.png")
    results = []
    for number, (options, settings) in enumerate(
        (
            ((), {}),
            (("--tile", 16), {"tile": 16}),
            (("--attention_window", 12), {"attention_window": 12}),
            (("--self_ensemble",), {"self_ensemble": True}),
            (("--mixed_precision", "bf16"), {"dtype": torch.bfloat16}),
        )
    ):
        base = (tmp_path / "small.png", "--model", tmp_path / "a2n", "--suffix", f"_{number}")
        upscale(*base, "--output", tmp_path, *options)
        result = read_picture(tmp_path / f"small_{number}.png").pixels
        expected = Enlarger(load_model(tmp_path / "a2n"), torch.device("cpu"), **settings)(lr)
        assert_nearly_equal(result, expected)
        results.append(result)
    assert len({result.tobytes() for result in results}) == 5


def test_a_strip_of_what_was_enlarged_before(model, pictures_dir, tmp_path):
    base = (pictures_dir / "0.png", "--model", model, "--output", tmp_path)
    upscale(*base)
    (tmp_path / "0_x2.png").write_text("mine")
    message = upscale(*base, "--comparison", runner=refusal)
    assert "0_x2.png is there, but it is no PNG, JPEG, BMP, WebP, TIFF, GIF, JPEG 2000" in message
    Image.new("RGB", (192, 160), "red").save(tmp_path / "0_x2.png")
    output = upscale(*base, "--comparison").stdout
    assert "Enlarged 1 of 1" in output
    assert f"Written: {tmp_path / '0_x2.png_comparison.png'}\n" in output  # and not the result
    assert read_picture(tmp_path / "0_x2.png").pixels[0, 0].tolist() == [255, 0, 0]
    strip = Image.open(tmp_path / "0_x2.png_comparison.png")
    assert strip.getpixel((strip.width - 50, 150)) == (255, 0, 0)  # of what is there
    assert "1 result in" in upscale(*base, "--comparison").stdout
    Image.new("RGB", (96, 80), "red").save(tmp_path / "0_x2.png")
    (tmp_path / "0_x2.png_comparison.png").unlink()
    message = upscale(*base, "--comparison", runner=refusal)
    assert "0_x2.png is there, and is not 192x160; see --overwrite" in message


def test_results_among_the_inputs(model, pictures_dir, tmp_path, monkeypatch):
    for number in range(2):
        shutil.copy(pictures_dir / f"{number}.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "Enlarged 2 of 2" in upscale("*.png", "--model", model, "--output", ".").stdout
    shutil.copy(pictures_dir / "2.png", tmp_path)
    process = upscale("*.png", "--model", model, "--output", ".", "--comparison")
    assert "Enlarged 3 of 3" in process.stdout
    process = upscale("*.png", "2.png", tmp_path / "2.png", "--model", model, "--output", ".")
    assert "Enlarged" not in process.stdout
    assert "Kept as before, perhaps by another model: 3 results in .." in process.stdout
    assert len(list(tmp_path.iterdir())) == 3 * 3
    options = ("*.png", "--model", model, "--output", ".", "--overwrite")
    assert "0_x2.png, which is an input itself" in upscale(*options, runner=refusal)


def test_inputs_below_the_output(model, pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "out" / "in")
    process = upscale(tmp_path / "out" / "in", "--model", model, "--output", tmp_path / "out")
    assert "Enlarged 8 of 8" in process.stdout
    assert len(list((tmp_path / "out").glob("*_x2.png"))) == 8


def test_stopped_by_ctrl_c(model, pictures_dir, tmp_path):
    base = (pictures_dir, "--model", model, "--output", tmp_path)
    enlarge, seen = Enlarger.enlarge, []

    def interrupted(self, picture, on_pixels, size):
        seen.append(picture)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return enlarge(self, picture, on_pixels, size)

    with mock.patch.object(Enlarger, "enlarge", interrupted):
        process = upscale(*base, runner=partial(run_here, check=False))
    assert process.returncode == 130
    assert process.stderr.endswith("the same command does the others.\n")
    assert {path.name for path in tmp_path.iterdir()} == {"0_x2.png", "1_x2.png"}
    assert "Enlarged 6 of 6 pictures" in upscale(*base).stdout


def test_a_scale_of_several(pictures_dir, tmp_path):
    VDSR([2, 3], num_layers=2, num_features=4).save(tmp_path / "vdsr")
    base = (pictures_dir / "0.png", "--model", tmp_path / "vdsr", "--output", tmp_path)
    upscale(*base, "--scale", 3)
    assert read_picture(tmp_path / "0_x3.png").pixels.shape == (240, 288, 3)
    process = upscale(*base, "--scale", 4)
    assert "VDSR enlarges by 2 or 3, as often as needed; bicubic then makes the" in process.stdout
    assert read_picture(tmp_path / "0_x4.png").pixels.shape == (320, 384, 3)


def test_any_size(model, pictures_dir, tmp_path):
    base = (pictures_dir / "0.png", "--model", model, "--output", tmp_path)
    process = upscale(*base, "--size", "400x300")
    assert "SRCNN enlarges by 2, as often as needed; bicubic then makes the" in process.stdout
    expected = Enlarger(load_model(model))(read_rgb(pictures_dir / "0.png"), size="400x300")
    found = read_picture(tmp_path / "0_400x300.png").pixels
    assert found.shape == (300, 360, 3)  # fit into
    assert_nearly_equal(found, expected)
    upscale(*base, "--size", "50x100", "--stretch")
    assert read_picture(tmp_path / "0_50x100.png").pixels.shape == (100, 50, 3)
    upscale(*base, "--scale", 1.5)
    assert read_picture(tmp_path / "0_x1.5.png").pixels.shape == (120, 144, 3)
    assert "model: 1 result in" in upscale(*base, "--size", "400x300").stdout


def test_a_sheet_and_a_page_of_all_pictures(model, pictures_dir, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "<script>.png"):
        shutil.copy(pictures_dir / "0.png", folder / name)
    sheet, page = tmp_path / "sheet.png", tmp_path / "page.html"
    base = (folder, "--model", model, "--output", tmp_path / "out", "--scale", 1.5)
    process = upscale(*base, "--comparison", sheet, "--page", page)
    assert f"Written: {sheet}, {page}, " in process.stdout
    assert Image.open(sheet).height == 2 * 220 + 8
    text = page.read_text()
    assert '"name": "\\u003cscript>.png"' in text
    assert text.count('"label": "Bicubic"') == text.count('"label": "SRCNN"') == 2
    message = upscale(*base, "--page", page, runner=refusal)
    assert f"--page {page} exists already; name another, or add --overwrite" in message
    page.unlink()
    (tmp_path / "out" / "a_x1.5.png").unlink()
    assert "Enlarged 2 of 2" in upscale(*base, "--page", page).stdout  # one is read again
    assert page.read_text().count('"label": "Bicubic"') == 2
    message = upscale(folder, "--page", folder / "a.png", "--overwrite", runner=refusal)
    assert "a.png must end in .html" in message
    message = upscale("--comparison", folder / "a.png", folder, "--overwrite", runner=refusal)
    assert "a.png exists already; pictures to enlarge come before it" in message
    broken, new = tmp_path / "broken.png", tmp_path / "new.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    none = upscale(
        broken, *base[1:], "--comparison", new, "--page", tmp_path / "new.html", check=False
    )
    assert none.returncode
    assert "Written" not in none.stdout
    assert not list(tmp_path.glob("new.*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nothing.png",), "There is no nothing.png: no picture, no folder, nothing like it."),
        (("{folder}/empty",), "/empty. Known endings: .png"),
        (("{folder}/a.png", "{folder}/copy/a.png"), " would both become "),
        (
            ("{folder}/a.png", "--suffix", "", "--output", "{folder}"),
            ", which is an input itself; ",
        ),
        (("{folder}/copy", "--output", "{folder}/copy"), ", leaving out what is in --output "),
        (
            ("{folder}/a.png", "--output", "{folder}/notes"),
            "notes, which is no folder; name another",
        ),
        (("{folder}/copy", "{folder}/a.png", "--output", "b.png"), "is one picture, and 2 are to"),
        (("{folder}/a.png", "--output", "{folder}/a.png"), "a.png, which is an input itself; "),
        (
            ("{folder}/a.png", "--output", "{folder}/hard_link.png", "--overwrite"),
            "hard_link.png, which is an input itself; ",
        ),
        (("{folder}/a.png", "--output", "b.GIF"), "b.GIF is no picture that can be written; end"),
        (("{folder}/a.png", "--output", "b.cr2"), "b.cr2 is no picture that can be written; end"),
        (
            ("{folder}/a.png", "--output", "b.png", "--format", "jpg"),
            "--output b.png names the result, so leave out --format and --suffix",
        ),
        (("{folder}/a.png", "--output", "{folder}/a.bmp/b"), ", which is no folder; name another"),
        (
            (
                *("{folder}/a.png", "{folder}/a.png_comparison.png"),
                *("--suffix", "", "--comparison", "--format", "png"),
            ),
            "a.png_comparison.png would both become ",
        ),
        (("{folder}/a.png", "--max_megapixels", "nan"), "--max_megapixels nan is not above 0"),
        (
            ("{folder}/a.png", "--suffix", "b/c"),
            "--suffix b/c is a part of names; folders are for --out",
        ),
        (("{folder}/a.png", "--attention_window", "-5"), "_window -5 is not at least 0"),
        (("{folder}/a.png", "--max_megapixels", "-1"), "--max_megapixels -1 is not above 0"),
        (("{folder}/a.png", "--scale", "1"), "--scale 1 is not above 1 and at most 64"),
        (("{folder}/a.png", "--size", "big"), "--size big is no size; give 4000x3000 to fit into"),
        (("{folder}/a.png", "--size", "0x"), "--size 0x: a side has from 1 to 65,535 pixels"),
        (("{folder}/a.png", "--size", "8x", "--scale", "2"), "--size and --scale exclude each"),
        (("{folder}/a.png", "--size", "8x", "--stretch"), "--stretch needs a --size of two sides"),
        (("{folder}/a.png", "--revision", "v1"), "Revision v1 is of models on the Hub, and "),
        (("{folder}/a.png", "--tile", "half"), "half is neither auto nor a multiple of 8"),
        (("{folder}/a.png", "--tile", "7"), "7 is neither auto nor a multiple of 8"),
        (("{folder}/a.png", "--attention_window", "64"), "SRCNN does not. Leave it out."),
        (("{folder}/a.png", "--mixed_precision", "fp16"), "fp16 does not work on a CPU."),
        (("{folder}/a.png", "--quality", "101"), "--quality 101 is more than 100"),
    ],
)
def test_bad_options(options, message, model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "notes").touch()
    for name in ("a.png", "copy/a.png", "a.bmp", "a.png_comparison.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    # The file has another name, as img.JPG on a disk that ignores case.
    (tmp_path / "hard_link.png").hardlink_to(tmp_path / "a.png")
    words = [option.format(folder=tmp_path) for option in options]
    output = () if "--output" in words else ("--output", tmp_path / "out")
    assert message in upscale(*words, "--model", model, *output, runner=refusal)
    assert not (tmp_path / "out").exists()
