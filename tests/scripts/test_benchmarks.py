import hashlib
import importlib
import json
import re
import subprocess
import sys
import warnings
from argparse import Namespace
from importlib.metadata import version
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

import train_srcnn
from benchmarks import gpu, host, probe, sizes, training_step
from benchmarks.measure import benchmark_parser, processes, report, take_turns
from common.training.run import Run
from helpers.counting import count
from results.degraded import checksum_of_weights
from running import ROOT, SCRIPT, SMALL, refusal, run_here
from train_srcnn import SRCNN

FEW = ["--batch_size", 2]
STEP = ["--steps", 1, "--lr_size", 12, "--variants", *training_step.VARIANTS]


def test_turns_and_the_report_of_them(tmp_path, capsys):
    order = []

    def variant(name, values):
        return lambda: order.append(name) or values.pop(0)

    results = take_turns({"a": variant("a", [9, 4, 2, 6]), "b": variant("b", [9, 2, 2, 1])}, 3)
    assert "".join(order) == "abbaabba"
    assert results == {"a": [4, 2, 6], "b": [2, 2, 1]}  # without the first round

    args = Namespace(output=tmp_path / "new" / "result.json")
    device = torch.device("cpu")
    report(args, "steps a second", results, [("a", "b")], device, packages=["pytest"], note="short")
    content = json.loads(args.output.read_text())
    assert content["medians"] == {"a": 4, "b": 2}
    assert content["ratios"] == {
        "a / b": {"of_medians": 2, "smallest_of_a_round": 1, "largest_of_a_round": 6, "n": 3}
    }
    assert content["note"] == "short"
    assert content["hardware"]["cores"] >= 1
    assert content["versions"]["pytest"] == version("pytest")
    assert "h5py" not in content["versions"]  # which `make setup` does not install
    assert "a / b: 2 (1 to 6 in 3 rounds)" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark_parser("loader.py", "", rounds=1).parse_args(["--output", f"{tmp_path}"])
    assert f"argument --output: {tmp_path} is a folder; name a file" in capsys.readouterr().err


def test_processes_end_together():
    with processes(count, ["a", "b"]) as pipes:
        pipes["b"].send(3)
        assert pipes["b"].recv() == ("b", 3)

    def die():
        with processes(count, ["a", "b"]) as pipes:
            pipes["a"].send(-1)
            pipes["a"].recv()  # while "b" waits for its turn

    with pytest.raises(EOFError):
        die()


def test_each_checkpoint_is_timed(tmp_path):
    file = tmp_path / "checkpoint.json"
    options = ("--rounds", 2, "--batch_size", 1, "--mixed_precision", "no", "--output", file)
    run_here("benchmarks.checkpoint", *map(str, options))
    facts = json.loads(file.read_text())
    assert [len(facts["rounds"][name]) for name in ("step", "checkpoint")] == [2, 2]
    assert facts["megabytes"] > 12  # weights and two moments of a million, 4 bytes each


@pytest.mark.parametrize("mode", ["rate", "profile", "sync"])
def test_the_probe_looks_at_the_steps_after_the_warm_up(mode, pictures_dir, tmp_path, monkeypatch):
    steps, logging_steps = [], []

    class CountingRun(Run):
        def end_step(self, **values):
            super().end_step(**values)
            steps.append(self.step)
            logging_steps.append(self.args.logging_steps)

    monkeypatch.setattr(probe, "Run", CountingRun)
    options = ("--steps", 2, "--warm_up", 1, "--json", tmp_path / "found.json")
    training = (SCRIPT, *SMALL, "--train_data_dir", pictures_dir)
    printed = run_here("benchmarks.probe", *map(str, (mode, *options, *training))).stdout
    assert steps == [1, 2, 3]
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found)[:8] == [
        *("command", "torch", "device", "ms_per_step", "steps_per_second", "patches_per_second"),
        *("share_of_time_waiting", "peak_gb"),
    ]
    assert found["waits_per_step"] == {}
    assert found["command"].startswith(f"python {SCRIPT} --batch_size 4")
    assert found["patches_per_second"] == pytest.approx(4 * found["steps_per_second"], rel=0.01)
    assert found["ms_per_step"] == pytest.approx(1e3 / found["steps_per_second"], rel=0.01)
    assert 0 < found["share_of_time_waiting"] < 1
    assert logging_steps[0] == (int(probe.NEVER) if mode == "sync" else 5)
    is_profile = mode == "profile"
    assert ("aten::convolution_backward" in printed) is is_profile
    assert found.get("gpu_busy_ms_per_step") == (0 if is_profile else None)


def test_a_training_must_not_end_before_the_probe(pictures_dir):
    training = (SCRIPT, *SMALL, "--train_data_dir", pictures_dir, "--max_train_steps", 2)
    message = refusal("benchmarks.probe", *map(str, ("rate", "--steps", 2, *training)))
    assert message.startswith("The training ends after 2 of 22 steps. Give a larger --max_train")
    assert train_srcnn.Run is Run


@pytest.mark.parametrize("network", gpu.NETWORKS)
def test_each_script_takes_the_options_of_the_benchmark_on_a_gpu(network, monkeypatch):
    script, given = importlib.import_module(f"train_{network}"), []
    monkeypatch.setattr(script, "main", given.append)
    for options in gpu.VARIANTS.values():
        probe.main(["rate", f"train_{network}.py", *gpu.OWN.get(network, []), *options])
        script.parse_args(given[-1])
    assert len(given) == len(gpu.VARIANTS)


def test_the_probe_counts_the_work_of_a_gpu():
    kinds = (DeviceType.CPU, 900.0, 7), (DeviceType.CUDA, 3000.0, 40), (DeviceType.CUDA, 500.0, 2)
    keys = ("device_type", "self_device_time_total", "count")
    events = [SimpleNamespace(**dict(zip(keys, values, strict=True))) for values in kinds]
    work = {"gpu_busy_ms_per_step": 0.35, "kernels_per_step": 4.2}
    assert probe.work_of_gpu(events, 10) == work


def test_the_probe_names_the_places_that_wait():
    waits = probe.Waits()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = waits.note
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("called something else", stacklevel=1)
    ((place, count),) = waits.places.items()
    assert re.match(r"test_benchmarks\.py:\d+ < ", place)
    assert count == 2


def test_the_host_is_measured_without_the_network(pictures_dir, tmp_path, monkeypatch):
    def forward(self, lr):
        raise AssertionError("the network is there")

    monkeypatch.setattr(train_srcnn, "Run", train_srcnn.Run)  # which the benchmark replaces
    monkeypatch.setattr(train_srcnn.SRCNN, "forward", forward)  # too
    monkeypatch.setattr(sys, "argv", [])
    reply = StringIO()
    monkeypatch.setattr(
        host, "main", lambda options: host.serve("srcnn", options, StringIO("3\n1\n"), reply)
    )
    options = (*SMALL, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    run_here("benchmarks.host", *map(str, options))
    turns = [json.loads(line) for line in reply.getvalue().splitlines()]
    assert [len(parts) for parts in turns] == [len(host.PARTS)] * 2
    assert min(min(parts) for parts in turns) > 0


def test_results_say_by_what_they_were_measured():
    files = list((ROOT / "benchmarks" / "results").glob("*.json"))
    assert len(files) > 5
    for file in files:
        facts = json.loads(file.read_text())
        module = re.match(r"python -m benchmarks\.(\w+)", facts["command"])
        assert module, file
        assert (ROOT / "benchmarks" / f"{module[1]}.py").is_file()
        assert re.fullmatch(r"[0-9a-f]{40}", facts["versions"]["commit"]), file
        assert all(ratio["n"] > 1 for ratio in facts["ratios"].values())


def test_the_page_on_sizes_has_what_was_measured_by_these_weights():
    facts = json.loads((ROOT / "benchmarks" / "results" / "sizes.json").read_text())
    page = (ROOT / "docs" / "enlarge.md").read_text()
    names = ("bicubic", "A2N x2", "A2N x4", "SRCNN x3", "VDSR x2 x3 x4")
    for factor in (1.5, 2, 2.5, 3, 3.5):
        psnr = [f"{facts['means'][f'{name}, by {factor:g}']:.2f}" for name in names]
        assert f"| {factor:g} | {' | '.join(psnr)} |" in page
    for name in ("a2n-x2", "a2n-x4", "srcnn-x3"):
        again = "measure again by the command of docs/enlarge.md"
        assert facts["weights"][name] == checksum_of_weights(name), again


def test_sizes_are_measured_with_the_checksum_of_the_weights(tiny_benchmark_dir, tmp_path):
    SRCNN(2, "9-1-5").save(tmp_path / "srcnn")
    output = tmp_path / "sizes.json"
    options = ("--benchmark_dir", tiny_benchmark_dir, "--benchmark", "Tiny", "--output", output)
    sizes.main([f"{tmp_path / 'srcnn'}", *map(str, options)])
    facts = json.loads(output.read_text())
    weights = (tmp_path / "srcnn" / "model.safetensors").read_bytes()
    assert facts["weights"] == {"srcnn": hashlib.sha256(weights).hexdigest()}
    assert list(facts["means"]) == ["bicubic, by 1.5", "SRCNN x2, by 1.5"]


def is_rounded(text: str, value: float) -> bool:
    return abs(float(text) - value) <= 0.501 * 10 ** -len(text.partition(".")[2])


@pytest.mark.parametrize("name", ["export", "export_pretrained"])
def test_the_page_on_exports_has_what_was_measured(name):
    page = (ROOT / "docs" / "export.md").read_text()
    facts = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert len(facts["bytes"]) >= 18
    for form, size in facts["bytes"].items():
        network, kind = form.split(", ")
        psnr = [f"{facts['scores'][form][each]['psnr_y']:.2f}" for each in ("Set5", "B100")]
        time = facts["medians"][form] / facts["medians"][f"{network}, PyTorch"]
        assert f" | {kind} | {size / 1e6:.2f} | {' | '.join(psnr)} | {time:.2f} |" in page


def test_the_page_on_speed_has_the_ratios_that_were_measured():
    """Each `median (smallest to largest)` of the page is one of the files, as far as it is told."""
    measured = [
        [ratio[key] for key in ("of_medians", "smallest_of_a_round", "largest_of_a_round")]
        for file in (ROOT / "benchmarks" / "results").glob("*.json")
        for ratio in json.loads(file.read_text())["ratios"].values()
    ]
    found = re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", (ROOT / "docs/speed.md").read_text())
    assert len(found) > 20
    for told in found:
        assert any(all(map(is_rounded, told, ratio)) for ratio in measured), told


def test_the_loop_against_which_a_gpu_is_measured(pictures_dir, tmp_path):
    """The variants themselves take processes, and run in `make test-slow`."""
    output = tmp_path / "found.json"
    gpu.write_sub_images(pictures_dir, 24, tmp_path)
    sizes = "--network srcnn --batch_size 3 --patch_size 24 --steps 2 --warm_up 1".split()
    gpu.main([*sizes, "--plain", str(tmp_path), "--output", str(output)])
    found = json.loads(output.read_text())
    assert found["patches_per_second"] == pytest.approx(3 * found["steps_per_second"])
    assert 0 < found["share_of_time_waiting"] < 1
    lr, hr = gpu.SubImages(tmp_path, 24)[0]
    assert (lr.shape, hr.shape) == ((3, 12, 12), (3, 24, 24))
    assert lr.mean() == pytest.approx(hr.mean(), abs=0.02)  # of the same place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ratios", "options"),
    [
        ("training_step", 4, [*FEW, *STEP]),
        ("training", 2, [*FEW, "--steps", 1, "--network", "vdsr"]),
        ("srgan", 8, [*FEW, "--steps", 1]),
        ("host", 4, ["--network", "srgan", "--steps", 2, "--before", ROOT]),
        ("checkpoint", 1, FEW),
        ("upscale", 2, ["--side", 32]),
        ("gpu", 1, [*FEW, *"--steps 1 --warm_up 1 --variants plain bf16".split()]),
    ],
)
def test_benchmark_runs(name, ratios, options, tmp_path):
    output = tmp_path / "result.json"
    options = [*options, "--rounds", 1, "--output", output]
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, options)]
    subprocess.run(command, cwd=ROOT, check=True)
    (result,) = tmp_path.glob("*.json")
    assert len(json.loads(result.read_text())["ratios"]) == ratios
