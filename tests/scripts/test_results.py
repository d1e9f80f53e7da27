import json
import re

import pytest

from common.errors import UserError
from results.record import training, wall_time
from results.table import BEGIN, END, rows, table
from running import ROOT


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
        assert " /" not in facts["command"]  # no path of some machine
        assert re.fullmatch(r"[0-9a-f]{40}", facts["commit"])
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
        "training": {
            "seconds": 3000,
            "hardware": {"cpu": "Some CPU", "processes": 1, "threads": 1},
            "init_from": {"seconds": 700, "init_from": {"seconds": 25}},
        },
    }
    better = {"row": "better", "parameters": None, "scales": {"2": {"Set5": {"psnr_y": 37.0}}}}
    longest = {"seconds": 40, "hardware": {"cpu": "", "processes": 8, "gpu": "H200"}}
    last = {"cpu": "Some CPU", "processes": 1, "threads": 1}
    better["training"] = {"seconds": 20, "hardware": last, "init_from": longest}
    assert table([better, measured]).splitlines()[2:] == [
        "| x2 | mine | 1,234 | 36.34 / 0.9500 |  |  | 1 h 2 min, 1 core of Some CPU |",
        "| x2 | better |  | 37.00 |  |  | 1 min, 8 H200 |",
        "| x3 | mine | 1,234 | 32.00 |  |  | 1 h 2 min, 1 core of Some CPU |",
    ]


def write_run(folder, **record):
    """A run's folder, as far as `training` reads it: one of a minute."""
    folder.mkdir(exist_ok=True)
    (folder / "times.jsonl").write_text('{"step": 1, "seconds": 60}\n')
    run = {"command": "", "args": {"init_from": None}, "commit": "0" * 40, "hardware": {}}
    (folder / "args.json").write_text(json.dumps(run | record))


def test_training_hides_where_folders_lie(tmp_path):
    command = "python train_x.py --dataset_name a/b --train_data_dir /c/d --output_dir=/e/f"
    write_run(tmp_path, command=command)
    expected = "python train_x.py --dataset_name a/b --train_data_dir d --output_dir=f"
    assert training(tmp_path)["command"] == expected
    write_run(tmp_path, commit="0" * 40 + "-dirty")
    with pytest.raises(UserError, match="0-dirty, which nobody else has"):
        training(tmp_path)


@pytest.mark.parametrize("start", [".", "checkpoint-10/model.safetensors", "pretrained"])
def test_training_tells_of_the_run_before(tmp_path, start):
    write_run(tmp_path / "first", command="python train_x.py")
    (tmp_path / "first" / start).mkdir(parents=True, exist_ok=True)
    write_run(tmp_path / "second", args={"init_from": str(tmp_path / "first" / start)})
    facts = training(tmp_path / "second")
    assert facts["init_from"]["command"] == "python train_x.py"
    assert facts["seconds"] == facts["init_from"]["seconds"] == 60


def test_training_from_weights_without_a_run(tmp_path):
    file = tmp_path / "weights" / "published.safetensors"
    write_run(tmp_path / "run", args={"init_from": str(file)})
    with pytest.raises(UserError, match=r"published\.safetensors, which is gone"):
        training(tmp_path / "run")
    file.parent.mkdir()
    file.touch()
    assert "init_from" not in training(tmp_path / "run")


def test_wall_time_is_the_last_of_the_run(tmp_path):
    with pytest.raises(UserError, match=r"times\.jsonl does not tell how long the run took"):
        wall_time(tmp_path)
    (tmp_path / "times.jsonl").write_text(
        '{"step": 1, "seconds": 60}\n{"step": 2, "seconds": 90}\n'
    )
    assert wall_time(tmp_path) == 90
