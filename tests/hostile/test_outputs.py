"""Nothing of the user's is overwritten or deleted, and what cannot be written is said before."""

import json
import os
import subprocess
import sys
from unittest import mock

import pytest
from PIL import Image

import convert_published
import evaluate
import export
import prepare_dataset
import upscale
from common.errors import UserError
from common.evaluation import find_results, picture_keys
from common.files import (
    cannot_fill,
    cannot_make,
    cannot_write,
    cannot_write_any,
    delete_leftovers,
    filled_folder,
    replace_file,
)
from common.training.folder import choose_checkpoint
from train_srcnn import SRCNN


def dead_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# ------------------------------------------------------------------------------- temporary files


def test_a_file_is_replaced_through_no_link_and_no_name_of_the_users(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.partial").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()
    for name in ("precious", "a.partial"):
        assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_long_name_is_no_hindrance(tmp_path):
    replace_file(tmp_path / ("x" * 250), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 250]


def test_nothing_is_left_when_a_file_cannot_be_written(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "a", b"new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_system_that_cannot_flush_is_no_full_disk(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_only_what_a_killed_process_of_ours_has_left_is_deleted(tmp_path):
    end = "0123456789abcdef.partial"
    ours = tmp_path / f".sr-{dead_process()}-{end}"
    others = [f".sr-{os.getppid()}-{end}", f".sr-x-{end}", "thesis.partial", ".sr-1.partial"]
    for path in (ours, *(tmp_path / name for name in others)):
        path.write_text("half")
    delete_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_container_that_starts_again_has_the_number_of_the_killed_one(tmp_path):
    left = tmp_path / f".sr-{os.getpid()}-0123456789abcdef.partial"
    left.mkdir()
    assert cannot_fill(tmp_path) == ""
    with filled_folder(tmp_path) as temporary:
        assert not left.exists()
        assert cannot_fill(tmp_path).startswith("is being written by another process")
        assert delete_leftovers(tmp_path) == 0
        (temporary / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_resume_deletes_checkpoints_of_ours_alone(tmp_path):
    for name in ("checkpoint-7.partial", "thesis.partial", "checkpoint-of-mine.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.partial").write_text("mine")
    _, notes = choose_checkpoint(tmp_path, "latest")
    assert notes == ["Passed over checkpoint-7.partial, which is not whole, and removed it."]
    assert {path.name for path in tmp_path.iterdir()} == {
        "thesis.partial",
        "checkpoint-of-mine.partial",
        "notes.partial",
    }


# ------------------------------------------------------------------------------------- one rule


def test_the_rule(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to("nowhere")
    assert cannot_write(tmp_path, False) == "is a folder; name a file"
    for name in ("file", "broken"):
        reason = cannot_write(tmp_path / name, False)
        assert reason == "exists already; name another, or add --overwrite"
        assert cannot_write(tmp_path / name, True) == ""
    below = cannot_write(tmp_path / "file" / "a" / "b.json", False)
    assert below == f"is below {tmp_path / 'file'}, which is no folder; name another"
    assert cannot_make(tmp_path / "new" / "folder") == ""
    assert {path.name for path in tmp_path.iterdir()} == {"file", "broken"}  # nothing was made

    many = [tmp_path / f"{number % 2}" / f"{number}.png" for number in range(9)]
    with mock.patch("common.files.cannot_make", return_value="") as trial:
        assert cannot_write_any(many, False) == ""
    assert trial.call_args_list == [mock.call(tmp_path / "0"), mock.call(tmp_path / "1")]
    reason = cannot_write_any([*many, tmp_path / "file"], False)
    assert reason == f"{tmp_path / 'file'} exists already; name another, or add --overwrite"
    assert cannot_write_any([tmp_path], True) == f"{tmp_path} is a folder; name a file"

    def refuse(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert cannot_make(tmp_path / "new").startswith("cannot be written: Read-only file system; n")
    assert cannot_write_any(many, False).startswith(f"{tmp_path / '0' / '8.png'} cannot be writ")


@pytest.fixture
def model(tmp_path):
    SRCNN(2).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def benchmark(tmp_path):
    """A benchmark with a.png and a.jpg, two pictures of one stem."""
    folder = tmp_path / "benchmarks" / "Set" / "HR"
    folder.mkdir(parents=True)
    for name, color in (("a.png", "red"), ("a.jpg", "blue"), ("b.png", "green")):
        Image.new("RGB", (24, 24), color).save(folder / name)
    return ["--benchmark_dir", tmp_path / "benchmarks", "--benchmarks", "Set"]


def refused(capsys, main, *words) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    if isinstance(end.value, UserError):
        return f"{end.value}"
    assert end.value.code == 2
    return capsys.readouterr().err


def test_evaluation_overwrites_nothing(model, benchmark, tmp_path, capsys, monkeypatch):
    config, hr = model / "config.json", tmp_path / "benchmarks" / "Set" / "HR" / "a.png"
    (tmp_path / "sr" / "Set").mkdir(parents=True)
    (tmp_path / "sr" / "Set" / "b.png").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(evaluate, "evaluate", None)  # all is said before the work
    base = ("--model", model, *benchmark)
    for options, message in (
        (("--output", config), f"--output {config} exists already"),
        (("--comparison", hr), f"--comparison {hr} exists already"),
        (("--save_images", tmp_path / "sr"), "b.png exists already; name another, or add --overw"),
        (("--save_images", hr), f"--save_images {hr} is below {hr}, which is no folder"),
        (("--output", hr / "x.json"), f"is below {hr}, which is no folder"),
    ):
        assert message in refused(capsys, evaluate.main, *base, *options)
    message = refused(capsys, evaluate.main, *base[:-1], "../../etc")
    assert "--benchmarks ../../etc is no plain name" in message
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_pictures_of_one_stem_stay_two(model, benchmark, tmp_path, capsys):
    options = ["--save_images", tmp_path / "sr", "--output", tmp_path / "report.json"]
    for again in ([], ["--overwrite"]):
        evaluate.main(["--model", model, *benchmark, *options, *again])
    images = json.loads((tmp_path / "report.json").read_text())["benchmarks"]["Set"]["images"]
    assert list(images) == ["a.jpg", "a.png", "b"]
    written = {path.name for path in (tmp_path / "sr" / "Set").iterdir()}
    assert written == {"a.jpg.png", "a.png.png", "b.png"}
    # These are the pictures that --sr_dir finds again.
    again = ["--sr_dir", tmp_path / "sr", "--scale", 2, *benchmark]
    evaluate.main([*again, "--output", tmp_path / "again.json"])
    found = json.loads((tmp_path / "again.json").read_text())["benchmarks"]["Set"]["images"]
    assert {k: v["psnr_y"] for k, v in found.items()} == {k: v["psnr_y"] for k, v in images.items()}


def test_other_commands_say_it_before(model, tmp_path, capsys, monkeypatch):
    file = tmp_path / "file"
    file.write_text("mine")
    monkeypatch.setattr(export, "to_onnx", None)
    message = refused(capsys, export.main, "--model", model, "--output", file / "x.onnx")
    assert f"is below {file}, which is no folder" in message
    weights = model / "model.safetensors"
    words = (weights, "--architecture", "srcnn", "--scale", 2, "--output_dir", file / "x")
    assert f"is below {file}" in refused(capsys, convert_published.main, *words)
    words = (tmp_path, "--output_dir", file / "x")
    assert f"is below {file}" in refused(capsys, prepare_dataset.main, *words)
    words = (tmp_path, "--model", model, "--output", file)
    assert f"--output {file} is below {file}" in refused(capsys, upscale.main, *words)
    assert file.read_text() == "mine"


# ------------------------------------------------------------------------------ whose pictures


def test_keys_of_pictures():
    assert picture_keys(["a.png", "b/a.png", "b/c.jpg", "b/c.png"]) == [
        "a",
        "b/a",
        "b/c.jpg",
        "b/c.png",
    ]


def test_names_that_programs_give_their_results(tmp_path):
    def files(*names):
        for path in list(tmp_path.iterdir()):
            path.unlink()
        for name in names:
            (tmp_path / name).touch()

    for name in ("baby.png", "babyx2.png", "baby_x2.png", "baby_SRCNN.png", "baby-out.jpg"):
        files(name, "bird.png", "babyface.png")
        found = find_results(tmp_path, ["baby", "bird"], 2)
        assert [path.name for path in found] == [name, "bird.png"]
    files("img_001.png", "img_001_2.png")  # the other is a picture of its own
    found = find_results(tmp_path, ["img_001", "img_001_2"], 2)
    assert [path.name for path in found] == ["img_001.png", "img_001_2.png"]
    files("baby_one.png", "baby_two.png")
    with pytest.raises(UserError, match=r"baby_one.png and .*baby_two.png for baby. Which is to"):
        find_results(tmp_path, ["baby"], 2)
    files("baby_x3.png")
    assert find_results(tmp_path, ["baby"], 2)[0].name == "baby_x3.png"  # its size will tell
    files("bird.png")
    with pytest.raises(UserError, match=r"There is no baby.png or babyx2.png in "):
        find_results(tmp_path, ["baby"], 2)
