"""Pictures are decoded once, and found again until they change."""

import shutil
from multiprocessing import get_context
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import common.data.cache
from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_tensor
from helpers.forked import PATIENCE
from helpers.pictures import write


def test_cache_holds_hr_and_matlabs_lr(pictures_dir):
    pictures, errors = decode_pictures(find_pictures(pictures_dir, [2]), [2, 3])
    assert not errors
    assert pictures.names == [f"{number}.png" for number in range(8)]
    assert pictures.sizes.tolist() == [[80, 96]] * 8
    for scale in (2, 3):
        _, lr, hr = BenchmarkDataset(pictures, scale)[5]
        original = to_tensor(read_rgb(pictures_dir / "5.png"))[:, : 80 // scale * scale]
        assert torch.equal(hr, original)
        assert torch.equal(lr, imresize(original, 1 / scale))


def test_second_start_decodes_nothing_until_a_file_changes(pictures_dir, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_dir, folder)
    decoded = []
    original = common.data.cache._decode_one
    monkeypatch.setattr(
        common.data.cache, "_decode_one", lambda *args: decoded.append(args[2]) or original(*args)
    )
    decode_pictures(find_pictures(folder, [2]), [2])
    assert sorted(decoded) == list(range(8))
    decode_pictures(find_pictures(folder, [2]), [2])
    assert len(decoded) == 8  # from the cache
    Image.new("RGB", (96, 80), "red").save(folder / "3.png")
    pictures, _ = decode_pictures(find_pictures(folder, [2]), [2])
    assert len(decoded) == 16
    assert pictures.hr(3)[0, 0].tobytes() == b"\xff\x00\x00"


def test_bad_files_are_named_also_from_the_cache(pictures_dir, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_dir, folder)
    Image.open(folder / "0.png").save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").touch()
    for _ in range(2):
        pictures, errors = decode_pictures(find_pictures(folder, [2]), [2])
        assert len(pictures) == 8
        assert set(errors) == {"cut.jpg", "text.png", "empty.png"}
        assert "truncated" in errors["cut.jpg"]
        assert errors["text.png"].startswith("it is no PNG, JPEG, ")


def test_lr_of_the_wrong_size_is_an_error(tmp_path):
    write(tmp_path / "hr/a.png", (24, 20))
    write(tmp_path / "lr/a.png", (12, 9))
    _, errors = decode_pictures(find_pictures(tmp_path, [2]), [2])
    assert errors == {"a.png": "its LR picture is 12x9, which is not 1/2 of 24x20"}


def _decode_and_count(folder: str, queue) -> None:
    original, count = common.data.cache._decode_one, 0

    def counting(*args):
        nonlocal count
        count += 1
        return original(*args)

    common.data.cache._decode_one = counting
    pictures, _ = decode_pictures(find_pictures(Path(folder), [2]), [2])
    queue.put((count, len(pictures)))


def test_processes_that_start_together_decode_once(pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "pictures")
    context = get_context("forkserver")
    queue = context.Queue()
    workers = [
        context.Process(target=_decode_and_count, args=(str(tmp_path / "pictures"), queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    results = sorted(queue.get(timeout=PATIENCE) for _ in workers)
    for worker in workers:
        worker.join()
    assert results == [(0, 8), (8, 8)]


def test_unwritable_cache_is_said(pictures_dir, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    with pytest.raises(UserError, match="Set HF_DATASETS_CACHE to a folder with room"):
        decode_pictures(find_pictures(pictures_dir, [2]), [4])


def test_a_decoder_that_was_installed_is_tried(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x10ftypheic\0\0\0\0")
    monkeypatch.setattr("common.images.formats.UNREAD", {".heic": "install pillow-heif"})
    sources = find_pictures(tmp_path, [2])
    _, errors = decode_pictures(sources, [2])
    assert errors == {"a.jpg": "it is HEIC: install pillow-heif, or save it as PNG"}
    monkeypatch.setattr("common.data.cache.DECODED", ["PNG", "HEIF"])
    monkeypatch.setattr("common.data.cache.read_rgb", lambda file: np.zeros((4, 4, 3), np.uint8))
    pictures, errors = decode_pictures(sources, [2])
    assert (pictures.names, errors) == (["a.jpg"], {})
