"""Benchmarks that are on the Hub."""

import os
from pathlib import Path

import pytest

from common.data.benchmarks import hub_benchmark
from common.errors import UserError
from running import refusal, run_here


def test_a_connection_that_always_breaks(hub):
    hub.cut["Set5_HR.tar.gz"] = 99
    with pytest.raises(UserError) as error:
        hub_benchmark("Set5")
    assert "The benchmark Set5 (eugenesiow/Set5 on the Hub) cannot be had: " in str(error.value)
    assert "use --benchmark_dir DIR; or --benchmarks sample, which is here." in str(error.value)
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.png"))
    hub.cut.clear()
    assert len(list((hub_benchmark("Set5") / "HR").iterdir())) == 5


def test_benchmarks_by_name(hub, tmp_path):
    bicubic = ("evaluate.py", "--model", "bicubic", "--scale", 2)
    process = run_here(*bicubic)
    assert [line.split()[:2] for line in process.stdout.splitlines()[-2:]] == [
        ["Set5", "5"],
        ["Set14", "14"],
    ]
    assert hub.downloads("Set5_HR.tar.gz") == 1
    assert hub.downloads("Set14_HR.tar.gz") == 1
    hub.requests.clear()
    run_here(*bicubic)
    assert not hub.requests
    for name, message in (
        ("BSD100", "it has 1 pictures, not 100"),
        ("Urban100", "is outside the destination"),
        ("Set6", "Set6 is none of the benchmarks that are on the Hub (Set5, Set14, BSD100, Urban"),
    ):
        assert message in refusal(*bicubic, "--benchmarks", name)
    assert not list(tmp_path.rglob("evil.png"))
