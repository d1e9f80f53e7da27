"""Data sets that are read as a stream: what comes when, also after a break."""

import os
import shutil
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets.table import embed_table_storage
from torch.utils.data import DataLoader

import common.data.stream
from common.data.hub_sets import hub_pictures
from common.data.stream import PictureStream
from common.training.folder import list_checkpoints
from running import (
    RECIPE,
    SMALL,
    SRGAN,
    assert_same_run,
    disturbed,
    metrics,
    refusal,
    run,
    run_here,
    run_two,
)

SCRIPT = "train_srcnn.py"
LATEST = ("--resume_from_checkpoint", "latest")
pytestmark = pytest.mark.xdist_group("stream")


@pytest.fixture
def soon(straight, monkeypatch):
    """Lets the process that decodes begin with everything imported; in `straight` it does not."""
    forkserver = {"multiprocessing_context": "forkserver"}
    monkeypatch.setattr(
        common.data.stream,
        "DataLoader",
        lambda *args, **options: DataLoader(*args, **options | forkserver),
    )


@pytest.fixture(scope="module")
def shards(pictures_dir, tmp_path_factory) -> Path:
    """A data set of four files with two pictures each to train on, and one to validate on."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(5):
        files = [str(pictures_dir / f"{2 * number % 8 + picture}.png") for picture in range(2)]
        table = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())
        table = table.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
        split = "train" if number < 4 else "validation"
        table.to_parquet(folder / f"{split}-{number}.parquet")
    return folder


def make_stream(shards: Path, folder: Path, begin=(0, 0), count=8, part_size=3) -> PictureStream:
    found = hub_pictures(str(shards), [2], streaming=True)
    stream = PictureStream(found, [2], part_size, 0, folder)
    stream.begin, stream.count = begin, count
    return stream


def pixels(part) -> list[bytes]:
    return [part.pictures.hr(index).tobytes() for index in range(len(part.pictures))]


def test_every_pass_has_every_picture_once_in_another_order(shards, tmp_path):
    parts = list(make_stream(shards, tmp_path))
    assert [len(part.pictures) for part in parts] == [3] * 8
    stream = [picture for part in parts for picture in pixels(part)]
    passes = [stream[start : start + 8] for start in (0, 8, 16)]
    assert [len(set(pictures)) for pictures in passes] == [8, 8, 8]
    assert len({tuple(pictures) for pictures in passes}) == 3
    # The rows of a file stay together.
    assert {frozenset(stream[n : n + 2]) for n in range(0, 24, 2)} == {
        frozenset(passes[0][n : n + 2]) for n in range(0, 8, 2)
    }


def test_it_goes_on_at_the_end_of_any_part(shards, tmp_path):
    parts = list(make_stream(shards, tmp_path / "first"))
    for number in range(1, 8):
        rest = make_stream(shards, tmp_path / "second", parts[number - 1].end, 1)
        assert [pixels(part) for part in rest] == [pixels(parts[number])]


def test_a_part_is_decoded_once_until_it_is_deleted(shards, tmp_path, monkeypatch):
    decoded = []
    original = datasets.Dataset.from_generator

    def count(generator, **options):
        return original(
            lambda **args: (decoded.append(1) or row for row in generator(**args)), **options
        )

    monkeypatch.setattr(datasets.Dataset, "from_generator", count)
    stream = make_stream(shards, tmp_path, count=2)
    first = [pixels(part) for part in stream]
    assert (len(decoded), [pixels(part) for part in stream], len(decoded)) == (6, first, 6)
    stream.delete((0, 0))
    assert len(list(tmp_path.iterdir())) == 1
    assert ([pixels(part) for part in stream], len(decoded)) == (first, 9)


def test_an_empty_one_ends(shards, tmp_path):
    stream = make_stream(shards, tmp_path)
    stream.table = stream.table.filter(lambda row: False)
    assert list(stream) == ["there is not one row in it"]


# ------------------------------------------------------------------------------------- the scripts

# A part is five steps of four patches; checkpoints are in the midst of parts.
STREAM = "--seed 2 --streaming --validation_split validation --streaming_images 5".split()
STREAM += "--patches_per_image 4 --checkpointing_steps 7 --checkpoints_total_limit 9".split()


def train(shards, folder, *options, script=SCRIPT, steps=23, runner=run_here, **variables):
    base = (*SMALL, *RECIPE, "--dataset_name", shards, "--output_dir", folder)
    return runner(script, *base, *STREAM, "--max_train_steps", steps, *options, **variables)


@pytest.fixture(scope="module")
def straight(shards, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    process = train(shards, folder)
    assert "Pictures: a stream, 5 to train on at a time, 2 to validate on" in process.stdout
    assert (
        f"on the stream of {shards.name}, 5 pictures at a time"
        in (folder / "README.md").read_text()
    )
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).glob("stream-*"))
    return folder


@pytest.mark.parametrize("step", [7, 14])
@pytest.mark.usefixtures("soon")
def test_a_run_on_a_stream_resumes_where_it_was(step, straight, shards, tmp_path):
    folder = Path(shutil.copytree(straight, tmp_path / "run"))
    for checkpoint in list_checkpoints(folder):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    process = train(shards, folder, *LATEST, "--num_workers", 1)
    assert f"Resuming from {folder}/checkpoint-{step}." in process.stdout
    assert_same_run(folder, straight)


@pytest.mark.usefixtures("soon")
def test_degraded_patches_of_a_stream_resume(shards, tmp_path):
    options = ("--degradation", "photo", "--num_workers", 1)
    train(shards, tmp_path / "straight", *options, steps=9)
    folder = Path(shutil.copytree(tmp_path / "straight", tmp_path / "run"))
    shutil.rmtree(folder / "checkpoint-9")
    process = train(shards, folder, *options[:2], *LATEST, steps=9)  # in the second part
    assert f"Resuming from {folder}/checkpoint-7." in process.stdout
    assert_same_run(folder, tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_loader_gives_the_same_by_all_start_methods(method, straight, shards, tmp_path):
    # (Those of macOS and Windows, and of Linux from Python 3.14 on.)
    runner = disturbed(run, START_METHOD=method)
    workers = ("--num_workers", 2)
    train(shards, tmp_path / "stream", *workers, runner=runner)
    assert_same_run(tmp_path / "stream", straight)
    options = ("--max_train_images", 8, "--max_train_steps", 12)
    train(shards, tmp_path / "here", *options, runner=run_here)
    train(shards, tmp_path / "there", *options, *workers, runner=runner)
    assert_same_run(tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
def test_srgan_on_a_stream_resumes_across_its_phases(shards, tmp_path):
    options = "--pretrain_steps 9 --num_blocks 1 --content_weight 0 --gradient_accumulation_steps 2"
    train_srgan = partial(train, shards, script=SRGAN, steps=5)
    train_srgan(tmp_path / "straight", *options.split())
    folder = Path(shutil.copytree(tmp_path / "straight", tmp_path / "run"))
    for checkpoint in list_checkpoints(folder):
        if checkpoint.name != "checkpoint-7":
            shutil.rmtree(checkpoint)
    process = train_srgan(folder, *options.split(), *LATEST)
    assert f"Resuming from {folder}/checkpoint-7." in process.stdout
    assert_same_run(folder, tmp_path / "straight")


def test_two_processes_read_one_stream(straight, shards, tmp_path):
    process = train(shards, tmp_path / "run", runner=run_two, HF_HOME=os.environ["HF_HOME"])
    assert "over 2 processes" in process.stdout
    for ours, theirs in zip(metrics(tmp_path / "run"), metrics(straight), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours.get("loss") == pytest.approx(theirs.get("loss"), rel=1e-3)
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).glob("stream-*"))


@pytest.mark.usefixtures("soon")
def test_a_stream_that_breaks_off_loses_nothing(straight, shards, tmp_path):
    copy = Path(shutil.copytree(shards, tmp_path / "many"))
    last = copy / f"train-{np.random.default_rng((2, 0, 2)).permutation(4)[3]}.parquet"
    content = last.read_bytes()
    folder = tmp_path / "run"

    def go_on(content: bytes):
        last.write_bytes(content)
        for file in copy.iterdir():
            os.utime(file, ns=(0, 0))  # else it would be another data set
        return train(copy, folder, *LATEST, "--checkpointing_steps", 4, check=False)

    for _ in range(2):
        message = go_on(content[:-100] + bytes(100)).returncode
        assert f"Cannot go on with {copy} after step 5: Could not open" in message
        assert "The same command with --resume_from_checkpoint latest goes on from" in message
        names = [path.name for path in list_checkpoints(folder)]
        assert names == ["checkpoint-4", "checkpoint-5"]
    assert f"Resuming from {folder / 'checkpoint-5'}." in go_on(content).stdout
    assert_same_run(folder, straight)


@pytest.mark.usefixtures("soon")
def test_another_recipe_goes_on_in_the_stream(straight, shards, tmp_path):
    folder = Path(shutil.copytree(straight, tmp_path / "run"))
    for step in (21, 23):
        shutil.rmtree(folder / f"checkpoint-{step}")
    train(shards, folder, *LATEST, "--streaming_images", 6, "--allow_recipe_change")
    books = torch.load(folder / "checkpoint-23" / "custom_checkpoint_0.pkl")
    # Step 14 trained on pictures 10 to 14 of the stream, with two in a shard; 15 to 20 come next.
    assert {step: tuple(place) for step, place in books["positions"].items()} == {
        18: (10, 1),
        24: (13, 1),
    }


@pytest.mark.usefixtures("soon")
def test_unreadable_pictures_of_a_stream(shards, tmp_path):
    copy = Path(shutil.copytree(shards, tmp_path / "many"))
    rows = {"image": [{"bytes": b"no picture", "path": None}] * 4}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(image=datasets.Image()))
    for number in range(3):
        table.to_parquet(copy / f"train-{number}.parquet")
    message = train(copy, tmp_path / "run", check=False).returncode
    assert f"Cannot go on with {copy} after step 0: Cannot read " in message
    assert " of 5 pictures: row " in message


@pytest.mark.usefixtures("soon")
def test_other_pictures_are_refused(straight, shards, tmp_path):
    folder = Path(shutil.copytree(straight, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoint-23")
    (shards / "new.txt").touch()
    message = train(shards, folder, *LATEST, check=False).returncode
    assert "the data set is another, or its --dataset_revision" in message
    message = train(shards, folder, *LATEST, "--streaming_images", 6, check=False).returncode
    assert "--streaming_images was 5 and is 6" in message


def test_the_first_of_a_stream_are_an_ordinary_set(shards, tmp_path):
    options = ("--max_train_images", 4, "--max_train_steps", 2)
    process = run_here(
        *(
            SCRIPT,
            *SMALL,
            "--dataset_name",
            shards,
            "--streaming",
            "--output_dir",
            tmp_path / "run",
        ),
        *options,
    )
    assert "Pictures: 3 to train on" in process.stdout
    assert "1 to validate on" in process.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset_name", "sample"), "--streaming reads from the Hub. Leave it out"),
        (("--train_data_dir", "pictures"), "--streaming reads from the Hub. Leave it out"),
        (("--dataset_name", "user/name"), "cannot keep the last pictures for validation. Name a"),
        (("--validation_data_files", "a.zip"), "needs --validation_split NAME. Any name"),
    ],
)
def test_bad_options(options, message, tmp_path):
    stream = ("--streaming",) * (options[0] != "--validation_data_files")
    assert message in refusal(SCRIPT, *SMALL, *stream, *options, "--output_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()
