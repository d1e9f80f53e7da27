"""From the Hub and to the Hub, with the real clients, against a Hub on the loopback device."""

import io
import os
import shutil
import socket
import subprocess
import tarfile
import time
import zipfile
from functools import partial
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from common.data.benchmarks import hub_benchmark
from common.data.hub_sets import hub_pictures
from common.errors import UserError
from common.hub import load_model
from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_tensor
from helpers.forked import PATIENCE
from helpers.hub_server import HubServer
from running import SMALL, environment, metrics, python, refusal, run, run_here

SCRIPT = "train_a2n.py"


def write_zip(path: Path, files: list[Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, f"{path.stem}/{file.name}")


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def repositories(pictures_dir, tmp_path_factory):
    """Data sets in all the layouts that super-resolution has on the Hub."""
    root = tmp_path_factory.mktemp("hub")
    sets = root / "datasets"
    files = sorted(pictures_dir.glob("*.png"))
    small = []
    for file in files:
        small.append(tmp_path_factory.mktemp("lr") / file.name)
        Image.open(file).resize((48, 40)).save(small[-1])
    # As yangtao9009/DIV2K: the default.
    write_zip(sets / "yangtao9009" / "DIV2K" / "DIV2K_train_HR.zip", files)
    # As goodfellowliu/DIV2K.
    for name, pictures in (
        *(("train_HR", files), ("train_LR_bicubic_X2", small)),
        *(("valid_HR", files[:2]), ("valid_LR_bicubic_X2", small[:2])),
    ):
        write_zip(sets / "user" / "mixed" / f"DIV2K_{name}.zip", pictures)
    for split, pictures in (("train", files[:6]), ("validation", files[6:])):
        (sets / "user" / "folder" / split).mkdir(parents=True)
        for picture in pictures:
            shutil.copy(picture, sets / "user" / "folder" / split)
    table = datasets.Dataset.from_dict(
        {"hr": list(map(str, files)), "lr": list(map(str, small)), "label": [0] * len(files)}
    )
    for column in ("hr", "lr"):
        table = table.cast_column(column, datasets.Image())
    (sets / "user" / "private-pairs").mkdir()
    table.to_parquet(sets / "user" / "private-pairs" / "train.parquet")
    (sets / "user" / "script").mkdir()
    (sets / "user" / "script" / "script.py").write_text("raise SystemExit('run')")
    for name, number in (("Set5", 5), ("Set14", 14)):
        content = {f"{name}_HR/{n}.png": files[n % 8].read_bytes() for n in range(number)}
        write_tar(sets / "eugenesiow" / name / "data" / f"{name}_HR.tar.gz", content)
    few = {"BSD100_HR/1.png": files[0].read_bytes()}
    write_tar(sets / "eugenesiow" / "BSD100" / "data" / "BSD100_HR.tar.gz", few)
    evil = {"../../evil.png": files[0].read_bytes()}
    write_tar(sets / "eugenesiow" / "Urban100" / "data" / "Urban100_HR.tar.gz", evil)
    (root / "models").mkdir()
    return root


@pytest.fixture
def empty_cache():
    """Nothing was downloaded before."""
    home = Path(os.environ["HF_HOME"])
    for folder in (home / "hub", home / "assets", home / "datasets"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hub(repositories, empty_cache):
    """The Hub, as it is met for the first time."""
    with HubServer(repositories, os.environ["HF_ENDPOINT"]) as hub:
        yield hub


def downloads(hub: HubServer, name: str) -> int:
    """How many times all of a file was asked for. (`datasets` also looks at the list of a zip.)"""
    return sum(
        (kind, part) == ("GET", None) and path.endswith(name) for kind, path, part in hub.requests
    )


def train(output_dir, *options, runner=run_here, **variables):
    base = (SCRIPT, *SMALL, "--max_train_steps", 2, "--output_dir", output_dir)
    return runner(*base, *options, **variables)


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
    process = train(tmp_path / "run", *options)
    assert f"Pictures: {train_on} to train on" in process.stdout
    assert f"{validate_on} to validate on" in process.stdout
    assert downloads(hub, "X2.zip") == 0


def test_a_stream_is_not_kept(hub, tmp_path):
    stream = "--streaming --validation_split validation --streaming_images 6 --patches_per_image 2"
    process = train(tmp_path / "run", "--dataset_name", "user/mixed", *stream.split())
    assert "Pictures: a stream, 6 to train on at a time, 2 to validate on" in process.stdout
    assert {path for _, path, _ in hub.requests if "_LR_" in path} == set()
    assert downloads(hub, ".zip") == 0
    assert not list(Path(os.environ["HF_HOME"]).rglob("stream-*"))
    options = ("--dataset_name", "user/mixed", "--streaming", "--max_train_images", 3)
    process = train(tmp_path / "trial", *options)
    assert "Pictures: 2 to train on" in process.stdout
    assert "Task was destroyed" not in process.stderr


def test_private_pairs(hub, tmp_path):
    options = ("--dataset_name", "user/private-pairs", "--dataset_revision", "main")
    message = train(tmp_path / "run", *options, runner=refusal)
    assert "There is no data set user/private-pairs" in message
    assert "or it is private. Check the name, or log in by `hf auth login`" in message
    process = train(tmp_path / "run", *options, HF_TOKEN="hf_test")
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
    assert message in train(tmp_path / "run", *options, runner=refusal)


def test_a_second_start_downloads_nothing(hub, tmp_path):
    train(tmp_path / "first")
    assert downloads(hub, "DIV2K_train_HR.zip") == 1
    hub.requests.clear()
    train(tmp_path / "second")
    assert downloads(hub, "DIV2K_train_HR.zip") == 0
    hub.requests.clear()
    train(tmp_path / "offline", runner=run, HF_HUB_OFFLINE="1")
    assert not hub.requests


def test_archives_of_hr_and_lr_without_a_network(hub, tmp_path):
    options = ("--dataset_name", "user/mixed")
    train(tmp_path / "first", *options)
    process = train(tmp_path / "offline", *options, runner=run, HF_HUB_OFFLINE="1")
    assert "Pictures: 7 to train on" in process.stdout
    options = (*options, "--dataset_revision", "v9")
    run_no = partial(run, check=False)
    process = train(tmp_path / "other", *options, runner=run_no, HF_HUB_OFFLINE="1")
    assert "user/mixed at revision v9 was not downloaded by an earlier start" in process.stderr


def test_two_processes_download_once(hub, tmp_path):
    command = (SCRIPT, *SMALL, "--max_train_steps", 2, "--dataset_name", "yangtao9009/DIV2K")
    processes = [
        subprocess.Popen(
            python(*command, "--output_dir", tmp_path / f"{number}"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ends = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert downloads(hub, "DIV2K_train_HR.zip") == 1
    assert metrics(tmp_path / "0") == metrics(tmp_path / "1")


def test_a_connection_that_breaks(hub, tmp_path):
    hub.cut["DIV2K_train_HR.zip"] = 1
    process = train(tmp_path / "run")
    assert "Pictures: 7 to train on" in process.stdout
    assert hub.cut["DIV2K_train_HR.zip"] == 0


def test_a_connection_that_always_breaks(hub):
    hub.cut["Set5_HR.tar.gz"] = 99
    with pytest.raises(UserError) as error:
        hub_benchmark("Set5")
    assert "The benchmark Set5 (eugenesiow/Set5 on the Hub) cannot be had: " in str(error.value)
    assert "With its pictures in DIR/Set5/HR, use --benchmark_dir DIR." in str(error.value)
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.png"))
    hub.cut.clear()
    assert len(list((hub_benchmark("Set5") / "HR").iterdir())) == 5


def test_benchmarks_by_name(hub, tmp_path):
    bicubic = ("evaluate.py", "--model", "bicubic", "--scale", 2)
    process = run_here(*bicubic)
    assert [line.split()[:2] for line in process.stdout.splitlines()[-2:]] == [
        ["Set5", "5"],
        ["Set14", "14"],
    ]
    assert downloads(hub, "Set5_HR.tar.gz") == 1
    assert downloads(hub, "Set14_HR.tar.gz") == 1
    hub.requests.clear()
    run_here(*bicubic)
    assert not hub.requests
    for name, message in (
        ("BSD100", "it has 1 pictures, not 100"),
        ("Urban100", "is outside the destination"),
        ("Set6", "Set6 is none of the benchmarks that are on the Hub (Set5, Set14, BSD100, Urban"),
    ):
        assert message in refusal(*bicubic, "--benchmarks", name)
    assert not list(tmp_path.rglob("evil.png"))


def test_a_model_goes_to_the_hub_and_comes_back(hub, tmp_path):
    folder = tmp_path / "tiny"
    options = ("--max_train_images", 4, "--push_to_hub", "--hub_private")
    message = train(folder, *options, runner=refusal)
    assert "--push_to_hub needs a token. Log in by `hf auth login`, or set HF_TOKEN." in message
    process = train(folder, *options, HF_TOKEN="hf_test")
    assert f"It is on the Hub now: {hub.url}/user/tiny" in process.stdout
    pushed = hub.folder / "models" / "user" / "tiny"
    assert {path.name for path in pushed.iterdir()} == {
        *("README.md", "config.json", "model.safetensors")
    }
    for path in pushed.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    card = (pushed / "README.md").read_text()
    psnr = next(row["psnr_y"] for row in metrics(folder) if "psnr_y" in row)
    for text in (
        *("library_name: pytorch", "pipeline_tag: image-to-image", "license: apache-2.0"),
        *("- yangtao9009/DIV2K", "model-index:", "type: psnr", f"value: {psnr:.4f}"),
        *("Protocol: output rounded to 8 bits", "load_model(", "--max_train_images 4"),
    ):
        assert text in card

    options = ("--model", "user/tiny", "--benchmarks", "Set5")
    assert "A2N x2 (user/tiny)" in run_here("evaluate.py", *options).stdout
    hub.requests.clear()
    process = run("evaluate.py", *options, HF_HUB_OFFLINE="1")
    assert "A2N x2 (user/tiny)" in process.stdout
    assert not hub.requests
    process = train(tmp_path / "next", "--init_from", "user/tiny", "--revision", "main")
    assert "172 of 172 tensors copied from" in process.stdout
    message = refusal("evaluate.py", *options, "--revision", "v9")
    assert "There is no model user/tiny at revision v9 on" in message


def test_a_push_that_fails_loses_nothing(hub, tmp_path):
    options = ("--max_train_images", 4, "--push_to_hub", "--hub_model_id", "no/such/name")
    message = train(tmp_path / "run", *options, runner=refusal, HF_TOKEN="hf_test")
    folder = tmp_path / "run"
    assert f"Could not push {folder} to no/such/name on the Hub: " in message
    assert f"try again by\n    python -m common.hub {folder} no/such/name" in message
    process = run("-m", "common.hub", folder, "again", HF_TOKEN="hf_test")
    assert process.stdout == f"{hub.url}/user/again\n"
    pushed = load_file(hub.folder / "models" / "user" / "again" / "model.safetensors")
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(pushed[name], tensor)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: load_model("user/tiny"), "for the model user/tiny"),
        (lambda: hub_pictures("user/set", [2]), "for the data set user/set"),
        (lambda: hub_benchmark("Set5"), "for the data set eugenesiow/Set5"),
    ],
)
def test_without_a_network_it_ends_soon(ask, message, monkeypatch, empty_cache):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(UserError, match=f"Cannot reach {os.environ['HF_ENDPOINT']} {message}") as e:
        ask()
    assert "HF_HUB_OFFLINE=1 uses what was downloaded before" in str(e.value)
    assert not waits  # between one attempt and the next


def test_a_network_that_does_not_answer(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        with pytest.raises(UserError, match=f"Cannot reach {endpoint} for the model user/tiny"):
            load_model("user/tiny")
        silent.settimeout(0)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()  # it asked once, and not again


def test_a_prepared_data_set(pictures_dir, hub, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "photos")
    (tmp_path / "photos" / "text.png").write_text("no picture")
    Image.new("RGB", (30, 90)).save(tmp_path / "photos" / "narrow.png")
    command = ("prepare_dataset.py", tmp_path / "photos", "--output_dir", tmp_path / "set")
    options = ("--patch_size", 48, "--patch_step", 32, "--push_to_hub", "user/prepared")
    process = run_here(*command, *options, HF_TOKEN="hf_test")
    assert "text.png: cannot identify image file" in process.stdout
    assert "narrow.png, which is smaller than 48 pixels" in process.stdout
    # Of 96x80, at 0, 32, 48 and at 0, 32.
    assert f"48 rows are in {tmp_path / 'set'}" in process.stdout
    assert f"It is on the Hub now: {hub.url}/datasets/user/prepared" in process.stdout
    card = huggingface_hub.DatasetCard.load("user/prepared")
    assert card.data.tags == ["super-resolution"]
    assert "\n48 pictures for " in card.text
    assert "--dataset_name user/prepared\n" in card.text
    table = datasets.Dataset.from_parquet(str(tmp_path / "set" / "train.parquet"))
    assert table.column_names == ["hr", "lr_x2", "lr_x3", "lr_x4"]
    picture = read_rgb(pictures_dir / "0.png")
    expected = picture[32:80, 48:96]
    assert np.array_equal(np.asarray(table[5]["hr"]), expected)
    for scale in (2, 3, 4):
        lr = imresize(to_tensor(expected.copy()), 1 / scale).movedim(0, -1).numpy()
        assert np.array_equal(np.asarray(table[5][f"lr_x{scale}"]), lr)
    message = refusal(*command)
    assert f"--output_dir {tmp_path / 'set'} is not empty. Name another." in message
    for file in sorted((tmp_path / "photos").glob("?.png")):
        Image.new("RGB", (48, 48), "blue").save(file)  # other pictures of the same names
    process = run_here(*command[:3], tmp_path / "blue", *options[:4])
    assert "text.png: cannot identify image file" in process.stdout
    assert {path.name for path in (tmp_path / "blue").iterdir()} == {"train.parquet", "README.md"}
    table = datasets.Dataset.from_parquet(str(tmp_path / "blue" / "train.parquet"))
    assert np.unique(np.asarray(table[0]["hr"]).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]
    for name in (tmp_path / "set", "user/prepared"):
        run_dir = tmp_path / f"run-{Path(name).name}"
        assert "44 to train on" in train(run_dir, "--dataset_name", name, "--scale", 3).stdout
