import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

import export
from common.hub import load_model
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
    }
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
    run_here(*command)
    (written,) = tmp_path.iterdir()
    assert written.name == "vdsr_x3.onnx"
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
    monkeypatch.setattr(export, "TOLERANCE", -1.0)  # which even equal results exceed
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
