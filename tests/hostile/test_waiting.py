"""Processes of the loader that die, are stuck, or lack shared memory."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from common.data import batches, waiting
from common.data.find import Listing
from common.data.stream import PictureStream
from common.data.waiting import WorkerError, wait_for, workers_that_fit
from common.training.folder import list_checkpoints
from running import LATEST, RECIPE, SCRIPT, assert_same_run, refusal, run_here

MEGABYTE = 10**6


class Loaded(Dataset):
    """Numbers from 0; one of them does something else in its process."""

    def __init__(self, action, number=2):
        self.action, self.number = action, number

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == self.number and torch.utils.data.get_worker_info():
            self.action()
        return index


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def fails():
    raise RuntimeError("the picture is gone")


def times_out():
    raise TimeoutError(110, "Connection timed out")


def times_out_in_words():
    raise RuntimeError("the read timed out")


def has_no_memory():
    raise MemoryError


def has_no_memory_for_an_array():
    np.empty(2**60, np.uint8)


def hangs():
    time.sleep(1000)


def gives(action, stops=bool, workers=1, **options) -> tuple[list[int], str]:
    """What comes of a loader before it ends, and its last words."""
    loader = DataLoader(
        Loaded(action),
        batch_size=None,
        num_workers=workers,
        timeout=waiting.SLICE if workers else 0,
    )
    found = []
    try:
        for item in wait_for(loader, stops, **options):
            found.append(item)
    except WorkerError as error:
        return found, f"{error}"
    return found, ""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for module in (waiting, batches):
        monkeypatch.setattr(module, "SLICE", 0.05)


@pytest.fixture(scope="module")
def straight(train, tmp_path_factory):
    """The folder of a run to which nothing happened."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(SCRIPT, folder, *RECIPE)
    return folder


@pytest.fixture
def shared_memory(monkeypatch):
    """Sets how much of it is free, in MB."""

    def set_free(megabytes, blocks=100):
        status = SimpleNamespace(f_bavail=megabytes, f_frsize=MEGABYTE, f_blocks=blocks)
        monkeypatch.setattr(os, "statvfs", lambda path: status)

    monkeypatch.setattr(waiting.Path, "is_dir", lambda path: True)
    return set_free


def test_the_end_of_a_process_is_told_in_words():
    found, words = gives(dies)
    assert found in ([], [0], [0, 1])  # what it had not sent is lost
    assert words.startswith("A process of the loader has died, for want of memory perhaps: ")
    found, words = gives(fails)
    assert found == [0, 1]
    assert words == "A process of the loader failed: RuntimeError: the picture is gone."
    assert gives(hangs, workers=0) == (list(range(8)), "")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (times_out, "TimeoutError: [Errno 110] Connection timed out"),
        (times_out_in_words, "RuntimeError: the read timed out"),
    ],
)
def test_an_error_that_speaks_of_time_is_no_wait(action, words):
    """The batch after it must not take its place."""
    assert gives(action) == ([0, 1], f"A process of the loader failed: {words}.")


@pytest.mark.parametrize("action", [has_no_memory, has_no_memory_for_an_array])
def test_a_process_without_memory_is_told_with_a_way_out(action):
    found, words = gives(action, size=2_500_000_000)
    assert found == [0, 1]
    assert words.startswith("A batch of 2.5 GB does not fit into the memory. Use a smaller --batch")


def of_pytorch(number, frame):
    """Stands for the handler of PyTorch's loader."""


of_pytorch.__module__ = "torch.utils.data._utils.signal_handling"


def of_the_user(number, frame):
    """Stands for that of a program that calls us."""


of_c = [].insert  # which is of no module


@pytest.mark.parametrize(
    ("before", "during"),
    [
        (signal.SIG_DFL, signal.SIG_DFL),
        (of_the_user, of_the_user),
        (of_c, of_c),
        (of_pytorch, signal.SIG_DFL),  # an earlier loader of the same process has left it
    ],
)
def test_a_death_is_not_raised_in_the_middle_of_a_step(before, during):
    """PyTorch would raise it by SIGCHLD, wherever the training is."""
    own = signal.signal(signal.SIGCHLD, before)
    try:
        items = wait_for(DataLoader(Loaded(dies), batch_size=None, num_workers=1, timeout=1), bool)
        assert next(items) == 0
        assert signal.getsignal(signal.SIGCHLD) == during
        items.close()
    finally:
        signal.signal(signal.SIGCHLD, own)


def test_a_loader_in_a_thread():
    """There no handler can be set, as in a notebook's server."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(gives, bool).result() == (list(range(8)), "")


def test_a_wait_ends(shared_memory):
    shared_memory(100)
    assert gives(hangs, patience=7) == (
        [0, 1],
        f"No batch has come for {7 * waiting.SLICE} seconds. Perhaps the disk of the pictures does "
        "not answer; --num_workers 0 does without processes that load.",
    )
    asked = gives(hangs, stops=lambda: signal.SIGTERM)
    assert asked == ([0, 1], "It was asked to stop while it waited for pictures.")
    shared_memory(3)
    found, words = gives(hangs, size=4 * MEGABYTE)
    assert found == [0, 1]
    assert words.startswith(
        "/dev/shm has 3.0 MB free and a batch takes 4.0 MB. Use --num_workers 0"
    )


def test_a_loader_that_cannot_start(monkeypatch):
    def start(process):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    found, words = gives(dies)
    assert found == []
    assert words.startswith("The loader cannot start a process: [Errno 28] No space left on device")


def test_workers_by_the_shared_memory_that_is_free(shared_memory, monkeypatch):
    said = []
    shared_memory(64)
    assert workers_that_fit(4, 6 * MEGABYTE, said.append) == 4
    assert workers_that_fit(0, 600 * MEGABYTE, said.append) == 0
    assert said == []
    assert workers_that_fit(5, 6 * MEGABYTE, said.append) == 4
    assert said[0] == (
        "/dev/shm has 64.0 MB free, too little for --num_workers 5 and batches of 6.0 MB. Training "
        "goes on with --num_workers 4, to the same result. `docker run --shm-size` gives more."
    )
    assert workers_that_fit(2, 60 * MEGABYTE, said.append) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert workers_that_fit(4, 6 * MEGABYTE, said.append) == 0
    shared_memory(0, blocks=0)  # without a bound
    assert workers_that_fit(4, 6 * MEGABYTE, said.append) == 4


def test_a_run_whose_loader_dies_goes_on_from_that_step(train, straight, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    options = (*RECIPE, "--num_workers", 2)
    getitems = batches.PatchDataset.__getitems__

    def dying(patches, indices):
        if indices[0] == 4 * 13 and torch.utils.data.get_worker_info():
            dies()
        return getitems(patches, indices)

    with monkeypatch.context() as patch:
        patch.setattr(batches.PatchDataset, "__getitems__", dying)
        message = train(SCRIPT, folder, *options, runner=refusal)
    # The processes are some steps ahead of the training.
    assert re.search(
        r"after step (\d+): A process of the loader has died.* goes on from checkpoint-\1\.",
        message,
    )
    train(SCRIPT, folder, *RECIPE, *LATEST)
    assert_same_run(folder, straight)


def test_a_stop_while_no_batch_comes(train, straight, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def stuck(patches, indices):
        os.kill(os.getppid(), signal.SIGTERM)
        hangs()

    with monkeypatch.context() as patch:
        patch.setattr(batches.PatchDataset, "__getitems__", stuck)
        options = {"runner": lambda *words: run_here(*words, check=False)}
        process = train(SCRIPT, folder, *RECIPE, "--num_workers", 1, **options)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: stopped at step 0 of 20, which is saved." in process.stdout
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-0"]
    train(SCRIPT, folder, *RECIPE, *LATEST)
    assert_same_run(folder, straight)


def test_a_stream_tells_the_end_of_its_process(monkeypatch, tmp_path):
    def died(loader, stops, patience):
        raise WorkerError("died")
        yield

    monkeypatch.setattr("common.data.stream.wait_for", died)
    stream = PictureStream(Listing([], [], []), [2], 1, 0, tmp_path)
    assert list(stream.parts()) == ["died"]


def test_a_batch_too_large_for_the_memory_is_told():
    class TooLarge(torch.utils.data.Dataset):
        def __getitem__(self, index):
            raise MemoryError("Unable to allocate 123. GiB for an array")

        def __len__(self):
            return 1

    loader = torch.utils.data.DataLoader(TooLarge(), batch_size=None)
    with pytest.raises(WorkerError, match=r"^A batch of 2\.5 GB .* --gradient_accumulation_steps"):
        list(wait_for(loader, bool, size=2_500_000_000))
