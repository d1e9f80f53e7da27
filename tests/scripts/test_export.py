import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.torch_version import TorchVersion

import export
from common.exports import checks
from common.exports.ncnn_files import NcnnNetwork, for_float16, to_ncnn
from common.exports.onnx_file import OnnxNetwork
from common.exports.web import PAGE, RUNTIME
from common.hub import load_model
from common.images.color import luma, replace_luma
from common.images.resize import imresize
from helpers.pictures import write
from running import ROOT, refusal, run_here
from train_a2n import A2N
from train_srcnn import SRCNN
from train_srgan import SRGAN
from train_vdsr import VDSR

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# For one process of pytest-xdist, whose first export takes as long as all others.
pytestmark = pytest.mark.xdist_group("export")

SCALES = {"a2n": 4, "srcnn": 2, "srgan": 4, "vdsr": 3}
# What a tile needs around it; with means of the whole picture A2N cannot be tiled.
MARGINS = {"a2n": {}, "srcnn": {"margin": "5"}, "srgan": {"margin": "10"}, "vdsr": {"margin": "4"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a small model of random weights for each network."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    A2N(4, num_blocks=2).save_pretrained(folder / "a2n")
    SRGAN(4, num_blocks=1).save_pretrained(folder / "srgan")
    VDSR([2, 3], num_layers=4).save_pretrained(folder / "vdsr")
    srcnn = SRCNN(2)
    for parameter in srcnn.parameters():  # which would begin at nearly 0
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    srcnn.save_pretrained(folder / "srcnn")
    return folder


@pytest.fixture(scope="module")
def exported(models) -> Callable[[str], tuple[Path, str]]:
    """Exports a network, once: its file, and what the script prints."""

    @cache
    def exported(name):
        file = models / f"{name}.onnx"
        options = ("--output", file, "--scale", SCALES[name])
        end = run_here("export.py", "--model", models / name, *options)
        assert not end.stderr
        return file, end.stdout

    return exported


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 1, 7), (1, 3, 31, 2), (3, 3, 6, 5)])
@pytest.mark.parametrize("name", SCALES)
def test_onnxruntime_gives_what_pytorch_gives(exported, models, name, shape):
    model = load_model(models / name, scale=SCALES[name])
    lr = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    (sr,) = onnxruntime.InferenceSession(exported(name)[0]).run(["sr"], {"lr": lr.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(sr), model(lr), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SCALES)
def test_file_tells_what_it_is(exported, name):
    file, output = exported(name)
    network, scale = onnx.load(file), SCALES[name]
    onnx.checker.check_model(network, full_check=True)
    assert {entry.key: entry.value for entry in network.metadata_props} == {
        "architecture": name,
        "scale": f"{scale}",
        "input_range": "[0, 1]",
    } | MARGINS[name]
    sizes = {
        tensor.name: [
            size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim
        ]
        for tensor in (*network.graph.input, *network.graph.output)
    }
    assert sizes == {
        "lr": ["batch", 3, "height", "width"],
        "sr": ["batch", 3, f"{scale}*height", f"{scale}*width"],
    }
    assert str(ROOT).encode() not in file.read_bytes()
    *checks, last = output.splitlines()
    assert [line.split(":")[0] for line in checks] == ["1x3x17x23", "1x3x40x33", "2x3x9x11"]
    assert all(float(line.split()[-1]) < 1e-5 for line in checks)
    assert last.startswith(f"{file}: {name.upper()} x{scale}, ")


def test_named_by_folder_and_scale_and_not_overwritten(exported, models, tmp_path, monkeypatch):
    content = exported("vdsr")[0].read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda model: content)
    monkeypatch.chdir(tmp_path)
    command = ("export.py", "--model", models / "vdsr", "--scale", 3)
    said = run_here(*command).stdout
    assert re.search(r"^vdsr_x3\.onnx: VDSR x3, [1-9]\d\d kB$", said, re.MULTILINE)
    assert "--scale for another" not in said
    (written,) = tmp_path.iterdir()
    assert written.name == "vdsr_x3.onnx"
    end = run_here(*command[:3], "--output", "vdsr_x2.onnx", check=False)
    assert end.stdout.startswith("Scale: x2 of x2, x3; --scale for another.\n")
    written.write_bytes(b"mine")
    assert "vdsr_x3.onnx exists already" in refusal(*command)
    assert written.read_bytes() == b"mine"
    run_here(*command, "--overwrite")
    assert written.read_bytes() == content


def test_file_with_other_results_is_not_left_behind(exported, models, tmp_path, monkeypatch):
    content = exported("srgan")[0].read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda model: content)
    written = tmp_path / "new" / "sr.onnx"
    model = load_model(models / "srgan")
    with torch.no_grad():
        model.tail.bias += 0.25
    model.save_pretrained(tmp_path / "model")
    message = refusal("export.py", "--model", tmp_path / "model", "--output", written)
    assert "sr.onnx is not written: onnxruntime and PyTorch differ by 2.5e-01," in message
    assert "more than 1e-04" in message
    SRGAN(2, num_blocks=1).save_pretrained(tmp_path / "smaller")
    message = refusal("export.py", "--model", tmp_path / "smaller", "--output", written)
    assert "differ by inf" in message
    assert not written.parent.exists()


def test_file_that_was_there_stays_if_the_new_one_differs(exported, models, tmp_path, monkeypatch):
    content = exported("srgan")[0].read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda model: content)
    monkeypatch.setattr(checks, "TOLERANCE", -1.0)  # which even equal results exceed
    written = tmp_path / "sr.onnx"
    written.write_bytes(b"mine")
    command = ("export.py", "--model", models / "srgan", "--output", written, "--overwrite")
    assert "is not written" in refusal(*command)
    assert list(tmp_path.iterdir()) == [written]
    assert written.read_bytes() == b"mine"


def test_refusals(models, tmp_path):
    command = ("export.py", "--model", models / "vdsr")
    message = refusal(*command, "--scale", 4)
    assert "vdsr is trained to enlarge by 2 or 3, not by 4" in message
    assert "is a folder; name a file." in refusal(*command, "--output", tmp_path)
    assert "is no model" in refusal("export.py", "--model", tmp_path)


def test_packages_that_are_missing(models, monkeypatch):
    command = ("export.py", "--model", models / "vdsr")
    for package in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    message = "export.py needs onnxscript and onnxruntime: pip install onnxscript onnxruntime"
    assert message in refusal(*command)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0+cpu"))
    assert "export.py needs PyTorch 2.9 or newer, not 2.8.0+cpu" in refusal(*command)


# ------------------------------------------------------------------------------ smaller numbers


@pytest.fixture
def srgan_is_exported(exported, monkeypatch) -> bytes:
    """The file of SRGAN, which `export.py` then finds as if it had made it."""
    content = exported("srgan")[0].read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda model: content)
    return content


@pytest.fixture
def photographs(pictures_dir, monkeypatch) -> None:
    """Small pictures in place of those of the scikit-image package."""
    sources = [{"hr": {"path": path}} for path in sorted(pictures_dir.glob("*.png"))]
    monkeypatch.setattr(export, "sample_pictures", lambda names: sources)


def test_fp16_is_half_as_large_and_takes_and_gives_float32(
    srgan_is_exported, models, photographs, monkeypatch
):
    monkeypatch.chdir(models)
    end = run_here("export.py", "--model", "srgan", "--precision", "fp16")
    content = (models / "srgan_x4_fp16.onnx").read_bytes()
    assert 0.45 < len(content) / len(srgan_is_exported) < 0.6
    assert "8 pictures: at least " in end.stdout
    lr = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    sr = OnnxNetwork(content)(lr)
    assert sr.dtype == torch.float32
    difference = (sr - OnnxNetwork(srgan_is_exported)(lr)).abs().max().item()
    assert 0 < difference < 2e-3


def test_int8_leaves_the_first_and_the_last_convolutions_alone(
    srgan_is_exported, models, tmp_path, pictures_dir
):
    output = tmp_path / "small.onnx"
    command = ("export.py", "--model", models / "srgan", "--precision", "int8")
    end = run_here(*command, "--calibration_dir", pictures_dir, "--output", output)
    assert "8 pictures: at least " in end.stdout
    network = onnx.load(output)
    onnx.checker.check_model(network)
    floats = {tensor.name for tensor in network.graph.initializer if tensor.data_type == 1}
    layers = [node.input[1] for node in network.graph.node if node.op_type == "Conv"]
    # Seven convolutions: the last third is two.
    assert [name in floats for name in layers] == [True] + [False] * 4 + [True] * 2
    lr = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1)) / 2 + 0.25
    assert (
        F.mse_loss(OnnxNetwork(output.read_bytes())(lr), OnnxNetwork(srgan_is_exported)(lr)) < 1e-3
    )


def test_a_result_that_differs_visibly_is_not_written(models, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", lambda model: b"")
    monkeypatch.setattr(export, "to_fp16", lambda file: b"")
    monkeypatch.setattr(export, "OnnxNetwork", lambda file: lambda lr: imresize(lr, 4) + 1)
    command = ("export.py", "--model", models / "srgan", "--precision", "fp16")
    message = refusal(*command, "--output", tmp_path / "a.onnx")
    assert "a.onnx is not written: fp16 and PyTorch differ visibly" in message
    assert not list(tmp_path.iterdir())


def test_refusals_of_precisions(models, tmp_path):
    command = ("export.py", "--model", models / "srgan")
    assert "ncnn takes fp32 and fp16" in refusal(*command, "--format=ncnn", "--precision=int8")
    assert "--calibration_dir belongs to --precision int8" in refusal(
        *command, "--calibration_dir", tmp_path
    )
    int8 = ("--precision", "int8", "--calibration_dir", tmp_path)
    assert f"{tmp_path} holds no pictures" in refusal(*command, *int8)
    message = refusal(*command, *int8[:3], tmp_path / "nowhere")
    assert f"There is no folder {tmp_path / 'nowhere'}. --calibration_dir is one of" in message
    (tmp_path / "a.png").write_text("none")
    assert f"{tmp_path / 'a.png'}: it is " in refusal(*command, *int8)
    write(tmp_path / "a.png", (9, 3))
    assert f"{tmp_path / 'a.png'} is smaller than 4x4 pixels" in refusal(*command, *int8)
    assert "SRGAN does not" in refusal(*command, "--attention_window", 64)
    assert "must end in .param" in refusal(*command, "--format=ncnn", "--output", tmp_path / "a")


# ----------------------------------------------------------------------------------------- ncnn


@pytest.mark.parametrize("window", [0, 16])
@torch.no_grad()
def test_network_for_ncnn_is_the_same_function_and_leaves_the_model_alone(models, window):
    model = load_model(models / "a2n")
    model.attention_window = window
    names = list(model.state_dict())
    network = export.portable(model)
    lr = torch.rand(1, 3, 21, 35, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(lr), model(lr), rtol=0, atol=1e-5)
    assert list(model.state_dict()) == names
    assert any(isinstance(part, export.PortableBlock) for part in network.modules())
    assert not any(isinstance(part, export.PortableBlock) for part in model.modules())


@pytest.mark.parametrize("name", ["srcnn", "vdsr"])
@torch.no_grad()
def test_luma_network_and_bicubic_are_the_network(models, name):
    model = load_model(models / name, scale=2)
    lr = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    enlarged = imresize(lr, 2)
    sr = replace_luma(enlarged, export.portable(model)(luma(enlarged)))
    torch.testing.assert_close(sr, model(lr), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*SCALES, "a2n-window"])
def test_ncnn_gives_what_pytorch_gives(models, name, tmp_path, monkeypatch):
    pytest.importorskip("pnnx", reason="pip install pnnx ncnn")
    pytest.importorskip("ncnn", reason="pip install pnnx ncnn")
    monkeypatch.chdir(tmp_path)
    name, *window = name.split("-")
    options = ("--scale", SCALES[name], *(("--attention_window", 64) if window else ()))
    end = run_here("export.py", "--model", models / name, "--format", "ncnn", *options)
    (binary, param) = sorted(tmp_path.iterdir())
    is_luma = name in ("srcnn", "vdsr")
    ending = f"x{SCALES[name]}{'_window64' if window else ''}"
    assert param.name == f"{name}{'_luma' if is_luma else ''}_{ending}.param"
    assert binary.name == param.with_suffix(".bin").name
    lines = end.stdout.splitlines()
    has_note = is_luma or (name == "a2n" and not window)
    *checks, _, _ = lines if has_note else [*lines, ""]
    channels = 1 if is_luma else 3
    sizes = [f"1x{channels}x17x23", f"1x{channels}x40x33", f"1x{channels}x9x11"]
    assert [line.split(":")[0] for line in checks] == sizes
    assert ("ncnn gets the luma network alone" in end.stdout) == is_luma
    model = load_model(models / name, scale=SCALES[name])
    model.attention_window = 64 if window else model.attention_window
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand(1, 30, 31, channels, generator=generator).movedim(-1, 1)  # as pictures lie
    with torch.no_grad():
        expected = model.enhance_luma(lr) if is_luma else model(lr)
    result = NcnnNetwork(param.read_text(), binary.read_bytes())(lr)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@pytest.fixture
def without_ncnn(monkeypatch) -> None:
    """Files for ncnn without the packages, which nobody tries."""
    monkeypatch.setattr(export, "check_packages", lambda *words: None)
    monkeypatch.setattr(export, "to_ncnn", lambda *words, **options: ("7767517", bytes(9)))
    monkeypatch.setattr(export, "NcnnNetwork", lambda *words: None)
    monkeypatch.setattr(export, "check", lambda *words: None)


def test_tiles_of_ncnn_need_a_window(without_ncnn, models, tmp_path):
    note = "enlarge in tiles, which then differ: --attention_window 64 makes them agree."
    for name, window, has_note in (("srgan", (), False), ("a2n", (), True), ("a2n", (64,), False)):
        options = ("--output", tmp_path / f"{name}{len(window)}.param")
        options += ("--attention_window", *window) if window else ()
        end = run_here("export.py", "--model", models / name, "--format", "ncnn", *options)
        assert (note in end.stdout) == has_note


def test_the_two_files_for_ncnn_are_written_both_or_none(
    without_ncnn, models, tmp_path, monkeypatch
):
    command = ("export.py", "--model", models / "srgan", "--format", "ncnn", "--output")
    param = tmp_path / "a.param"
    run_here(*command, param)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == [param.with_suffix(".bin"), param]
    monkeypatch.setattr(export, "to_ncnn", lambda *words, **options: ("1", bytes(1)))
    written = []

    def second_is_too_large(descriptor):
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", second_is_too_large)
    message = refusal(*command, param, "--overwrite")
    assert f"Cannot write {param} and {param.with_suffix('.bin')}, 2 bytes: No space" in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def network_of_small_weights():
    """The last convolution of A2N's published weights has none above 7e-4: 0.13 dB on Set5."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1))
    with torch.no_grad():
        for parameter in network[1].parameters():
            parameter *= 1e-4
    return network


def test_small_weights_are_made_larger_for_float16(network_of_small_weights):
    network, image = network_of_small_weights, torch.rand(1, 3, 9, 7)
    written = for_float16(network)
    torch.testing.assert_close(written(image), network(image), rtol=1e-6, atol=0)
    assert 0.5 <= written[1].convolution.weight.abs().max() < 1
    assert written[0].weight.equal(network[0].weight)


def test_small_weights_are_not_lost_in_ncnn(network_of_small_weights):
    network, image = network_of_small_weights, torch.rand(1, 3, 9, 7)
    pytest.importorskip("pnnx", reason="pip install pnnx ncnn")
    pytest.importorskip("ncnn", reason="pip install pnnx ncnn")
    result = NcnnNetwork(*to_ncnn(network, 3, fp16=True))(image)
    assert (result - network(image)).abs().max() < 1e-3 * network(image).abs().max()


def test_operation_that_ncnn_has_not_is_named():
    pytest.importorskip("pnnx", reason="pip install pnnx")

    class Lerp(nn.Module):
        def forward(self, x):
            return torch.lerp(x, x * x, torch.sigmoid(x))

    with pytest.raises(SystemExit, match="ncnn has no aten::lerp, which the network uses"):
        to_ncnn(Lerp(), 3, fp16=False)


def test_packages_for_ncnn(models, monkeypatch):
    for package in ("pnnx", "ncnn"):
        monkeypatch.setitem(sys.modules, package, None)
    message = refusal("export.py", "--model", models / "a2n", "--format", "ncnn")
    assert "export.py needs pnnx and ncnn: pip install pnnx ncnn" in message


# ---------------------------------------------------------------------------------- the browser


@pytest.fixture
def npm(tmp_path, monkeypatch) -> Path:
    """An npm that has onnxruntime-web, with other files in place of its own."""
    dist = tmp_path / "npm" / "package" / "dist"
    dist.mkdir(parents=True)
    for name in RUNTIME:
        (dist / name).write_text(f"this is {name}")
    program = tmp_path / "npm" / "npm"
    program.write_text(f"#!/bin/sh\ntar czf onnxruntime-web.tgz -C {tmp_path}/npm package\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}", prepend=":")
    return program


def test_page(npm, srgan_is_exported, models, tmp_path):
    page = tmp_path / "page"
    end = run_here("export.py", "--model", models / "srgan", "--web", page)
    assert f"python -m http.server --bind 127.0.0.1 --directory {page}" in end.stdout
    own = {path.name for path in PAGE.iterdir()}
    made = {path.name for path in page.iterdir()}
    assert made == own | {*RUNTIME, "network.onnx", "network.json"}
    assert (page / "network.onnx").read_bytes() == srgan_is_exported
    facts = json.loads((page / "network.json").read_text())
    assert facts == {"network": "SRGAN", "scale": 4, "margin": 10, "megabytes": facts["megabytes"]}
    scripts = "".join(path.read_text() for path in PAGE.iterdir())
    assert all(name in scripts for name in (*RUNTIME, "network.onnx", "network.json"))
    # A page is not written over another.
    (page / "index.html").write_text("mine")
    assert "is not empty" in refusal("export.py", "--model", models / "srgan", "--web", page)
    assert (page / "index.html").read_text() == "mine"


def test_page_of_a2n_has_means_that_tiles_know(npm, models, tmp_path, monkeypatch):
    windows = []
    monkeypatch.setattr(export, "to_onnx", lambda model: windows.append(model.attention_window))
    monkeypatch.setattr(export, "OnnxNetwork", lambda file: None)
    monkeypatch.setattr(checks, "greatest_difference", lambda *words: 1.0)
    command = ("export.py", "--model", models / "a2n", "--web", tmp_path / "page")
    assert "is not written" in refusal(*command)
    assert windows == [64]
    assert "a tile does not know" in refusal(*command, "--attention_window", 0)


def test_npm_that_is_missing_or_fails(npm, models, tmp_path, monkeypatch):
    command = ("export.py", "--model", models / "srgan", "--web", tmp_path / "page")
    npm.write_text("#!/bin/sh\necho npm error code ENOTFOUND >&2\nexit 1\n")
    message = refusal(*command)
    assert "npm cannot fetch onnxruntime-web@" in message
    assert "npm error code ENOTFOUND" in message
    monkeypatch.setenv("PATH", "")
    assert "--web needs npm, which fetches onnxruntime-web@" in refusal(*command)
    assert not (tmp_path / "page").exists()


def test_tiles_of_the_page_are_the_whole_and_opacity_is_bicubic(tmp_path):
    """By a network that sees one neighbor to every side, which zeros are at the border."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, which runs the page's JavaScript")
    shutil.copy(PAGE / "tiles.js", tmp_path / "tiles.mjs")  # a module, as the page loads it
    height, width, scale = 140, 130, 8
    rgba = np.random.default_rng(0).integers(1, 256, (height, width, 4), dtype=np.uint8)
    (tmp_path / "rgba").write_bytes(rgba.tobytes())
    command = [node, ROOT / "tests" / "helpers" / "tiles.mjs", tmp_path / "tiles.mjs"]
    numbers = map(str, (width, height, scale))
    end = subprocess.run([*command, *numbers], cwd=tmp_path, capture_output=True, text=True)
    assert not end.returncode, end.stderr
    parts = json.loads(end.stdout)  # four tiles of 112 pixels
    assert parts == sorted(parts)
    assert (len(parts), parts[-1]) == (4, 1)

    lr = torch.from_numpy(rgba[..., :3]).movedim(-1, 0).double()
    padded = F.pad(lr, (0, 1, 1, 0))
    mean = (padded[:, :-1, :-1] + padded[:, 1:, 1:] + 2 * lr) / 4
    expected = mean.repeat_interleave(scale, 1).repeat_interleave(scale, 2).movedim(0, -1)
    sr = np.fromfile(tmp_path / "sr", np.uint8).reshape(height * scale, width * scale, 4)
    assert (torch.from_numpy(sr[..., :3]) - expected).abs().max() <= 0.5 + 1e-3
    alpha = imresize(torch.from_numpy(rgba[..., 3]).float(), scale).clamp(0, 255)
    assert (torch.from_numpy(sr[..., 3]) - alpha).abs().max() <= 0.5 + 1e-3
