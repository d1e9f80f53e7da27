"""interpolate.py and report.py."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import interpolate
import report
from common.errors import UserError
from common.hub import load_model
from common.metrics import psnr_y
from common.page.page import Page
from running import psnr_of, refusal, run_here
from train_srcnn import SRCNN
from train_srgan import SRGAN
from train_vdsr import VDSR


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        network = SRGAN(4, num_blocks=1, num_features=8)
        network.train()(torch.rand(2, 3, 16, 16))  # batch statistics of its own
        network.save(folder / name)
    SRGAN(4, num_blocks=2, num_features=8).save(folder / "deeper")
    VDSR([2, 3], num_layers=2).save(folder / "vdsr")
    return folder


def test_every_weight_is_between(models, tmp_path, monkeypatch):
    output = tmp_path / "<b>" / "model"
    base = ("interpolate.py", models / "first", models / "second")
    run_here(*base, "--alpha", 0.75, "--output_dir", output)
    first, second, between = (
        load_model(folder).state_dict() for folder in (models / "first", models / "second", output)
    )
    for name, tensor in between.items():
        expected = second[name]
        if tensor.is_floating_point():
            expected = first[name] + 0.75 * (second[name] - first[name])
        torch.testing.assert_close(tensor, expected)
    card = (output / "README.md").read_text()
    assert "every weight is 0.25 times that of first plus 0.75 times that of second" in card
    message = refusal(*base, "--alpha", 0.75, "--output_dir", output)
    assert "is not empty" in message
    monkeypatch.chdir(tmp_path)
    printed = run_here(*base, "--alpha", 0.7).stdout
    assert f"The model of alpha 0.7 is in {Path('out/second-0.7')}." in printed
    assert Path("out/second-0.7/model.safetensors").is_file()


def test_a_curve_of_another_scale(models, tiny_benchmark_dir):
    base = ("interpolate.py", *[models / "vdsr"] * 2, "--curve", 2, "--benchmark_dir")
    options = (tiny_benchmark_dir, "--benchmarks", "Tiny")
    assert "VDSR x2, means over Tiny" in run_here(*base, *options).stdout
    assert "VDSR x3, means over Tiny" in run_here(*base, *options, "--scale", 3).stdout
    assert "by 2 or 3, not by 4" in refusal(*base, *options, "--scale", 4)


def test_the_curve(models, tiny_benchmark_dir, tmp_path, monkeypatch):
    def lpips(sr, hr, crop_border):
        return psnr_y(sr, hr, crop_border) / 100

    monkeypatch.setattr(interpolate, "make_lpips", lambda device: lpips)
    base = ("interpolate.py", models / "first", models / "second", "--curve", 3)
    options = ("--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    page, output = tmp_path / "curve.html", tmp_path / "new" / "curve.json"
    printed = run_here(*base, *options, "--page", page, "--output", output).stdout
    assert "SRGAN x4, means over Tiny" in printed
    rows = [line.split() for line in printed.splitlines() if re.match(r"\d\.\d\d ", line)]
    assert [row[0] for row in rows] == ["0.00", "0.50", "1.00"]
    for row, folder in ((rows[0], "first"), (rows[2], "second")):
        psnr = psnr_of(load_model(models / folder), tiny_benchmark_dir / "Tiny", 4)
        assert float(row[1]) == pytest.approx(psnr, abs=0.01)
        assert float(row[3]) == pytest.approx(psnr / 100, abs=1e-3)
    assert page.read_text().count("<svg") == 3
    assert f"Written: {output}" in printed
    facts = json.loads(output.read_text())
    assert facts["benchmarks"] == ["Tiny"]
    assert [f"{point['alpha']:.2f} {point['psnr_y']:.2f}" for point in facts["curve"]] == [
        f"{row[0]} {row[1]}" for row in rows
    ]
    taken = f"--output {output} exists already; name another, or add --overwrite"
    assert taken in refusal(*base, *options, "--output", output)

    def none(device):
        raise UserError("AlexNet cannot be had.")

    monkeypatch.setattr(interpolate, "make_lpips", none)
    printed = run_here(*base, *options, "--degradation", "jpeg:50").stdout
    assert "The curve is without LPIPS. AlexNet cannot be had." in printed
    assert "LR made from HR by --degradation jpeg:50; PSNR" in printed


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        ("vdsr", ("--alpha", 1), "The first network is SRGAN and the second VDSR."),
        ("deeper", ("--alpha", 1), "The two networks SRGAN differ: num_blocks is 1 and 2."),
        ("second", (), "nothing to do; give --alpha 0.7 for a network, or --curve 11"),
        ("second", ("--output_dir", "new"), "--output_dir new needs an --alpha; give --alpha 0.7"),
        ("second", ("--alpha", 1, "--scale", 4), "--scale belongs to --curve. Leave it out"),
        ("second", ("--alpha", 1, "--output", "a.json"), "--output belongs to --curve. Leave it"),
        ("second", ("--alpha", 1, "--degradation", "jpeg"), "--degradation belongs to --curve."),
        ("second", ("--curve", 1), "--curve 1 is not at least 2"),
    ],
)
def test_what_has_nothing_between(other, options, message, models, tmp_path):
    output = ("--output_dir", tmp_path / "new") if "--alpha" in options else ()
    base = ("interpolate.py", models / "first", models / other)
    assert message in refusal(*base, *options, *output)
    assert not (tmp_path / "new").exists()


def test_a_page_of_a_run(train, pictures_dir, tmp_path):
    folder = tmp_path / "run"
    train("train_srcnn.py", folder, "--report_to", "none")
    printed = run_here("report.py", folder, "--pictures", 1).stdout
    assert f"{folder / 'report.html'} is a page to open in a browser." in printed
    text = (folder / "report.html").read_text()
    (picture,) = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [each["label"] for each in picture["versions"]] == ["Bicubic", "SRCNN", "Original"]
    assert picture["name"] == "7.png"  # the last one, which is validated on
    assert text.count("<svg") == 2  # PSNR and loss
    assert "20 of 20" in text
    assert "train_srcnn.py" in text
    run_here("report.py", folder)  # an earlier report is replaced
    shutil.copy(folder / "report.html", tmp_path / "page.html")  # another page is not
    message = refusal("report.py", folder, "--output", tmp_path / "page.html")
    assert "page.html exists already; name another, or add --overwrite" in message
    (folder / "report.html").write_text("mine")
    assert "report.html exists already; name another" in refusal("report.py", folder)
    message = refusal("report.py", "out/nothing")
    assert message.endswith("There is no folder out/nothing. Give the --output_dir of a training.")
    message = refusal("report.py", pictures_dir)
    assert "args.json is not there, so nobody knows what run it is of." in message
    assert "Give the --output_dir of a training." in message


def test_own_metrics_of_a_run_and_the_steps_that_are_saved(tmp_path):
    (tmp_path / "README.md").write_text("Best validation, at step 2, on 2 pictures: MAE 1.5000")
    lines = [{"step": 1, "loss": 0.5, "learning_rate": 0.1}]
    lines += [{"step": step, "psnr_y": 30 - step, "mae": 3.5 - step} for step in (1, 2, *[3] * 20)]
    page = Page("A run")
    report.add_curves(page, tmp_path, lines)
    report.add_scores(page, tmp_path, lines)
    text = page.html()
    assert "<tr><th>Step</th><th>PSNR-Y</th><th>MAE</th></tr>" in text
    marked = re.findall(r"<tr class=marked>(.*?)</tr>", text)
    assert marked == ["<td>2</td><td>28.00</td><td>1.5000</td>"]  # and not that of the best PSNR
    assert "<td>1</td>" not in text  # the last 20 are shown, and what is saved
    assert text.count("<svg") == 3  # PSNR, own metric, loss


def test_steps_of_a_run_by_minutes():
    for steps, said in ((10**9, "50"), (2000, "50 of 2,000")):  # before it has measured, and after
        record = {"args": {"max_train_steps": steps, "max_train_minutes": 5}}
        assert ("Steps", said) in report.facts(record, [{"step": 50}], [], None)


def test_a_page_of_a_run_whose_pictures_are_gone(train, pictures_dir, tmp_path):
    pictures = shutil.copytree(pictures_dir, tmp_path / "pictures")
    folder = tmp_path / "run"
    train("train_srcnn.py", folder, "--report_to", "none", "--train_data_dir", pictures, steps=2)
    shutil.rmtree(pictures)
    assert "The validation pictures cannot be had: " in run_here("report.py", folder).stdout
    assert "<svg" in (folder / "report.html").read_text()


def test_runs_of_one_process_may_differ_in_precision(train, tmp_path):
    from accelerate.state import AcceleratorState

    import train_srcnn

    run_here("train_srcnn.py", "--help", check=False)
    for number, precision in enumerate(("no", "bf16")):
        options = ["--dataset_name", "sample", "--max_train_steps", 1, "--batch_size", 2]
        options += ["--patch_size", 24, "--num_workers", 0, "--report_to", "none"]
        options += ["--mixed_precision", precision, "--cpu_threads", 1]
        train_srcnn.main([*options, "--output_dir", tmp_path / f"{number}"])
        assert AcceleratorState().mixed_precision == precision


def test_a_run_that_failed_does_not_keep_its_folder(train, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as failed:  # whose traceback holds the run
        train("train_srcnn.py", folder, "--train_data_dir", tmp_path, runner=_main)
    assert failed.value
    train("train_srcnn.py", folder, "--report_to", "none", steps=1)
    assert isinstance(load_model(folder), SRCNN)


def _main(script, *options):
    import train_srcnn

    train_srcnn.main(list(options))
