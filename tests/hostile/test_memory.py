"""What comes from outside, a picture or an archive, does not choose how much memory is taken."""

import io
import json
import shutil
import tarfile
import threading
import time
import zipfile
from unittest import mock

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import common.bands
import common.data.benchmarks
import common.data.cache
import common.metrics
from common.data.benchmarks import hub_benchmark
from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.evaluation import evaluate
from common.metrics import psnr_rgb, psnr_y, ssim_rgb, ssim_y
from common.network import SuperResolutionModel
from common.training.validation import Validator
from convert_published import convert
from helpers.forked import PATIENCE
from running import LATEST, RECIPE, SCRIPT, SMALL, assert_same_run, run_here, start
from test_networks import ARCHITECTURES, make

METRICS = [psnr_y, ssim_y, psnr_rgb, ssim_rgb]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rows", [5, 16])
def test_in_bands_it_is_as_the_whole(architecture, rows):
    network = make(architecture).double()
    lr = torch.rand(1, 3, 49, 13, dtype=torch.float64)
    with torch.no_grad():
        whole, bands = network(lr), network.in_bands(lr, rows)
    assert torch.allclose(bands, whole, rtol=0, atol=1e-12)


def test_a_narrower_margin_would_be_seen(monkeypatch):
    network = make("srcnn").double()
    for parameter in network.parameters():
        parameter.data.fill_(0.1)
    lr = torch.rand(1, 3, 49, 13, dtype=torch.float64)
    monkeypatch.setattr(type(network), "margin", network.margin - 1)
    with torch.no_grad():
        assert not torch.allclose(network.in_bands(lr, 5), network(lr), rtol=0, atol=1e-12)


def test_large_pictures_only_go_in_bands(monkeypatch):
    heights = []
    network = make("srcnn")
    network.register_forward_pre_hook(lambda _, inputs: heights.append(inputs[0].shape[-2]))
    monkeypatch.setattr(common.bands, "BAND", 10 * 20 * 4)  # ten rows of LR that is 20 wide
    with torch.no_grad():
        network.enlarge(torch.rand(1, 3, 20, 20))
        assert heights == [20]
        network.enlarge(torch.rand(1, 3, 21, 20))
    margin = network.margin
    assert heights[1:] == [10 + margin, margin + 10 + 1, margin + 1]
    # A network that does not say how far it sees is given whole pictures.
    monkeypatch.setattr(type(network), "margin", None)
    with torch.no_grad():
        network.enlarge(torch.rand(1, 3, 21, 20))
    assert heights[-1] == 21


@pytest.mark.parametrize("name", ["a2n_x2", "vdsr"])
def test_scores_in_bands_are_those_of_the_whole(
    name, published_weights, benchmark_dir, monkeypatch
):
    weights = load_file(published_weights(f"{name}_published.safetensors"))
    network = convert(weights, name.removesuffix("_x2"), [2])
    pictures, _ = decode_pictures(find_pictures(benchmark_dir / "Set5" / "HR", [2])[-1:], [2])
    benchmark, cpu = BenchmarkDataset(pictures, 2), torch.device("cpu")
    monkeypatch.setattr(common.metrics, "PIXELS_AT_ONCE", 2**30)
    (whole,) = evaluate(network, benchmark, cpu, METRICS).values()
    monkeypatch.setattr(common.metrics, "PIXELS_AT_ONCE", 2**13)
    monkeypatch.setattr(common.bands, "BAND", 2**14)
    in_bands = mock.Mock(wraps=network.in_bands)
    monkeypatch.setattr(network, "in_bands", in_bands)
    (bands,) = evaluate(network.enlarge, benchmark, cpu, METRICS).values()
    for metric in METRICS:
        score = metric.__name__
        assert bands[score] == pytest.approx(whole[score], abs=1e-5)
    assert in_bands.called


def test_pictures_are_decoded_while_there_is_room(tmp_path, monkeypatch):
    for number in range(8):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.png")
    at_once, most, lock, original = 0, 0, threading.Lock(), common.data.cache._decode_one

    def counting(*args):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        try:
            return original(*args)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(common.data.cache, "_decode_one", counting)
    monkeypatch.setattr(common.data.cache, "count_cores", lambda: 8)
    monkeypatch.setattr(common.data.cache, "PIXELS_AT_ONCE", 2 * 40 * 30)
    sources = find_pictures(tmp_path, [2])
    pictures, errors = decode_pictures(sources, [2], folder=tmp_path / "cache")
    assert (len(pictures), errors) == (8, {})
    assert most <= 2
    # A picture for which there never is room is decoded alone.
    monkeypatch.setattr(common.data.cache, "PIXELS_AT_ONCE", 1)
    pictures, errors = decode_pictures(sources, [2], folder=tmp_path / "other")
    assert (len(pictures), errors) == (8, {})


def test_nobody_waits_for_room_when_decoding_ends(tmp_path, monkeypatch):
    for number in range(6):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.png")

    def failing(*args):
        raise MemoryError("no memory is left")

    monkeypatch.setattr(common.data.cache, "_decode_one", failing)
    monkeypatch.setattr(common.data.cache, "count_cores", lambda: 4)
    monkeypatch.setattr(common.data.cache, "PIXELS_AT_ONCE", 1)
    with pytest.raises(UserError, match="no memory is left"):
        decode_pictures(find_pictures(tmp_path, [2]), [2], folder=tmp_path / "cache")


def test_a_picture_in_an_archive_has_a_limit(tmp_path, monkeypatch):
    picture = io.BytesIO()
    Image.new("RGB", (24, 24)).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", picture.getvalue())
        archive.writestr("zeros.png", bytes(3 << 20))
    monkeypatch.setattr(common.data.cache, "MOST_BYTES", 2 << 20)
    paths = [f"zip://{name}.png::{tmp_path}/a.zip" for name in ("good", "zeros", "none")]
    sources = [{"name": p, "hr": {"path": p, "bytes": None}} for p in paths]
    pictures, errors = decode_pictures(sources, [2], identity=[1], folder=tmp_path / "cache")
    assert pictures.names == paths[:1]
    assert errors[paths[1]] == "it has more than 2 MB"
    assert errors[paths[2]].startswith(f"Cannot read {paths[2]}: ")


@pytest.mark.parametrize("kind", ["zeros", "header"])
def test_an_archive_that_unpacks_to_too_much(kind, tmp_path, monkeypatch):
    archive = tmp_path / "Set5_HR.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("Set5_HR/zeros.png")
        member.size = 3 << 20
        if kind == "header":  # which tarfile reads as a whole
            member.type = tarfile.XHDTYPE
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    monkeypatch.setattr(common.data.benchmarks, "ask_hub", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(archive))
    monkeypatch.setattr(huggingface_hub, "cached_assets_path", lambda *_: tmp_path / "assets")
    (tmp_path / "assets").mkdir()
    monkeypatch.setattr(common.data.benchmarks, "MOST_BYTES", 2 << 20)
    monkeypatch.setattr(common.data.benchmarks._Unpacked, "left", 2 << 20)
    with pytest.raises(UserError, match=r"Set5 .* cannot be had: it unpacks to more than 2 MB\."):
        hub_benchmark("Set5")
    assert list((tmp_path / "assets").iterdir()) == []


# ---------------------------------------------------------------------- checkpoint, then validation


def train(output_dir, pictures_dir, *options):
    base = (SCRIPT, *SMALL, *RECIPE, "--scale", 2, "--max_train_steps", 4, "--report_to", "none")
    steps = ("--validation_steps", 2, "--checkpointing_steps", 2, "--logging_steps", 2)
    folders = ("--train_data_dir", pictures_dir, "--output_dir", output_dir)
    return run_here(*base, *steps, *folders, *options, check=False)


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_dies_in_a_validation_validates_first(step, pictures_dir, tmp_path, monkeypatch):
    original = Validator.validate

    def dying(self, now):
        if now == step:
            raise MemoryError("no memory for this picture")
        return original(self, now)

    monkeypatch.setattr(Validator, "validate", dying)
    with pytest.raises(MemoryError):
        train(tmp_path / "died", pictures_dir)
    assert (tmp_path / "died" / f"checkpoint-{step}").is_dir()
    monkeypatch.setattr(Validator, "validate", original)
    resumed = train(tmp_path / "died", pictures_dir, *LATEST)
    assert f"Resuming from {tmp_path / 'died'}/checkpoint-{step}." in resumed.stdout
    train(tmp_path / "straight", pictures_dir)
    assert_same_run(tmp_path / "died", tmp_path / "straight")


def test_scores_that_are_damaged_are_made_again(pictures_dir, tmp_path):
    train(tmp_path / "run", pictures_dir)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "copy" / "checkpoint-4" / "scores.json").write_text('{"best": ')
    assert train(tmp_path / "copy", pictures_dir, *LATEST).returncode == 0
    assert_same_run(tmp_path / "copy", tmp_path / "run")
    saved, again = (
        json.loads((tmp_path / name / "checkpoint-4" / "scores.json").read_text())
        for name in ("run", "copy")
    )
    assert saved.pop("seconds") > 0
    assert again.pop("seconds") > 0
    assert saved == again


def test_a_validation_that_cannot_work_is_found_at_the_start(pictures_dir, tmp_path, monkeypatch):
    large = tmp_path / "validation"
    large.mkdir()
    for number, size in enumerate([(30, 30), (90, 40), (50, 60)]):
        Image.new("RGB", size).save(large / f"{number}.png")

    def enlarge(self, lr):
        raise torch.OutOfMemoryError(f"no memory for {tuple(lr.shape[-2:])}")

    monkeypatch.setattr(SuperResolutionModel, "enlarge", enlarge)
    options = ("--validation_data_dir", large)
    end = train(tmp_path / "run", pictures_dir, *options)
    assert end.returncode == (
        "Validation fails on 1.png, 90x40: OutOfMemoryError: no memory for (20, 45). Name smaller "
        "pictures by --validation_data_dir."
    )


@pytest.mark.parametrize(
    ("module", "error", "is_told"),
    [
        ("common.training.run", "torch.OutOfMemoryError('CUDA out of memory.')", True),
        ("common.training.run", "RuntimeError('CUDA error: an illegal address')", False),
        ("common.inference", "torch.OutOfMemoryError('CUDA out of memory.')", False),
    ],
)
def test_a_training_without_memory_is_told_a_way_out(module, error, is_told):
    process = start("-c", f"import common.start, torch, {module}\nraise {error}")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Traceback" in errors  # where the memory ran out, torch tells
    assert ("The memory ran out. Use a smaller --batch_size" in errors) == is_told
