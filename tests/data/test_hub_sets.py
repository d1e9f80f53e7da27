"""Data sets of the Hub, in the layouts that super-resolution has there, by the real clients."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from common.data.cache import decode_pictures
from common.data.hub_sets import hub_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_tensor
from helpers.forked import run_forked
from helpers.hub_server import embedded
from running import metrics, refusal, run, train_from_hub


@pytest.mark.parametrize(
    ("options", "train_on", "validate_on"),
    [
        ((), 7, 1),
        pytest.param(("--dataset_name", "user/mixed"), 7, 1, marks=pytest.mark.slow),
        (("--dataset_name", "user/mixed", "--validation_split", "validation"), 8, 2),
        (
            (
                *("--dataset_name", "user/mixed", "--data_files", "*valid_HR.zip"),
                *("--validation_split", "some", "--validation_data_files", "*train_HR.zip"),
            ),
            *(2, 8),
        ),
        (("--dataset_name", "user/folder", "--validation_split", "validation"), 6, 2),
        (("--dataset_name", "user/folder", "--train_split", "validation"), 1, 1),
        pytest.param(
            ("--dataset_name", "user/folder", "--max_train_images", 3), 2, 1, marks=pytest.mark.slow
        ),
    ],
)
def test_layouts(options, train_on, validate_on, hub, tmp_path):
    process = train_from_hub(tmp_path / "run", *options)
    assert f"Pictures: {train_on} to train on" in process.stdout
    assert f"{validate_on} to validate on" in process.stdout
    assert hub.downloads("X2.zip") == 0


def test_a_stream_is_not_kept(hub, tmp_path):
    stream = "--streaming --validation_split validation --streaming_images 6 --patches_per_image 2"
    process = train_from_hub(tmp_path / "run", "--dataset_name", "user/mixed", *stream.split())
    assert "Pictures: a stream, 6 to train on at a time, 2 to validate on" in process.stdout
    assert {path for _, path, _ in hub.requests if "_LR_" in path} == set()
    assert hub.downloads(".zip") == 0
    assert not list(Path(os.environ["HF_HOME"]).rglob("stream-*"))
    options = ("--dataset_name", "user/mixed", "--streaming", "--max_train_images", 3)
    process = train_from_hub(tmp_path / "trial", *options)
    assert "Pictures: 2 to train on" in process.stdout
    assert "Task was destroyed" not in process.stderr


def test_private_pairs(hub, tmp_path):
    options = ("--dataset_name", "user/private-pairs", "--dataset_revision", "main")
    message = train_from_hub(tmp_path / "run", *options, runner=refusal)
    assert "There is no data set user/private-pairs" in message
    assert "or it is private. Check the name, or log in by `hf auth login`" in message
    process = train_from_hub(tmp_path / "run", *options, HF_TOKEN="hf_test")
    assert "Pictures: 7 to train on" in process.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--dataset_name", "user/script"),
            "user/script is a loading script, and `datasets` no lo",
        ),
        (("--dataset_name", "user/none"), "There is no data set user/none on http://127.0.0.1:"),
        (
            ("--dataset_name", "user/mixed", "--dataset_revision", "v9"),
            "There is no data set user/mixed at revision v9 on http",
        ),
        (
            ("--dataset_name", "user/mixed", "--data_files", "DIV2K*", "no*.zip"),
            "user/mixed has no file no*.zip. Its files: ",
        ),
        (
            ("--dataset_name", "user/mixed", "--train_data_dir", "pictures"),
            "--train_data_dir: not allowed with argument --dataset_name",
        ),
        (("--dataset_name", "user/folder", "--train_split", "test"), 'Unknown split "test"'),
        (("--dataset_name", "a/b/c"), "a/b/c is neither a folder nor a data set of the Hub"),
        (("--init_from", "user/none"), "There is no model user/none on http://127.0.0.1:"),
    ],
)
def test_what_cannot_be_had(options, message, hub, tmp_path):
    assert message in train_from_hub(tmp_path / "run", *options, runner=refusal)


def test_a_second_start_downloads_nothing(hub, tmp_path):
    train_from_hub(tmp_path / "first")
    assert hub.downloads("DIV2K_train_HR.zip") == 1
    hub.requests.clear()
    train_from_hub(tmp_path / "second")
    assert hub.downloads("DIV2K_train_HR.zip") == 0


def test_archives_of_hr_and_lr_without_a_network(hub, tmp_path):
    options = ("--dataset_name", "user/mixed")
    train_from_hub(tmp_path / "first", *options)
    hub.requests.clear()
    process = train_from_hub(tmp_path / "offline", *options, runner=run, HF_HUB_OFFLINE="1")
    assert "Pictures: 7 to train on" in process.stdout
    assert not hub.requests
    options = (*options, "--dataset_revision", "v9")
    run_no = partial(run, check=False)
    process = train_from_hub(tmp_path / "other", *options, runner=run_no, HF_HUB_OFFLINE="1")
    assert "user/mixed at revision v9 was not downloaded by an earlier start" in process.stderr


def test_two_processes_download_once(hub, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        folders = (tmp_path / "0", tmp_path / "1")
        list(pool.map(lambda folder: train_from_hub(folder, runner=run_forked), folders))
    assert hub.downloads("DIV2K_train_HR.zip") == 1
    assert metrics(tmp_path / "0") == metrics(tmp_path / "1")


def test_a_connection_that_breaks(hub, tmp_path):
    hub.cut["DIV2K_train_HR.zip"] = 1
    process = train_from_hub(tmp_path / "run")
    assert "Pictures: 7 to train on" in process.stdout
    assert hub.cut["DIV2K_train_HR.zip"] == 0


def test_no_hub_is_said_at_once():
    with pytest.raises(UserError, match="neither a folder nor a data set of the Hub"):
        hub_pictures("/data/my pics", [2])
    with pytest.raises(UserError) as error:
        hub_pictures("somebody/pictures", [2])
    message = str(error.value)
    assert "Cannot reach http://127.0.0.1:" in message
    assert " for the data set somebody/pictures (" in message
    assert "--train_data_dir FOLDER" in message
    assert "--dataset_name sample" in message


def save_dataset(folder: Path, **columns: list[Path]) -> None:
    """A data set of parquet, as it lies on the Hub."""
    files = {name: embedded(paths) for name, paths in columns.items()}
    files["label"] = [0] * len(next(iter(files.values())))
    table = datasets.Dataset.from_dict(files)
    for name in columns:
        table = table.cast_column(name, datasets.Image())
    folder.mkdir()
    table.to_parquet(folder / "train.parquet")


def test_dataset_with_one_column_of_pictures(pictures_dir, tmp_path):
    files = sorted(pictures_dir.glob("*.png"))
    save_dataset(tmp_path / "set", photo=files)
    for _ in range(2):
        sources, *_ = hub_pictures(str(tmp_path / "set"), [2])
        pictures, errors = decode_pictures(sources, [2])
        assert not errors
        assert pictures.names == [f"row {number} ({number}.png)" for number in range(8)]
        _, lr, hr = BenchmarkDataset(pictures, 2)[3]
        assert torch.equal(hr, to_tensor(read_rgb(files[3])))
        assert torch.equal(lr, imresize(hr, 0.5))


def test_dataset_of_pairs(pictures_dir, tmp_path):
    (tmp_path / "lr").mkdir()
    files = sorted(pictures_dir.glob("*.png"))
    for file in files:
        Image.new("RGB", (48, 40), "green").save(tmp_path / "lr" / file.name)
    save_dataset(tmp_path / "set", lr=sorted((tmp_path / "lr").iterdir()), hr=files)
    sources, identity, *_ = hub_pictures(str(tmp_path / "set"), [2])
    pictures, _ = decode_pictures(sources, [2], identity)
    _, lr, hr = BenchmarkDataset(pictures, 2)[7]
    assert torch.equal(hr, to_tensor(read_rgb(files[7])))
    assert lr[:, 0, 0].tolist() == [0, 128, 0]
    with pytest.raises(
        UserError, match=r"column lr of .* of one scale, not of \[2, 3\]. Name it with --scale"
    ):
        hub_pictures(str(tmp_path / "set"), [2, 3])


def test_empty_cell_is_left_out(pictures_dir, tmp_path):
    table = datasets.Dataset.from_dict({"image": [str(pictures_dir / "0.png"), None]})
    (tmp_path / "set").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "set" / "train.parquet")
    sources, identity, *_ = hub_pictures(str(tmp_path / "set"), [2])
    pictures, errors = decode_pictures(sources, [2], identity)
    assert pictures.names == ["row 0 (0.png)"]
    assert list(errors) == ["row 1 ()"]


def test_dataset_columns_must_be_clear(pictures_dir, tmp_path):
    files = sorted(pictures_dir.glob("*.png"))
    save_dataset(tmp_path / "set", left=files, right=files)
    name = str(tmp_path / "set")
    with pytest.raises(UserError, match=r"are \['left', 'right'\]. Name one with --image_column"):
        hub_pictures(name, [2])
    with pytest.raises(UserError, match="--image_column"):
        hub_pictures(name, [2], column="label")
    assert len(hub_pictures(name, [2], column="right")[0]) == 8
