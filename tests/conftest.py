"""Fixtures of all tests. No test reaches a network or leaves anything in the user's cache."""

import gc
import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.ports import reserve_port

# Before anything imports `datasets` or `huggingface_hub`, which read them once.
# (TMPDIR: also for what launchers, workers and compilers leave behind.)
os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="super-resolution-tests-")
os.environ["HF_HOME"] = os.path.join(os.environ["TMPDIR"], "huggingface")
os.environ.pop("HF_DATASETS_CACHE", None)
os.environ.pop("HF_HUB_OFFLINE", None)
# A process for each core is started by pytest-xdist. (After an import of PyTorch it is too late.)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nobody listens there but the tests' own Hub, while a test has one.
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{reserve_port()}"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # which the tests' Hub does not have
os.environ |= dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)
os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
# Else a machine with a GPU would train on it, and find other values than the tests expect.
os.environ["ACCELERATE_USE_CPU"] = "true"

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import common.machine
from common.data.find import SAMPLE_BENCHMARK, sample_pictures

pytest.register_assert_rewrite("running")
from helpers.hub_server import HubServer, make_repositories  # noqa: E402 (after HF_ENDPOINT)
from running import OWN, ROOT, SMALL, run_here  # noqa: E402 (after the line above)

SHARED = ROOT.parent / "shared"


def pytest_collection_finish() -> None:
    """Leaves out of every later `gc.collect()`, 0.2 s each, the objects of all modules."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Leaves the disk as it was."""
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _gpu_if_marked(request: pytest.FixtureRequest) -> None:
    """Lets only tests with the mark `gpu` train on one."""
    if request.node.get_closest_marker("gpu"):  # (its keywords hold the names of all folders)
        request.getfixturevalue("monkeypatch").delenv("ACCELERATE_USE_CPU")


@pytest.fixture(scope="session")
def benchmark_dir() -> Path:
    """Set5, Set14 and B100, which this repository may not pass on."""
    folder = SHARED / "data" / "benchmarks"
    if not folder.is_dir():
        pytest.skip("Set5, Set14 and B100 are not beside the repository, in shared/data/benchmarks")
    return folder


@pytest.fixture(scope="session")
def published_weights() -> Callable[[str], Path]:
    """Finds weights that were published for a network."""

    def find(name: str) -> Path:
        file = SHARED / "weights" / name
        if not file.is_file():
            pytest.skip(f"{name} is not beside the repository, in shared/weights")
        return file

    return find


@pytest.fixture(scope="session")
def published_a2n(published_weights) -> Path:
    """The authors' weights of A2N x2."""
    return published_weights("a2n_x2_published.safetensors")


@pytest.fixture(scope="session")
def pictures_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight PNG pictures of 96x80 pixels, cut from the photographs of the scikit-image package."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, source in enumerate(sample_pictures(SAMPLE_BENCHMARK) * 4):
        left, top = 40 * number, 30 * number
        with Image.open(source["hr"]["path"]) as image:
            crop = image.convert("RGB").crop((left, top, left + 96, top + 80))
        crop.save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_benchmark_dir(pictures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the benchmark `Tiny`: three of those pictures."""
    folder = tmp_path_factory.mktemp("benchmarks")
    hr = folder / "Tiny" / "HR"
    hr.mkdir(parents=True)
    for number in range(3):
        (hr / f"{number}.png").write_bytes((pictures_dir / f"{number}.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def train(pictures_dir: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a training script on the small pictures, in this process unless a runner is given."""
    importlib.import_module("torch._dynamo")  # which a training does late
    pytest_collection_finish()

    def train(script, output_dir, *options, steps=20, runner=run_here):
        return runner(
            script,
            *SMALL,
            *OWN.get(script, ()),
            *("--train_data_dir", pictures_dir),
            *("--output_dir", output_dir),
            *("--max_train_steps", steps),
            *("--validation_steps", 10),
            *("--checkpointing_steps", 10),
            *options,
        )

    return train


@pytest.fixture(scope="session")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG16's convolutions, as if of torchvision."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = torchvision.models.vgg16(weights=None).features.state_dict()
    tensors = {f"features.{n}": torch.randn(t.shape) / 30 for n, t in shapes.items()}
    file = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(tensors, file)
    return file


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., float]]:
    """Notes in `look.seen` (precision of float32, search for kernels) when it is called.

    The program around it has allowed TF32 and the search, and has its settings back at the end. It
    can stand for a metric.
    """

    def look(*_: object) -> float:
        look.seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark))
        return 0.0

    look.seen = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_float32_matmul_precision("high")
    try:
        yield look
        now = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
        assert now == ("high", True)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="module")
def repositories(pictures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Hub that has data sets in all layouts, and no models."""
    folder = tmp_path_factory.mktemp("hub")
    make_repositories(folder, sorted(pictures_dir.glob("*.png")))
    return folder


@pytest.fixture
def empty_cache() -> None:
    """Removes what was downloaded before."""
    home = Path(os.environ["HF_HOME"])
    for folder in (home / "hub", home / "assets", home / "datasets"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hub(repositories: Path, empty_cache: None) -> Iterator[HubServer]:
    """The Hub, as it is met for the first time."""
    with HubServer(repositories, os.environ["HF_ENDPOINT"]) as hub:
        yield hub


if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has its core
    torch.set_num_threads(1)
    common.machine.count_cores = lambda: 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
