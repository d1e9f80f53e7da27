"""Runs that many tests look at."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from running import RECIPE, SCRIPT, SHARED


@pytest.fixture(scope="session", params=SHARED)
def trained(
    request: pytest.FixtureRequest, train: Callable[..., CompletedProcess], tmp_path_factory
) -> tuple[str, Path]:
    """Each script, and the folder of a run of 20 steps with averaged weights."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(request.param, folder, *RECIPE)
    return request.param, folder


@pytest.fixture(scope="session")
def straight(train: Callable[..., CompletedProcess], tmp_path_factory) -> Path:
    """The folder of such a run by `SCRIPT`, to which nothing happened."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(SCRIPT, folder, *RECIPE)
    return folder


@pytest.fixture
def copy(straight: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(straight, tmp_path / "copy"))
