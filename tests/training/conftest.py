"""Stand-ins for what the parts of a run work with: no process is started, no network trained."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.state import PartialState

from common.training.together import Processes


class Tracker:
    """Notes what it is told; its disk is full while `full` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.logged: list[tuple[dict, int]] = []
        self.full = self.finished = False
        self.tracker = SimpleNamespace(info=SimpleNamespace(run_id="abc"))  # of MLflow's

    def log(self, values: dict, step: int) -> None:
        if self.full:
            raise OSError("no room")
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


class TrackerOfImages(Tracker):
    """One for which Accelerate has `log_images`."""

    def log_images(self, images: dict, step: int, **_: object) -> None:
        self.log({name: np.shape(image) for name, image in images.items()}, step)


class Accelerator(SimpleNamespace):
    """One process on a CPU, without Accelerate's state."""

    def __init__(self, **facts: object) -> None:
        settings = {"process_index": 0, "num_processes": 1, "is_main_process": True}
        settings |= {"is_local_main_process": True, "mixed_precision": "no", "trackers": []}
        super().__init__(**settings | facts)
        self.started: dict[str, dict] = {}
        self.configured: dict[str, dict | None] = {}
        self.unreachable: set[str] = set()

    def init_trackers(self, project: str, config: dict | None, init_kwargs: dict) -> None:
        ((name, options),) = init_kwargs.items()
        if name in self.unreachable:
            raise ConnectionError("no server")
        self.started[name] = {"project": project, **options}
        self.configured[name] = config
        kind = TrackerOfImages if name in ("tensorboard", "wandb") else Tracker
        self.trackers.append(kind(name))


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
