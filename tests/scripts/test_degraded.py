"""Training and evaluation on degraded pictures, as a user starts them."""

import importlib.metadata
import json
import re
import shutil
import sys
from functools import partial
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import prepare_dataset
from common.data.cache import decode_pictures
from common.data.degradation import Degradation, picture_generator
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.images.formats import read_rgb
from common.metrics import make_pyiqa, psnr_rgb
from helpers.pictures import write
from running import (
    LATEST,
    ONE_OR_ALL,
    RECIPE,
    SCRIPT,
    SMALL,
    assert_same_run,
    metrics,
    refusal,
    run_here,
    run_two,
)

OWN_CODE = """
import numpy as np

def darker(hr, scale, generator):
    return (hr[::scale, ::scale] * generator.uniform(0.4, 0.6)).astype(np.uint8)
"""
EVALUATE = ("evaluate.py", "--model", "bicubic", "--scale", 2)


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN_CODE)
    return file


@pytest.mark.parametrize("script", ONE_OR_ALL)
def test_a_degraded_run_resumes_bit_equal(script, train, tmp_path):
    options = (*RECIPE, "--degradation", "photo", "--gradient_accumulation_steps", 2)
    options += ("--checkpointing_steps", 2)
    process = train(script, tmp_path / "straight", *options, steps=4)
    assert "        LR: made from HR by --degradation photo\n" in process.stdout
    card = (tmp_path / "straight" / "README.md").read_text()
    assert "LR made from HR by --degradation photo; PSNR" in card
    assert re.search(r"on 7 pictures of \w+ \(LR made from HR by --degradation photo\), with", card)
    assert "MATLAB" not in card

    folder = shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(folder / "checkpoint-4")
    process = train(script, folder, *options, *LATEST, "--num_workers", 1, steps=4)
    assert f"Resuming from {folder}/checkpoint-2." in process.stdout
    assert_same_run(folder, tmp_path / "straight")


def test_another_degradation_is_another_recipe(train, tmp_path):
    folder = tmp_path / "run"
    process = train(SCRIPT, folder, *RECIPE, "--degradation", "jpeg", steps=1)
    degraded = re.search(r"bicubic: ([\d.]+) dB", process.stdout)[1]
    refused = partial(run_here, check=False)
    message = train(SCRIPT, folder, *RECIPE, *LATEST, steps=2, runner=refused).returncode
    assert "--degradation was jpeg and is none" in message
    options = (*RECIPE, *LATEST, "--allow_recipe_change")
    process = train(SCRIPT, folder, *options, steps=2)
    # The validation pictures are others now, so bicubic is scored anew.
    assert float(re.search(r"bicubic: ([\d.]+) dB", process.stdout)[1]) > float(degraded)


def test_two_processes_train_on_the_same_patches(train, tmp_path):
    options = (*RECIPE, "--degradation", "bsrgan")
    train(SCRIPT, tmp_path / "one", *options, steps=5)
    process = train(SCRIPT, tmp_path / "two", *options, steps=5, runner=run_two)
    assert "over 2 processes" in process.stdout
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_luma_networks_of_several_scales(train, tmp_path):
    options = ("--scale", 2, 3, "--degradation", "realesrgan")
    process = train("train_vdsr.py", tmp_path / "run", *options, steps=4)
    assert "x2: PSNR-Y" in process.stdout
    assert "x3: PSNR-Y" in process.stdout


@pytest.fixture
def pairs(pictures_dir, tmp_path):
    for file in pictures_dir.iterdir():
        for kind, size in (("hr", (96, 80)), ("lr", (48, 40))):
            target = tmp_path / "pairs" / kind / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).resize(size).save(target)
    return tmp_path / "pairs"


def test_pairs_keep_their_lr(pairs, tmp_path):
    base = (SCRIPT, *SMALL, "--scale", 2, "--max_train_steps", 1, "--output_dir", tmp_path / "run")
    message = refusal(*base, "--train_data_dir", pairs, "--degradation", "jpeg")
    assert (
        "--degradation jpeg makes LR from HR, and these pictures have LR of their own, read from "
        "pairs/lr/0.png and so on. Leave it out, or name HR alone, by its folder or --image_column."
    ) in message
    run_here(*base, "--train_data_dir", pairs)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "LR read from pairs/lr/0.png and so on; PSNR" in card
    assert "pictures of pairs (LR read from pairs/lr/0.png and so on), with" in card


def test_columns_of_lr_are_left_alone_beside_an_image_column(pictures_dir, tmp_path):
    run_here("prepare_dataset.py", pictures_dir, "--output_dir", tmp_path / "set", "--scales", 2)
    base = (SCRIPT, *SMALL, "--scale", 2, "--max_train_steps", 1)
    options = (*base, "--dataset_name", tmp_path / "set", "--output_dir")
    jpeg = ("--degradation", "jpeg")
    assert "name HR alone" in refusal(*options, tmp_path / "run", *jpeg)
    process = run_here(*options, tmp_path / "run", *jpeg, "--image_column", "hr")
    assert "        LR: made from HR by --degradation jpeg\n" in process.stdout
    process = run_here(*options, tmp_path / "pairs", "--image_column", "hr")
    assert "        LR: read from the data set\n" in process.stdout


# ------------------------------------------------------------------------------------ own functions


def test_a_function_of_ones_own(own, train, tmp_path):
    options = ("--degradation", f"{own}:darker")
    process = train(SCRIPT, tmp_path / "run", *RECIPE, *options, "--num_workers", 1, steps=2)
    assert "        LR: made from HR by --degradation own.py:darker@" in process.stdout
    card = (tmp_path / "run" / "README.md").read_text()
    assert "LR made from HR by --degradation own.py:darker@" in card
    assert str(tmp_path) not in card
    own.write_text(OWN_CODE.replace("0.4", "0.3"))
    refused = partial(run_here, check=False)
    message = train(SCRIPT, tmp_path / "run", *RECIPE, *options, *LATEST, steps=3, runner=refused)
    assert "--degradation was " in message.returncode  # the same name, another function


def test_a_function_may_write_to_hr(pictures_dir, own, tmp_path):
    own.write_text(OWN_CODE.replace("    return", "    hr //= 2\n    return"))
    run_here(
        *("prepare_dataset.py", pictures_dir, "--output_dir", tmp_path / "set", "--scales", 2, 3),
        *("--degradation", f"{own}:darker", "--patch_size", 48, "--patch_step", 32),
    )
    table = datasets.Dataset.from_parquet(str(tmp_path / "set" / "train.parquet"))
    square = read_rgb(pictures_dir / "0.png")[32:80, 48:96]
    assert np.array_equal(np.asarray(table[5]["hr"]), square)
    dark = square[::3, ::3] // 2 * picture_generator("0/5").uniform(0.4, 0.6)
    assert np.array_equal(np.asarray(table[5]["lr_x3"]), dark.astype(np.uint8))


# --------------------------------------------------------------------------------------- evaluation


def test_a_degraded_benchmark(tiny_benchmark_dir, own, tmp_path):
    reports = {}
    for name in ("none", "jpeg", "realesrgan", f"{own}:darker"):
        file = tmp_path / "report.json"
        options = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny", "--overwrite")
        process = run_here(*EVALUATE, *options, "--degradation", name, "--output", file)
        reports[name] = report = json.loads(file.read_text())
        assert report["degradation"].startswith(name)
        by = (
            "made from HR by MATLAB's bicubic"
            if name == "none"
            else f"made from HR by --degradation {name.split('/')[-1]}"
        )
        assert f"LR {by}" in process.stdout
        assert f"LR {by}" in report["protocol"]
    scores = [report["benchmarks"]["Tiny"]["psnr_y"] for report in reports.values()]
    assert scores[0] > scores[1] > scores[2] > scores[3]
    checksums = {report["lr_checksums"]["Tiny"] for report in reports.values()}
    assert len(checksums) == 4
    assert {"scipy", "numpy", "pillow", "libjpeg"} < reports["jpeg"]["versions"].keys()


def test_lr_beside_hr_does_not_change_a_degraded_benchmark(tiny_benchmark_dir, tmp_path):
    folder = shutil.copytree(tiny_benchmark_dir, tmp_path / "sets")
    for number in range(3):
        file = folder / "Tiny" / "LR_bicubic" / "X2" / f"{number}x2.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40)).save(file)
    checksums = []
    for sets in (tiny_benchmark_dir, folder):
        options = ("--benchmark_dir", sets, "--benchmarks", "Tiny", "--degradation", "photo")
        file = tmp_path / f"{len(checksums)}.json"
        run_here(*EVALUATE, *options, "--output", file)
        checksums.append(json.loads(file.read_text())["lr_checksums"]["Tiny"])
    assert checksums[0] == checksums[1]
    options = ("--benchmark_dir", folder, "--benchmarks", "Tiny")
    assert "LR read from Tiny/" in run_here(*EVALUATE, *options).stdout


def test_lr_is_added_up_only_for_a_report(tiny_benchmark_dir, monkeypatch):
    monkeypatch.setattr(BenchmarkDataset, "lr_checksum", None)
    run_here(*EVALUATE, "--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")


def test_results_on_degraded_benchmarks_stay_out_of_the_card(train, tmp_path):
    train(SCRIPT, tmp_path / "run", steps=1)
    options = ("--model", tmp_path / "run", "--add_to_card", "--degradation", "jpeg")
    assert "--add_to_card is for benchmarks as the papers have them" in refusal(
        "evaluate.py", *options
    )


class Brightness(torch.nn.Module):
    """Stands for a network of pyiqa, without HR or with it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.metric_mode = mode

    def forward(self, sr, hr=None):
        assert (hr is None) == (self.metric_mode == "NR")
        if sr.shape[-1] < 20:
            raise AssertionError("too small")
        return (sr - (0 if hr is None else hr)).mean()


def create_metric(name, device):
    if name == "nothing":
        raise OSError("<urlopen error no network>")
    return Brightness("FR" if name == "bright-fr" else "NR")


def test_metrics_of_pyiqa(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    found = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1.16" if name == "pyiqa" else found(name)
    )
    monkeypatch.setattr(evaluate, "make_lpips", lambda device: psnr_rgb)
    options = ("--benchmarks", "sample", "--lpips", "--metrics", "niqe", "bright-fr", "--output")
    process = run_here(*EVALUATE, *options, tmp_path / "report.json")
    assert "NIQE  BRIGHT-FR" in process.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["versions"]["pyiqa"] == "0.1.16"
    assert {"torchmetrics", "torchvision"} < report["versions"].keys()
    scores = report["benchmarks"]["sample"]
    assert 0.3 < scores["niqe"] < 0.6
    assert abs(scores["bright_fr"]) < 0.01
    sr = torch.full((3, 40, 30), 0.5)
    assert make_pyiqa("niqe", torch.device("cpu"))(sr, sr, 4) == pytest.approx(128 / 255)
    with pytest.raises(UserError, match=r"--metrics niqe cannot score a picture of 14x24: too sm"):
        make_pyiqa("niqe", torch.device("cpu"))(sr, sr, 8)
    message = refusal(*EVALUATE, "--benchmarks", "sample", "--metrics", "nothing")
    assert "--metrics nothing: pyiqa cannot make it: <urlopen error no network>. Where" in message
    assert f"{torch.hub.get_dir()}/pyiqa by hand" in message


def test_pyiqa_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    message = refusal(*EVALUATE, "--benchmarks", "sample", "--metrics", "niqe")
    assert "--metrics niqe needs the package pyiqa (" in message
    assert "`pip install pyiqa`" in message


# ------------------------------------------------------------------------------ prepared, looked at


def test_a_prepared_degraded_set(pictures_dir, tmp_path):
    command = ("prepare_dataset.py", pictures_dir, "--output_dir", tmp_path / "set")
    run_here(*command, "--scales", 2, 3, "--degradation", "photo")
    assert (
        "made of it by --degradation photo\n`lr_x2 lr_x3`"
        in (tmp_path / "set" / "README.md").read_text()
    )
    table = datasets.Dataset.from_parquet(str(tmp_path / "set" / "train.parquet"))
    pictures, _ = decode_pictures(find_pictures(pictures_dir, []), [2])
    benchmark = BenchmarkDataset(pictures, 2, Degradation("photo"))
    for row in (0, 5):  # as in an evaluation
        lr = benchmark[row][1].movedim(0, -1).numpy()
        assert np.array_equal(np.asarray(table[row]["lr_x2"]), lr)
    run_here(
        *("prepare_dataset.py", pictures_dir, "--output_dir", tmp_path / "squares"),
        *("--scales", 2, "--degradation", "photo", "--patch_size", 48, "--patch_step", 32),
    )
    table = datasets.Dataset.from_parquet(str(tmp_path / "squares" / "train.parquet"))
    square = read_rgb(pictures_dir / "0.png")[32:80, 48:96]
    lr = Degradation("photo")(square, 2, picture_generator("0/5"))
    assert np.array_equal(np.asarray(table[5]["lr_x2"]), lr)


def test_a_preview(pictures_dir, tmp_path):
    command = ("prepare_dataset.py", pictures_dir, "--degradation", "bsrgan", "--scales", 2)
    file = tmp_path / "new" / "sheet.png"
    process = run_here(*command, "--preview", file)
    assert f"16 patches of x2, HR and its LR by --degradation bsrgan: {file}" in process.stdout
    assert Image.open(file).size == (8 * 200, 4 * 200)
    assert f"--preview {file} exists already" in refusal(*command, "--preview", file)
    run_here(*command, "--preview", file, "--overwrite")  # which the message names
    assert "must end in one of" in refusal(*command, "--preview", tmp_path / "sheet.gif")
    assert "--output_dir is missing" in refusal(*command)
    message = refusal(*command, "--preview", tmp_path / "a.png", "--push_to_hub", "user/name")
    assert "--output_dir is missing" in message


def test_a_preview_decodes_16_pictures(tmp_path, monkeypatch):
    decoded = []
    for number in range(40):
        write(tmp_path / "many" / f"{number:02}.png")

    def decode(sources, scales):
        decoded.extend(source["name"] for source in sources)
        return decode_pictures(sources, scales)

    monkeypatch.setattr(prepare_dataset, "decode_pictures", decode)
    file = tmp_path / "sheet.png"
    run_here("prepare_dataset.py", tmp_path / "many", "--preview", file, "--scales", 2)
    assert decoded == [f"{number:02}.png" for number in range(0, 32, 2)]


def test_a_preview_of_nothing_is_refused(tmp_path):
    command = ("prepare_dataset.py", tmp_path / "all", "--preview", tmp_path / "a.png", "--scales")
    write(tmp_path / "all" / "small.png", (3, 9))
    message = refusal(*command, 4)
    assert "--preview cannot show small.png (" in message
    assert message.endswith("Mend or remove them, or name another folder.")
    (tmp_path / "all" / "small.png").write_text("no picture")
    assert "--preview cannot show small.png (it is no PNG, JPEG, " in refusal(*command, 2)
    assert not (tmp_path / "a.png").exists()
