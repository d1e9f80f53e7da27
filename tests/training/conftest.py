"""Stand-ins for what the parts of a run work with: no process is started, no network trained."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from accelerate.state import PartialState

from common.training.together import Processes


class Tracker:
    """Notes what it is told; its disk is full while `full` is set."""

    def __init__(self) -> None:
        self.images: list[tuple[str, int]] = []
        self.full = self.finished = False

    def log_images(self, images: dict, step: int, **_: object) -> None:
        if self.full:
            raise OSError("no room")
        self.images += [(name, step) for name in images]

    def finish(self) -> None:
        self.finished = True


class Accelerator(SimpleNamespace):
    """One process on a CPU, without Accelerate's state."""

    def __init__(self, **facts: object) -> None:
        settings = {"process_index": 0, "num_processes": 1, "is_main_process": True}
        settings |= {"is_local_main_process": True, "mixed_precision": "no", "trackers": []}
        super().__init__(**settings | facts)
        self.logged: list[tuple[dict, int]] = []

    def init_trackers(self, name: str, init_kwargs: dict) -> None:
        self.started = init_kwargs
        self.trackers = [Tracker()]

    def log(self, values: dict, step: int) -> None:
        if self.trackers and self.trackers[0].full:
            raise OSError("no room")
        self.logged.append((values, step))


@pytest.fixture(autouse=True)
def state() -> Iterator[PartialState]:
    """Accelerate's state of one process on a CPU."""
    yield PartialState(cpu=True)
    PartialState._reset_state()


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator()


@pytest.fixture
def processes(accelerator) -> Processes:
    return Processes(accelerator)
