"""Memory that runs out in the words of many libraries, and float32 that is float32."""

import json
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from common.data.patches import BenchmarkDataset
from common.device import forget, is_out_of_memory, kernel_search, true_float32
from common.errors import UserError
from common.evaluation import evaluate, score_pictures
from common.images.formats import Picture
from common.images.writing import write_picture
from common.network import LEAST_ROWS
from running import run
from train_srcnn import SRCNN


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError("Unable to allocate 3.00 GiB for an array"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other: 0.10 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=lambda error: f"{error}"[:40],
)
def test_words_for_a_lack_of_memory(error):
    assert is_out_of_memory(error)
    wrapped = ValueError("in the words of a compiler")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. Non-contiguous input."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Given groups=1, expected 3 channels"),
        RuntimeError("out of resource: shared memory, Required: 270336, limit: 232448"),
        ValueError("CUDA out of memory"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: f"{error}"[:40],
)
def test_words_for_something_else(error):
    assert not is_out_of_memory(error)


def test_a_real_lack_of_memory_of_a_cpu():
    with pytest.raises(Exception) as caught:  # noqa: PT011
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    forget(caught.value)
    assert caught.value.__traceback__ is None


class Little(SRCNN):
    """Has memory for so many pixels at once, and then says what its library would say."""

    memory, asked, words = 10**9, [], "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"

    def forward(self, lr):
        self.asked.append(lr.shape[-2])
        if lr.shape[-2] * lr.shape[-1] > self.memory:
            raise RuntimeError(f"{self.words} at {len(self.asked)}")
        return super().forward(lr)


def test_bands_are_halved_until_they_fit(monkeypatch):
    monkeypatch.setattr("common.bands.BAND", 40 * 32 * 4)  # bands of 40 rows
    network, lr = Little(2).eval(), torch.rand(1, 3, 100, 32)
    nn.init.normal_(network.layers[0].weight)
    monkeypatch.setattr(Little, "asked", [])
    with torch.no_grad():
        expected = network(lr)
        monkeypatch.setattr(Little, "memory", 36 * 32)
        assert torch.allclose(network.enlarge(lr), expected, atol=1e-6)
    assert max(Little.asked[2:]) <= 36  # after the whole and the first band
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        network.enlarge(lr, halves=False)
    monkeypatch.setattr(Little, "memory", 0)
    monkeypatch.setattr(Little, "asked", [])
    with pytest.raises(RuntimeError, match=r"ALLOC_FAILED at 1$"):  # the first error, not the last
        network.enlarge(lr)
    margin = network.margin
    assert Little.asked == [rows + margin for rows in (40, 20, LEAST_ROWS)]
    monkeypatch.setattr(Little, "words", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
    monkeypatch.setattr(Little, "asked", [])
    with pytest.raises(RuntimeError, match=r"NOT_SUPPORTED at 1$"):
        network.enlarge(lr)


STATE = """
import json, os, sys, torch
from common.device import true_float32
b = torch.backends
new = [b.cudnn.conv, b.cuda.matmul, b.mkldnn.conv, b.mkldnn.matmul, b.cudnn.rnn]
def read(f):
    try:
        return f()
    except RuntimeError:
        return "mixed"
def state():
    old = [lambda: b.cudnn.allow_tf32, lambda: b.cuda.matmul.allow_tf32]
    old.append(torch.get_float32_matmul_precision)
    return [part.fp32_precision for part in new], [read(f) for f in old]
for program in sys.argv[1:]:
    if os.fork():  # what a program once set cannot be made unset
        os.wait()
        continue
    exec(program)
    set_up = state()
    try:
        with true_float32():
            inside = state()
            raise KeyError
    except KeyError:
        pass
    print(json.dumps([set_up, inside, state()]))
    break
"""


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9")
def test_float32_is_true_and_the_settings_are_as_before():
    programs = [
        "pass",
        "b.cudnn.conv.fp32_precision = 'tf32'",
        "b.fp32_precision = 'tf32'; b.cudnn.conv.fp32_precision = 'ieee'",
        "b.cuda.matmul.allow_tf32 = True",
        "b.cudnn.allow_tf32 = False",
        "torch.set_float32_matmul_precision('medium')",
    ]
    lines = run("-c", STATE, *programs).stdout.splitlines()
    for program, line in zip(programs, lines, strict=True):
        set_up, (precisions, old), after = json.loads(line)
        assert precisions[:4] == ["ieee"] * 4, program
        # A compiler must be able to read what the program has not itself made unreadable.
        assert all(now in (False, before) for before, now in zip(set_up[1][:2], old, strict=False))
        assert True not in old, program
        assert after == set_up, program


def test_old_settings_alone(monkeypatch):
    """As in PyTorch before 2.9."""

    class Backend:
        allow_tf32 = True

    for name in ("cudnn", "cuda"):
        monkeypatch.setattr(torch.backends, name, Backend())
    precision = ["high"]
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision[0])
    monkeypatch.setattr(
        torch, "set_float32_matmul_precision", lambda value: precision.__setitem__(0, value)
    )
    with true_float32():
        read = torch.backends.cudnn.allow_tf32, precision[0]
    assert read == (False, "highest")
    assert (torch.backends.cudnn.allow_tf32, precision) == (True, ["high"])


def test_the_search_for_kernels_is_as_before():
    before = torch.backends.cudnn.benchmark
    for wanted in (True, False):
        with suppress(KeyError), kernel_search(wanted):
            assert torch.backends.cudnn.benchmark is wanted
            raise KeyError
        assert torch.backends.cudnn.benchmark is before


class OnePicture(BenchmarkDataset):
    def __init__(self):
        self.scale = 2
        self.pictures = SimpleNamespace(names=["a.png"], sizes=np.array([[60, 40]]))

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return "a.png", *(torch.zeros(3, 60 // n, 40 // n, dtype=torch.uint8) for n in (2, 1))


def test_a_benchmark_is_scored_in_true_float32(look, tmp_path):
    def model(lr):
        look()
        return nn.functional.interpolate(lr, scale_factor=2)

    # A metric may be a network, and another one may be shown beside it.
    evaluate(model, OnePicture(), torch.device("cpu"), [look], on_image=look)
    write_picture(Picture(np.zeros((60, 40, 3), np.uint8)), tmp_path / "a.png")
    score_pictures(tmp_path, OnePicture(), [look])
    assert look.seen == [("highest", False)] * 5


def test_a_picture_too_large_for_the_memory_is_named(monkeypatch):
    monkeypatch.setattr(Little, "memory", 0)
    with pytest.raises(
        UserError, match=r"^The memory is too small for a.png, 40x60: cuDNN error: "
    ):
        evaluate(Little(2).enlarge, OnePicture(), torch.device("cpu"))
