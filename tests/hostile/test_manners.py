"""prepare_dataset.py, convert_published.py and export.py where something is in their way.

Each meets a full disk, a folder that cannot be written, inputs of which none can be used, a start
that was killed, and an output below a file.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import convert_published
import export
import prepare_dataset
from common.errors import UserError
from common.exports import checks
from common.files import cannot_fill, filled_folder
from common.hub import load_model
from common.images.formats import read_rgb
from train_srcnn import SRCNN

NAMES = {"prepare": "--output_dir", "convert": "--output_dir", "export": "--output"}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The commands, without their outputs: the main function, and the words."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    shapes = {"conv1": (64, 1, 9, 9), "conv2": (32, 64, 1, 1), "conv3": (1, 32, 5, 5)}
    tensors = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    SRCNN(2).save_pretrained(tmp_path / "model")
    # What is written matters here, and not what is in it.
    monkeypatch.setattr(export, "to_onnx", lambda model: bytes(9000))
    monkeypatch.setattr(export, "OnnxNetwork", lambda file: None)
    monkeypatch.setattr(checks, "greatest_difference", lambda *words: 0.0)
    weights = (tmp_path / "weights.safetensors", "--architecture", "srcnn", "--scale", 2)
    return {
        "prepare": (prepare_dataset.main, [tmp_path / "photos", "--scales", "2"]),
        "convert": (convert_published.main, list(weights)),
        "export": (export.main, ["--model", tmp_path / "model"]),
    }


def refused(capsys, command, *words) -> str:
    """Message of a refusal, at most 400 characters, without a traceback."""
    main, base = command
    with pytest.raises(SystemExit) as end:
        main(list(map(str, [*base, *words])))
    message = f"{end.value}" if isinstance(end.value, UserError) else capsys.readouterr().err
    assert isinstance(end.value, UserError) or end.value.code == 2
    assert "Traceback" not in message
    return message


def files_below(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# ------------------------------------------------------------------------------------- no room


def full(*_args, **_options):
    raise OSError(28, "No space left on device")


WRITES = [
    ("prepare", pyarrow.parquet.ParquetWriter, "write_table"),
    ("prepare", pyarrow.parquet.ParquetWriter, "close"),
    ("prepare", Path, "write_text"),
    ("prepare", Path, "mkdir"),
    ("prepare", os, "replace"),
    ("convert", Path, "mkdir"),
    ("convert", os, "replace"),
    ("convert", os, "fsync"),
    ("export", Path, "mkdir"),
    ("export", os, "replace"),
]


@pytest.mark.parametrize(("name", "owner", "function"), WRITES)
def test_no_room(commands, name, owner, function, tmp_path, capsys, monkeypatch):
    output = tmp_path / "new" / "output"
    before = files_below(tmp_path)
    for module in (prepare_dataset, convert_published):  # the disk is found full later
        monkeypatch.setattr(module, "cannot_fill", lambda folder: "")
    monkeypatch.setattr(export, "cannot_write_any", lambda files, overwrite: "")
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, full)
        message = refused(capsys, commands[name], NAMES[name], output)
    assert f"{output}" in message
    assert ": No space left on device. Nothing of it is kept. Make room, or name another" in message
    assert files_below(tmp_path) == before
    # The message says that the same command can be given once more.
    main, base = commands[name]
    main(list(map(str, [*base, NAMES[name], output])))
    assert output.exists()


@pytest.mark.parametrize("name", NAMES)
def test_no_room_from_the_beginning(commands, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    monkeypatch.setattr(prepare_dataset, "rows", None)
    message = refused(capsys, commands[name], NAMES[name], tmp_path / "new" / "output")
    assert f"{NAMES[name]} {tmp_path}/new/output cannot be written: No space left on" in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_small_disk(commands, name, tmp_path, capsys):
    disk, waste = tmp_path / "disk", {"prepare": 4096, "convert": 12288, "export": 4096}
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        (disk / "mine").write_bytes(bytes(65536 - waste[name]))
        message = refused(capsys, commands[name], NAMES[name], disk / "output")
        assert "No space left on device. Nothing of it is kept." in message
        assert [path.name for path in disk.iterdir()] == ["mine"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# ----------------------------------------------------------------------------------- read-only


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written(commands, name, tmp_path, capsys, monkeypatch):
    def read_only(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    before = files_below(tmp_path)
    message = refused(capsys, commands[name], NAMES[name], tmp_path / "output")
    assert f"{tmp_path}/output cannot be written: Read-only file system; name another" in message
    assert files_below(tmp_path) == before


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def forbidden(folder):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", forbidden)
    assert cannot_fill(tmp_path) == (
        "cannot be read: Permission denied; name another, or see who may read it"
    )


# ------------------------------------------------------------------------------- nothing to use


def test_no_picture_is_left(tmp_path, capsys):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    Image.new("RGB", (3, 2)).save(folder / "small.png")
    (folder / "drawing.svg").touch()
    command = (prepare_dataset.main, [folder])
    message = refused(capsys, command, "--output_dir", tmp_path / "set")
    assert message == (
        f"None of 3 pictures in {folder} can be used, see above. Nothing is written."
    )
    output = capsys.readouterr().out
    assert "Left out 1 of 4: 1 .svg (save it as PNG).\n" in output
    assert "Left out small.png: it is smaller than 4 pixels.\n" in output
    assert "Left out empty.png: it is empty.\n" in output
    assert not (tmp_path / "set").exists()
    for path in folder.glob("*.png"):
        path.unlink()
    message = refused(capsys, command, "--output_dir", tmp_path / "set")
    assert f"There is no picture in {folder} or below. Known endings: .png .jpg " in message
    assert message.endswith("Left out 1 of 1: 1 .svg (save it as PNG).")


def test_no_tensor_and_no_model(commands, tmp_path, capsys):
    save_file({}, tmp_path / "weights.safetensors")
    message = refused(capsys, commands["convert"], "--output_dir", tmp_path / "new")
    assert message.endswith("weights.safetensors holds no tensor. Make it once more.")
    (tmp_path / "model" / "config.json").unlink()
    message = refused(capsys, commands["export"], "--output", tmp_path / "new.onnx")
    assert (
        "is no model: it has no config.json. config.json tells which network the weights are of."
        in message
    )
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.onnx").exists()


# -------------------------------------------------------------------------- killed and repeated


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("name", ["prepare", "convert"])
def test_what_a_killed_start_has_left(commands, name, tmp_path, capsys):
    main, base = commands[name]
    output, words = tmp_path / "output", [*base, "--output_dir", tmp_path / "output"]
    left = output / f".sr-{dead_process()}-0123456789abcdef.partial"
    left.mkdir(parents=True)
    (left / "train.parquet").write_text("half")
    main(list(map(str, words)))
    expected = f"Removed what a start that was killed had left in {output}.\n"
    assert capsys.readouterr().out.startswith(expected)
    names = {
        "prepare": {"README.md", "train.parquet"},
        "convert": {"README.md", "config.json", "model.safetensors"},
    }
    assert {path.name for path in output.iterdir()} == names[name]
    # What is whole is never mixed with something new.
    before = files_below(output)
    message = refused(capsys, commands[name], "--output_dir", output)
    assert f"{output} is not empty ({', '.join(sorted(names[name]))}); name another" in message
    assert files_below(output) == before


def test_what_a_killed_export_has_left(commands, tmp_path, capsys):
    main, base = commands["export"]
    left = tmp_path / f".sr-{dead_process()}-0123456789abcdef.partial"
    left.write_text("half")
    main(list(map(str, [*base, "--output", tmp_path / "a.onnx"])))
    assert not left.exists()
    message = refused(capsys, commands["export"], "--output", tmp_path / "a.onnx")
    assert "a.onnx exists already; name another, or add --overwrite" in message


def test_two_starts_do_not_disturb_each_other(tmp_path):
    with filled_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("mine")
        assert cannot_fill(tmp_path / "new") == (
            "is being written by another process; wait for it, or name another"
        )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
    (tmp_path / "new" / ".sr-mine.partial").touch()
    (tmp_path / "new" / "a").unlink()
    assert cannot_fill(tmp_path / "new").startswith("is not empty (.sr-mine.partial); name anothe")


def test_ctrl_c(commands, tmp_path, capsys, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_dataset, "imresize", interrupted)
    main, base = commands["prepare"]
    with pytest.raises(SystemExit) as end:
        main(list(map(str, [*base, "--output_dir", tmp_path / "set"])))
    assert end.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err.endswith(f"Stopped. Nothing is kept in {tmp_path}/set.\n")
    assert not (tmp_path / "set").exists()


# -------------------------------------------------------------------------------- below a file


@pytest.mark.parametrize("name", NAMES)
def test_an_output_below_a_file(commands, name, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    message = refused(capsys, commands[name], NAMES[name], file / "deep" / "output")
    assert f"is below {file}, which is no folder; name another" in message
    if name != "export":
        assert f"is below {file}" in refused(capsys, commands[name], NAMES[name], file)
    assert file.read_text() == "mine"


# ----------------------------------------------------------------------------- what all is for


def test_what_is_written(commands, tmp_path, capsys):
    for name in ("prepare", "convert"):
        main, base = commands[name]
        (tmp_path / name).mkdir()  # empty is as good as new
        main(list(map(str, [*base, "--output_dir", tmp_path / name])))
    assert load_model(tmp_path / "convert").scale == 2
    table = datasets.Dataset.from_parquet(str(tmp_path / "prepare" / "train.parquet"))
    assert isinstance(table.features["lr_x2"], datasets.Image)
    assert np.array_equal(np.asarray(table[2]["hr"]), read_rgb(tmp_path / "photos" / "2.png"))
