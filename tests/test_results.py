import time

import pytest
from conftest import ROOT
from torch.utils.tensorboard import SummaryWriter

from results.record import wall_time
from results.table import BEGIN, END, rows, table


def test_readme_holds_the_table_of_the_recorded_results():
    _, _, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    written, _, _ = rest.partition(END)
    assert written.strip() == table(rows()).strip()


def test_rows_say_how_they_were_made():
    trained = [row for row in rows() if "training" in row]
    assert trained
    for row in trained:
        facts = row["training"]
        assert facts["command"].startswith("python train_")
        assert "/" not in facts["command"].replace("out/", "")  # no path of some machine
        assert len(facts["commit"]) >= 40
        assert facts["seconds"] > 0
        assert facts["hardware"]["cpu"]
        assert facts["torch"]


def test_table_by_hand():
    measured = {
        "row": "mine",
        "parameters": 1234,
        "scales": {
            "2": {"Set5": {"psnr_y": 36.344, "ssim_y": 0.95004}},
            "3": {"Set5": {"psnr_y": 32.0}},
        },
        "training": {"seconds": 3725, "hardware": {"cpu": "Some CPU", "threads": 1}},
    }
    better = {"row": "better", "parameters": None, "scales": {"2": {"Set5": {"psnr_y": 37.0}}}}
    assert table([better, measured]).splitlines()[2:] == [
        "| x2 | mine | 1,234 | 36.34 / 0.9500 |  |  | 1 h 2 min, 1 core of Some CPU |",
        "| x2 | better |  | 37.00 |  |  |  |",
        "| x3 | mine | 1,234 | 32.00 |  |  | 1 h 2 min, 1 core of Some CPU |",
    ]


def test_wall_time_adds_the_sessions_of_a_run(tmp_path):
    for session, seconds in (("first", 60.0), ("resumed", 30.0)):
        writer = SummaryWriter(str(tmp_path), filename_suffix=session)
        writer.add_scalar("loss", 1.0, walltime=time.time() + seconds)
        writer.close()
    assert wall_time(tmp_path) == pytest.approx(90, abs=5)
