"""Every command reads the same, names what it cannot read, and goes on with the others."""

import io
import os
import shutil
from unittest import mock

import numpy as np
import pytest
import tifffile
from PIL import Image

from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.layouts import describe_kinds
from common.images.formats import read_picture, read_rgb
from running import SMALL, refusal, run_here
from train_srcnn import SRCNN

LEFT_OUT = "Left out 4 of 7: 2 .nef (develop it to TIFF), 2 .svg (save it as PNG). "
NO_JP2 = {key: {"no_jp2": True} for key in ("j2k", "j2c", "jpc")}  # without the boxes of a file
FRAMES = "Of 1 GIF the first frame is read."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    SRCNN(2).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(pictures_dir, tmp_path):
    """Three pictures, and four of kinds that cannot be read."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    shutil.copy(pictures_dir / "0.png", folder)
    with Image.open(pictures_dir / "1.png") as image:
        image.save(folder / "1.JFIF", "JPEG")
        frames = [image.convert("P"), image.rotate(90).convert("P")]
    frames[0].save(folder / "2.gif", save_all=True, append_images=frames[1:])
    for name in ("a.svg", "below/b.SVG", "c.nef", "d.NEF", "notes.txt", "._a.svg"):
        (folder / name).write_text("whatever")
    return folder


def test_what_is_left_out_of_a_folder(folder):
    walks = mock.Mock(wraps=os.walk)
    with mock.patch("os.walk", walks):
        assert describe_kinds(folder) == LEFT_OUT + FRAMES
    assert walks.call_count == 1  # a large folder on a network takes minutes
    assert describe_kinds(folder / "below") == "Left out 1 of 1: 1 .svg (save it as PNG)."
    for path in folder.rglob("*.*"):
        if path.suffix.lower() in (".svg", ".nef", ".gif"):
            path.unlink()
    assert describe_kinds(folder) == ""


@pytest.mark.parametrize("ending", ["ppm", "pgm", "pbm", "PNM", "jp2", "j2k", "j2c", "jpc"])
def test_what_can_be_read_is_found(ending, pictures_dir, tmp_path):
    with Image.open(pictures_dir / "0.png") as image:
        kind = {"p": "PPM", "P": "PPM", "j": "JPEG2000"}[ending[0]]
        mode = {"pgm": "L", "pbm": "1"}.get(ending, "RGB")
        image.convert(mode).save(tmp_path / f"a.{ending}", kind, **NO_JP2.get(ending, {}))
    pictures, errors = decode_pictures(find_pictures(tmp_path, [2]), [2])
    assert (pictures.names, errors, describe_kinds(tmp_path)) == ([f"a.{ending}"], {}, "")


def test_training_says_it(folder, tmp_path):
    options = ("--train_data_dir", folder, "--output_dir", tmp_path / "run")
    process = run_here("train_srcnn.py", *SMALL, *options, "--max_train_steps", 1)
    assert f"{folder}: {LEFT_OUT}{FRAMES}\n" in process.stdout
    (folder / "val").mkdir()
    (folder / "val" / "a.heif.svg").touch()
    options = (
        *options[:2],
        "--validation_data_dir",
        folder / "val",
        "--output_dir",
        tmp_path / "b",
    )
    message = refusal("train_srcnn.py", *SMALL, *options)
    assert "Left out 1 of 1: 1 .svg (save it as PNG)." in message


def test_evaluation_says_it(folder, tmp_path):
    benchmark = tmp_path / "benchmarks" / "Set" / "HR"
    benchmark.parent.mkdir(parents=True)
    folder.rename(benchmark)
    base = ("--scale", 2, "--benchmark_dir", tmp_path / "benchmarks", "--benchmarks", "Set")
    process = run_here("evaluate.py", "--model", "bicubic", *base)
    assert process.stdout.startswith(f"{benchmark.parent}: {LEFT_OUT}{FRAMES}\n\n")
    results = tmp_path / "results"
    results.mkdir()
    for name in ("0.svg", "1.psd", "2.jxl"):
        (results / name).touch()
    end = run_here("evaluate.py", "--sr_dir", results, *base, check=False)
    assert f"{results}: Left out 3 of 3: 1 .jxl (save it as PNG), 1 .psd (save" in end.stdout
    assert "There is no 0.png or 0x2.png in " in end.returncode
    (results / "0.png").write_bytes((benchmark / "0.png").read_bytes().replace(b"IDAT", b"I\xffAT"))
    for name in ("1.png", "2.png"):
        shutil.copy(benchmark / "0.png", results / name)
    end = run_here("evaluate.py", "--sr_dir", results, *base, check=False)
    assert end.returncode.startswith(f"Cannot read {results}/0.png: it is ")
    assert "damaged" in end.returncode


def test_upscale_says_it(folder, model, tmp_path):
    base = ("--model", model, "--output", tmp_path / "out")
    process = run_here("upscale.py", folder, *base)
    assert "Enlarged 3 of 3 pictures, in" in process.stdout
    assert f"{folder}: {LEFT_OUT}{FRAMES}\n" in process.stdout
    assert f"{folder}/2.gif: the first of its 2 frames is enlarged.\n" in process.stdout
    # JPEG by another name is written as JPEG, what is not written as PNG.
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0_x2.png", "1_x2.jpg", "2_x2.png"}
    # A file that is named by itself is refused by itself.
    message = refusal("upscale.py", folder / "c.nef", folder / "0.png", *base, "--overwrite")
    assert "Could not enlarge 1 of 2 pictures:\n" in message
    assert f"  {folder}/c.nef: .nef is not read; develop it to TIFF" in message
    message = refusal("upscale.py", folder / "below", *base)
    assert "There is no picture in " in message
    assert "Left out 1 of 1: 1 .svg (save it as PNG)." in message


def test_prepare_says_it(folder, tmp_path):
    options = ("--output_dir", tmp_path / "set", "--scales", 2)
    process = run_here("prepare_dataset.py", folder, *options)
    assert process.stdout.startswith(f"{LEFT_OUT}{FRAMES}\n")
    assert "2.gif: the first of its 2 frames is taken.\n" in process.stdout
    assert "3 rows are in" in process.stdout


# ------------------------------------------------------------- what was read in two ways before


def test_all_commands_see_the_same_pixels(tmp_path):
    """A planar TIFF was garbage in training, a WhiteIsZero one its own negative."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 65536, (24, 20, 3), np.uint16)
    planes = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(folder / "planar.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(folder / "white.tif", 65535 - pixels[..., 0], photometric="miniswhite")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x28\x01\x04\0\x01\0\0\0\x70\x11\x01\0\0\0\0\0"
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(folder / "exif.jpg", exif=exif)
    pictures, errors = decode_pictures(find_pictures(folder, [2]), [2])
    assert not errors
    run_here("prepare_dataset.py", folder, "--output_dir", tmp_path / "set", "--scales", 2)
    prepared = rows_of(tmp_path / "set" / "train.parquet")
    for number, name in enumerate(("exif.jpg", "planar.tif", "white.tif")):
        found = read_picture(folder / name)
        rgb = read_rgb(folder / name)
        assert pictures.names[number] == name
        assert pictures.hr(number).tobytes() == rgb.tobytes() == prepared[number].tobytes()
        if found.pixels.dtype == np.uint16:
            expected = pixels if name == "planar.tif" else pixels[..., :1]
            assert np.array_equal(found.pixels, expected)
            assert np.array_equal(rgb, np.broadcast_to((expected / 257).round(), rgb.shape))


def rows_of(file) -> list[np.ndarray]:
    """HR pictures of a prepared data set, by Pillow."""
    import pyarrow.parquet

    cells = pyarrow.parquet.read_table(file)["hr"].to_pylist()
    return [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in cells]


# ------------------------------------------------------- a picture's failure is that picture's


def test_a_name_that_is_too_long(pictures_dir, model, tmp_path):
    long = "x" * 248 + ".png"  # 252 bytes; with _x2 there are 255
    for name in ("a.png", long, "y" + long):
        shutil.copy(pictures_dir / "0.png", tmp_path / name)
    base = (tmp_path, "--model", model, "--output", tmp_path / "out")
    message = refusal("upscale.py", *base)
    assert f"Could not enlarge 1 of 3 pictures:\n  {tmp_path}/y{long}: the name of its " in message
    assert message.endswith("the name of its result would be too long; rename it")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a_x2.png",
        f"{long[:-4]}_x2.png",
    }
    # The strips have longer names still.
    message = refusal("upscale.py", *base, "--comparison")
    assert "Could not enlarge 2 of 3 pictures" in message
    assert (tmp_path / "out" / "a_x2.png_comparison.png").is_file()


def test_a_disk_with_shorter_names(pictures_dir, model, tmp_path, monkeypatch):
    for name in ("a.png", "long-name.png"):
        shutil.copy(pictures_dir / "0.png", tmp_path / name)
    import os

    replace = os.replace

    def short_names(source, target):
        if "long-name" in str(target):
            raise OSError(36, "File name too long", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", short_names)
    message = refusal("upscale.py", tmp_path, "--model", model, "--output", tmp_path / "out")
    assert "Could not enlarge 1 of 2 pictures:\n" in message
    assert "File name too long" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_x2.png"]


def test_pictures_of_one_stem_are_named_apart(pictures_dir, model, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "in")
    for name in ("0.jpg", "0.tiff"):
        Image.open(tmp_path / "in" / "0.png").save(tmp_path / "in" / name)
    base = ("--model", model, "--output", tmp_path / "out")
    process = run_here("upscale.py", tmp_path / "in", *base, "--format", "png")
    assert "Enlarged 10 of 10 pictures" in process.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0.jpg_x2.png", "0.png_x2.png", "0.tiff_x2.png"} | {
        f"{number}_x2.png" for number in range(1, 8)
    }
    # In their own formats they are apart anyway.
    run_here("upscale.py", tmp_path / "in", "--model", model, "--output", tmp_path / "own")
    assert {path.name for path in (tmp_path / "own").glob("0*")} == {
        *("0_x2.jpg", "0_x2.png", "0_x2.tiff")
    }


def test_two_of_one_name_are_refused_and_the_others_done(pictures_dir, model, tmp_path):
    for folder, names in (("one", ("a", "b")), ("two", ("a", "c"))):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(pictures_dir / "0.png", tmp_path / folder / f"{name}.png")
    folders = (tmp_path / "one", tmp_path / "two")
    message = refusal("upscale.py", *folders, "--model", model, "--output", tmp_path / "out")
    assert "Could not enlarge 2 of 4 pictures:\n" in message
    for mine, other in (("one", "two"), ("two", "one")):
        assert (
            f"  {tmp_path}/{mine}/a.png: it and {tmp_path}/{other}/a.png would both become "
            f"{tmp_path}/out/a_x2.png; enlarge it alone"
        ) in message
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_x2.png", "c_x2.png"}


def test_a_result_that_is_an_input(pictures_dir, model, tmp_path):
    for name in ("a.png", "a_x2.png", "b.png"):
        shutil.copy(pictures_dir / "0.png", tmp_path / name)
    words = ("--model", model, "--output", tmp_path, "--overwrite")
    before = (tmp_path / "a_x2.png").read_bytes()
    names = [tmp_path / name for name in ("a.png", "a_x2.png", "b.png")]
    message = refusal("upscale.py", *names, *words)
    assert f"{tmp_path}/a.png: it would become {tmp_path}/a_x2.png, which is an inp" in message
    assert "Could not enlarge 1 of 2 pictures" in message
    assert (tmp_path / "a_x2.png").read_bytes() == before
    assert (tmp_path / "b_x2.png").is_file()


def test_too_many_pixels(model, pictures_dir, tmp_path):
    shutil.copy(pictures_dir / "0.png", tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    base = (tmp_path, "--model", model, "--output", tmp_path / "out", "--max_megapixels", 0.001)
    message = refusal("upscale.py", *base)
    assert "a.png: it is 96x80, 0 megapixels, and at most 0.001 are read; see --max_mega" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b_x2.png"]
