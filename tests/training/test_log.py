import json
from types import SimpleNamespace

import pytest
import torch

import common.training.log
from common.training.log import JsonLines, Log, RunningMeans
from common.training.trackers import Trackers


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def full_disk(monkeypatch):
    """Makes `fsync` fail until it is cleared."""
    disk = SimpleNamespace(full=True)

    def fsync(descriptor):
        if disk.full:
            raise OSError("no room")

    monkeypatch.setattr("os.fsync", fsync)
    return disk


def test_lines_that_find_no_room_come_later_and_whole(tmp_path, full_disk):
    file = JsonLines(tmp_path / "log", print)
    for step in (1, 2):
        with pytest.raises(OSError, match="no room"):
            file.add(step, {"loss": step / 2})
        assert file.path.read_bytes() == b""
    full_disk.full = False
    file.flush()
    assert rows(file.path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}]


def test_lines_after_the_checkpoint_and_half_lines_are_cut(tmp_path):
    (tmp_path / "log").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    JsonLines(tmp_path / "log", print).truncate(2)
    assert (tmp_path / "log").read_text() == '{"step": 1}\n{"step": 2}\n'
    JsonLines(tmp_path / "missing", print).truncate(2)
    assert not (tmp_path / "missing").exists()


def test_means_of_tensors_since_the_last_log(processes, monkeypatch):
    monkeypatch.setattr(processes, "mean", lambda tensor: tensor)
    means = RunningMeans(torch.device("cpu"))
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value, dtype=torch.bfloat16), "learning_rate": 0.1})
    assert means.means(processes) == {"loss": 3.0}
    means.clear()
    means.add({"loss": torch.tensor(5.0)})
    assert means.means(processes) == {"loss": 5.0}


def test_sums_of_a_checkpoint_with_other_processes(processes):
    means = RunningMeans(torch.device("cpu"))
    means.load([{"loss": torch.tensor(2.0)}, {"loss": torch.tensor(4.0)}], 2, processes)
    assert (means.sums, means.count) == ({"loss": torch.tensor(3.0)}, 2)
    means.load([{"loss": torch.tensor(7.0)}], 1, processes)
    assert (means.sums, means.count) == ({"loss": torch.tensor(7.0)}, 1)


def test_seconds_go_on_from_the_checkpoint(tmp_path, accelerator, processes, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(common.training.log.time, "monotonic", lambda: now)
    log = Log(tmp_path, 8, torch.device("cpu"), Trackers(accelerator, processes), processes)
    log.begin(step=20, total_steps=100, seconds=60.0)
    now += 4
    log.write({"loss": 0.25}, 30)
    log.write_time(30)
    now += 5
    log.write_time(40)
    log.close(40)
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 30, "loss": 0.25}]
    first, second = rows(tmp_path / "times.jsonl")
    assert (first["step"], first["seconds"], first["patches_per_second"]) == (30, 64.0, 20.0)
    assert (second["step"], second["seconds"], second["patches_per_second"]) == (40, 69.0, 16.0)
    assert first["peak_memory_gb"] > 0.05


def test_a_log_that_cannot_be_written_is_a_warning(
    tmp_path, accelerator, processes, full_disk, capsys
):
    log = Log(tmp_path, 8, torch.device("cpu"), Trackers(accelerator, processes), processes)
    log.begin(step=0, total_steps=100, seconds=0.0)
    log.write({"loss": 0.25}, 30)
    assert (
        "Warning: metrics.jsonl cannot be written (no room). Its lines" in capsys.readouterr().out
    )
    full_disk.full = False
    log.flush()
    log.close(30)
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 30, "loss": 0.25}]
