"""Files in a folder of pictures that are no pictures, or no files."""

import os
import socket

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

import prepare_dataset
import train_srcnn
import upscale
from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.errors import UserError
from common.images.formats import Picture, read_picture, read_rgb
from common.images.writing import write_picture
from train_srcnn import SRCNN


@pytest.fixture
def folder(tmp_path):
    """A picture among a FIFO, a socket, a link in a circle and odd names and contents."""
    folder = tmp_path / "pictures"
    (folder / "folder.png").mkdir(parents=True)
    Image.new("RGB", (24, 24), "red").save(folder / "good.png")
    os.mkfifo(folder / "fifo.png")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{folder}/socket.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "null.png").symlink_to("/dev/null")
    Image.new("RGB", (24, 24)).save(os.fsencode(folder) + b"/\xff.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "chunk.png").write_bytes(whole.replace(b"IDAT", b"IxAT"))
    # A header that says 60,000 x 60,000 pixels.
    bomb = whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:]
    (folder / "bomb.png").write_bytes(bomb)
    return folder


BAD = {"fifo.png", "socket.png", "circle.png", "null.png", "chunk.png", "bomb.png"}


def test_training_names_them(folder):
    pictures, errors = decode_pictures(find_pictures(folder, [2]), [2])
    assert set(pictures.names) == {"good.png", "\\udcff.png"}
    assert set(errors) == BAD
    for name in ("fifo.png", "socket.png", "null.png"):
        assert errors[name] == "it is no file of bytes, but a folder, FIFO, device or socket"


def test_upscale_names_them(folder, tmp_path, capsys):
    SRCNN(2).save_pretrained(tmp_path / "model")
    words = [folder, "--model", tmp_path / "model", "--output", tmp_path / "out"]
    with pytest.raises(UserError) as error:
        upscale.main(words)
    assert all(f"{folder}/{name}: " in f"{error.value}" for name in BAD)
    assert (tmp_path / "out" / "good_x2.png").is_file()


def test_prepare_dataset_names_them(folder, tmp_path, capsys):
    prepare_dataset.main([folder, "--output_dir", tmp_path / "set", "--scales", "2"])
    captured = capsys.readouterr()
    for name in BAD:
        assert f"Left out {name}: " in captured.out + captured.err
    assert "2 rows are in" in captured.out


# ------------------------------------------------------------------------------- what is written


def red_edges() -> np.ndarray:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2, 0] = 255
    return pixels


def test_a_jpeg_has_the_colors_of_its_input(tmp_path):
    pixels, errors = red_edges(), {}
    for name, quality in (("fine.jpg", 95), ("small.jpg", 80)):
        write_picture(Picture(pixels), tmp_path / name, quality)
        found = read_rgb(tmp_path / name).astype(float)
        errors[name] = np.square(found - pixels).mean()
    assert errors["fine.jpg"] < 10 < 1000 < errors["small.jpg"]
    for sampling in (0, 1, 2):
        Image.fromarray(pixels).save(tmp_path / "in.jpg", subsampling=sampling)
        write_picture(read_picture(tmp_path / "in.jpg"), tmp_path / "out.jpg")
        with Image.open(tmp_path / "out.jpg") as image:
            assert JpegImagePlugin.get_sampling(image) == sampling


def test_a_gray_profile_is_not_put_into_a_webp_of_rgb(tmp_path):
    profile = bytes(16) + b"GRAY"
    gray = Picture(np.zeros((8, 8, 1), np.uint8), icc_profile=profile)
    write_picture(gray, tmp_path / "a.webp")
    assert read_picture(tmp_path / "a.webp").icc_profile is None
    write_picture(gray, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").icc_profile == profile


# --------------------------------------------------------------------- options that do nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--train_data_dir", "x", "--image_column", "y"), "--image_column chooses in a data set"),
        (("--dataset_name", "sample", "--data_files", "y"), "--data_files chooses in a data set"),
        (("--train_data_dir", "x", "--train_split", "y"), "--train_split chooses in a data set"),
        (
            ("--dataset_name", ".", "--dataset_revision", "y"),
            "--dataset_revision is for the Hub",
        ),
        (("--revision", "y"), "--revision belongs to --init_from. Leave it out, or add that."),
        (("--hub_model_id", "y"), "--hub_model_id belongs to --push_to_hub."),
        (("--hub_private",), "--hub_private belongs to --push_to_hub."),
        (("--streaming_images", "9"), "--streaming_images belongs to --streaming."),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options, message, capsys):
    with pytest.raises(SystemExit) as end:
        train_srcnn.parse_args(options)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
