"""Rows of a data set that name files which are none of its business."""

import zipfile

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
from PIL import Image

import common.data.cache
from common.data.cache import decode_pictures, is_inside
from common.data.hub_sets import hub_pictures


@pytest.fixture
def data_set(tmp_path):
    """A folder with a parquet file, of which the rows name pictures in it and elsewhere."""
    folder, elsewhere = tmp_path / "set", tmp_path / "private"
    folder.mkdir()
    elsewhere.mkdir()
    picture = Image.new("RGB", (24, 24), "red")
    for path in (folder / "own.png", elsewhere / "secret.png"):
        picture.save(path)
    for place in (folder, elsewhere):
        with zipfile.ZipFile(place / "a.zip", "w") as archive:
            archive.write(folder / "own.png", "in.png")
    (folder / "link.png").symlink_to(elsewhere / "secret.png")
    paths = {
        "own": f"{folder}/own.png",
        "member": f"zip://in.png::{folder}/a.zip",
        "absolute": f"{elsewhere}/secret.png",
        "parent": f"{folder}/../private/secret.png",
        "relative": "../private/secret.png",
        "link": f"{folder}/link.png",
        "protocol": f"file://{elsewhere}/secret.png",
        "web": "http://127.0.0.1:9/secret.png",
        "memory": "memory://secret.png",
        "other": "hf://datasets/somebody/private@main/secret.png",
        "archive": f"zip://in.png::{elsewhere}/a.zip",
        "chain": f"file://{elsewhere}/secret.png::{folder}/a.zip",
        "cached": f"simplecache::{elsewhere}/secret.png",
    }
    rows = [{"bytes": None, "path": path} for path in paths.values()]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    table = datasets.Dataset.from_dict({"image": rows}, features=features)
    pq.write_table(table.data.table, folder / "train.parquet")  # `to_parquet` would read the files
    return folder, paths


def test_only_the_files_of_the_data_set_are_opened(data_set, monkeypatch):
    folder, paths = data_set
    opened = []

    def watch(module, name):
        original = getattr(module, name)

        def watched(path, *args, **kwargs):
            if isinstance(path, str):  # no bytes that were read before
                opened.append(path)
            return original(path, *args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    watch(fsspec, "open")
    watch(common.data.cache, "read_rgb")
    monkeypatch.chdir(folder)
    found = hub_pictures(str(folder), [2], data_files=["train.parquet"])
    pictures, errors = decode_pictures(found.sources, [2], found.identity, roots=found.roots)
    assert len(pictures) == 2
    # (To open a member, fsspec opens its archive.)
    assert set(opened) == {paths["own"], paths["member"], f"{folder}/a.zip"}
    outside = [path for name, path in paths.items() if name not in ("own", "member")]
    assert list(errors.values()) == [f"{path} points outside of the data set" for path in outside]


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("hf://datasets/user/name@abc/a/b.png", True),
        ("zip://b.png::hf://datasets/user/name@abc/a.zip", True),
        ("hf://datasets/user/name@abc/../other@abc/b.png", False),
        ("hf://datasets/user/name@main/b.png", False),
        ("hf://datasets/user/name2@abc/b.png", False),
        ("hf://datasets/user/name@abc2/b.png", False),
        ("HF://datasets/user/name@abc/b.png", False),
        ("", False),
    ],
)
def test_addresses_on_the_hub(path, inside):
    assert is_inside(path, ["hf://datasets/user/name@abc/", "/nowhere"]) == inside


def test_a_folder_whose_name_begins_the_same_is_another(tmp_path):
    assert is_inside(f"{tmp_path}/set/a.png", [f"{tmp_path}/set"])
    assert not is_inside(f"{tmp_path}/set2/a.png", [f"{tmp_path}/set"])
