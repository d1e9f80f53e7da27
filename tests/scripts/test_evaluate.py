"""evaluate.py: scores, pictures and strips of a network."""

import json
import re
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from common.images.formats import read_rgb
from common.inference import SelfEnsemble
from common.network import SuperResolutionModel
from running import (
    psnr_of,
    refusal,
    run_here,
    run_two,
)
from train_a2n import A2N
from train_srcnn import SRCNN
from train_vdsr import VDSR


@pytest.fixture(scope="module")
def evaluation(straight, tiny_benchmark_dir, tmp_path_factory):
    """The output, the JSON and the pictures of evaluating a trained network."""
    folder = tmp_path_factory.mktemp("evaluation")
    process = run_here(
        *("evaluate.py", "--model", straight),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--output", folder / "report.json", "--save_images", folder / "sr"),
        *("--comparison", folder / "comparison.png", "--per_image", "--rgb"),
    )
    return process.stdout, json.loads((folder / "report.json").read_text()), folder


def test_report(evaluation, straight):
    output, report, _ = evaluation
    tiny = report["benchmarks"]["Tiny"]
    assert list(tiny["images"]) == ["0", "1", "2"]
    for key in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        assert tiny[key] == pytest.approx(sum(i[key] for i in tiny["images"].values()) / 3)
    assert report["model"] == str(straight)
    assert "8 bits" in report["protocol"]
    assert report["versions"]["torch"]
    assert f"{report['parameters']:,} parameters" in output
    assert f"{report['multiply_adds'] / 1e9:.1f} G multiply-adds" in output
    line = next(line for line in output.splitlines() if line.startswith("Tiny"))
    assert f" {tiny['psnr_y']:.2f} " in line
    assert f" {tiny['ssim_y']:.4f} " in line


def test_one_of_several_scales_is_named(tiny_benchmark_dir, tmp_path):
    VDSR([2, 3], num_layers=2, num_features=4).save(tmp_path / "vdsr")
    base = ("evaluate.py", "--model", tmp_path / "vdsr", "--benchmark_dir", tiny_benchmark_dir)
    said = "Scale: x2 of x2, x3; --scale for another.\n"
    assert run_here(*base, "--benchmarks", "Tiny").stdout.startswith(said)
    assert "Scale: " not in run_here(*base, "--benchmarks", "Tiny", "--scale", 3).stdout


def test_saved_pictures_score_the_same(evaluation, tiny_benchmark_dir, tmp_path):
    _, report, folder = evaluation
    run_here(
        *("evaluate.py", "--sr_dir", folder / "sr", "--scale", report["scale"]),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--output", tmp_path / "report.json"),
    )
    again = json.loads((tmp_path / "report.json").read_text())["benchmarks"]["Tiny"]
    for name, scores in report["benchmarks"]["Tiny"]["images"].items():
        assert again["images"][name]["psnr_y"] == scores["psnr_y"]
        assert again["images"][name]["ssim_y"] == scores["ssim_y"]


def panels_of(strip: np.ndarray, number: int, size: int) -> list[np.ndarray]:
    """The first detail in the panels of a strip, without their zoom of 2."""
    first = strip.shape[1] - number * (2 * size + 8) + 8
    lefts = [first + index * (2 * size + 8) for index in range(number)]
    return [strip[28 : 28 + 2 * size : 2, left : left + 2 * size : 2] for left in lefts]


def test_comparison_shows_four_panels(evaluation, tiny_benchmark_dir):
    strip = read_rgb(evaluation[2] / "comparison.png")
    scale = evaluation[1]["scale"]
    size = 80 // scale * scale
    lr, bicubic, sr, original = panels_of(strip, 4, size)
    hr = read_rgb(tiny_benchmark_dir / "Tiny" / "HR" / "0.png")[:size]
    crops = [hr[:, left : left + size] for left in range(0, 96 - size + 1)]
    left = next(left for left, crop in enumerate(crops) if np.array_equal(crop, original))
    made = read_rgb(evaluation[2] / "sr" / "Tiny" / "0.png")[:, left : left + size]
    assert np.array_equal(sr, made)
    error = [np.square(panel.astype(float) - original).mean() for panel in (lr, bicubic)]
    assert error[1] < error[0]


def test_comparison_is_the_sheet_of_the_first_set(evaluation):
    _, _, folder = evaluation
    sheets = [read_rgb(folder / name) for name in ("comparison.png", "sr/Tiny.png")]
    assert np.array_equal(*sheets)
    assert sheets[0].shape[0] > 3 * 2 * 80  # strips of all three pictures


def test_comparison_of_two_models(tiny_benchmark_dir, tmp_path, monkeypatch):
    for folder in ("one", "other"):
        A2N(2, num_blocks=1).save_pretrained(tmp_path / folder)
    enlarging, enlarge = [], SuperResolutionModel.enlarge

    def recorded(network, lr):
        enlarging.append(network)
        return enlarge(network, lr)

    monkeypatch.setattr(SuperResolutionModel, "enlarge", recorded)
    run_here(
        *("evaluate.py", "--model", tmp_path / "one", "--comparison_model", tmp_path / "other"),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--comparison", tmp_path / "comparison.png", "--save_images", tmp_path),
        *("--page", tmp_path / "page.html"),
    )
    page = (tmp_path / "page.html").read_text()
    labels = [page.count(f'"label": "{name}"') for name in ("Bicubic", "other", "one", "Original")]
    assert labels == [3] * 4
    assert '"name": "Tiny: 0"' in page
    assert "bicubic PSNR-Y " in page
    assert len(set(enlarging)) == 2  # (which bounds the memory)
    strip = read_rgb(tmp_path / "comparison.png")
    _, _, other, one, _ = panels_of(strip, 5, 80)
    made = read_rgb(tmp_path / "Tiny" / "0.png")
    crops = [made[:, left : left + 80] for left in range(made.shape[1] - 79)]
    assert any(np.array_equal(crop, one) for crop in crops)
    assert not any(np.array_equal(crop, other) for crop in crops)


def test_evaluate_by_self_ensemble_and_windows(tiny_benchmark_dir, tmp_path):
    torch.manual_seed(0)
    network = A2N(2, num_features=8, num_blocks=2).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:  # larger, so that every pixel in reach has its part
            torch.nn.init.kaiming_uniform_(parameter, a=1)
    for block in network.blocks:  # so that windows are seen among the rounding errors
        torch.nn.init.constant_(block.branch_scores[-1].weight[0], 30)
    network.save(tmp_path / "a2n")
    SRCNN(2).save(tmp_path / "srcnn")

    def evaluated(*options):
        base = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
        report = ("--output", tmp_path / "report.json", "--overwrite")
        run_here("evaluate.py", "--model", tmp_path / "a2n", *base, *report, *options)
        return json.loads((tmp_path / "report.json").read_text())["benchmarks"]["Tiny"]["psnr_y"]

    whole = psnr_of(network, tiny_benchmark_dir / "Tiny", 2)
    assert evaluated() == pytest.approx(whole, abs=1e-3)
    ensemble = psnr_of(SelfEnsemble(network), tiny_benchmark_dir / "Tiny", 2)
    assert evaluated("--self_ensemble") == pytest.approx(ensemble, abs=1e-3)
    network.attention_window = 24
    local = psnr_of(network, tiny_benchmark_dir / "Tiny", 2)
    assert evaluated("--attention_window", 24) == pytest.approx(local, abs=1e-3)
    assert min(abs(one - other) for one, other in combinations((whole, ensemble, local), 2)) > 1e-2
    message = refusal("evaluate.py", "--model", tmp_path / "srcnn", "--attention_window", 24)
    assert "--attention_window is for networks that take means of the whole picture" in message
    message = refusal(
        *("evaluate.py", "--model", tmp_path / "srcnn", "--benchmark_dir", tiny_benchmark_dir),
        *("--save_images", tiny_benchmark_dir / "Tiny"),
    )
    assert "is in --benchmark_dir, where it might overwrite the pictures" in message


def test_two_processes_evaluate_the_same(evaluation, straight, tiny_benchmark_dir, tmp_path):
    _, report, _ = evaluation
    run_two(
        *("evaluate.py", "--model", straight),
        *("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny"),
        *("--output", tmp_path / "report.json"),
    )
    written = json.loads((tmp_path / "report.json").read_text())
    assert (report["processes"], written["processes"]) == (1, 2)
    again = written["benchmarks"]["Tiny"]
    assert list(again["images"]) == ["0", "1", "2"]
    assert again["psnr_y"] == pytest.approx(report["benchmarks"]["Tiny"]["psnr_y"], abs=1e-3)


def test_bicubic_on_the_embedded_benchmark():
    process = run_here("evaluate.py", "--model", "bicubic", "--scale", 2, "--benchmarks", "sample")
    assert "Protocol: output rounded to 8 bits" in process.stdout
    assert re.search(r"^sample +2 +31\.15 +0\.9157 .*\+0\.00 dB$", process.stdout, re.M)


def test_scale_that_a_model_is_not_for(straight, tiny_benchmark_dir):
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    message = refusal("evaluate.py", "--model", straight, "--scale", 7, *tiny)
    assert "is trained to enlarge by 3, not by 7" in message


def test_evaluation_mistakes(tiny_benchmark_dir, tmp_path):
    folder = tmp_path / "model"
    A2N(2).save_pretrained(folder)
    tiny = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    message = refusal("evaluate.py", "--model", "nowhere", *tiny)
    assert "There is no model, folder or file nowhere. " in message
    bicubic = ("evaluate.py", "--model", "bicubic", *tiny)
    assert "bicubic needs a --scale" in refusal(*bicubic)
    message = refusal(*bicubic, "--scale", 2, "--lpips", TORCH_HOME=str(tmp_path))
    assert "LPIPS needs the weights of AlexNet, which torchvision cannot download" in message
    message = refusal("evaluate.py", "--model", folder)
    assert "Set5 (eugenesiow/Set5 on the Hub) cannot be had: Cannot reach http://127" in message
    assert "use --benchmark_dir DIR; or --benchmarks sample, which is here." in message
    message = refusal("evaluate.py", "--model", "out/nothing", *tiny)
    assert "There is no folder out/nothing. Train a model first. " in message
    message = refusal("evaluate.py", "--model", "user/nothing", *tiny)
    assert "There is no folder user/nothing. Cannot reach http://127.0.0.1:" in message
    message = refusal("evaluate.py", "--model", folder, *tiny[:2])
    assert f"There is no set Set5 in {tiny_benchmark_dir}. There are: Tiny. --bench" in message
    assert "holds the sets, each in a folder of its name; docs/evaluate.md shows it." in message
    message = refusal("evaluate.py", "--model", folder, tiny[0], tmp_path / "nowhere")
    assert f"There is no folder {tmp_path / 'nowhere'}. --benchmark_dir names the fol" in message
    for place in (tiny_benchmark_dir / "Tiny", tiny_benchmark_dir / "Tiny" / "HR"):
        message = refusal("evaluate.py", "--model", folder, tiny[0], place)
        assert f"There is no set Set5 in {place}, which is a set itself: pictures lie" in message
        assert f"give --benchmark_dir {place.parent} --benchmarks {place.name}; docs/" in message
    message = refusal("evaluate.py", "--sr_dir", tmp_path / "nowhere", "--scale", 2, *tiny)
    assert f"There is no folder {tmp_path / 'nowhere'}. --sr_dir names that of" in message
    message = refusal("evaluate.py", "--sr_dir", tmp_path, "--scale", 2, *tiny)
    assert f"There is no 0.png or 0x2.png in {tmp_path}" in message
    assert "need a --model" in refusal("evaluate.py", "--sr_dir", tmp_path, "--save_images", "x")
    assert "needs a --comparison or a --page" in refusal(
        *bicubic, "--scale", 2, "--comparison_model", folder
    )
    assert "--sr_dir needs a --scale" in refusal("evaluate.py", "--sr_dir", tmp_path, *tiny)
    message = refusal(*bicubic, "--scale", 2, "--revision", "main")
    assert "--revision needs a --model on the Hub" in message
    other = ("--comparison_model", folder, "--comparison", "x.png")
    message = refusal(*bicubic, "--scale", 3, *other)
    assert f"{folder} is trained to enlarge by 2, not by 3" in message
    for number in range(3):
        Image.new("RGB", (95, 80)).save(tmp_path / f"{number}.png")
    message = refusal("evaluate.py", "--sr_dir", tmp_path, "--scale", 2, *tiny)
    assert "0.png is 95x80; 0.png, cropped to a multiple of 2, is 96x80" in message
