"""Trainings that are scored: rules and records of the speedrun, variants side by side."""

import json
import os
import re
import shutil

import pytest

from benchmarks import speedrun, variants
from common.errors import UserError
from running import ROOT, SMALL, run_here


def record(seconds: float, psnr: float, rounds: int = 3, **hardware) -> dict:
    return {
        "command": "python train_a2n.py --recipe cpu",
        "hardware": {"cpu": "Some CPU", "threads": 2} | hardware,
        "versions": {"commit": "0123456789"},
        "rounds": [{"seconds": seconds + i, "Set5": psnr + i / 100} for i in range(rounds)],
        "seconds": seconds + 1,
        "psnr_y": psnr + 0.01,
    }


def test_the_first_at_each_figure_is_in_the_table():
    records = [
        record(300, 37.0),
        record(100, 36.5),
        record(90, 36.48),  # its mean is below the figure
        record(50, 36.6, rounds=2),  # too few
        record(9, 37.6, gpu="H200"),
    ]
    cpu, gpu = "2 threads of Some CPU", "H200"
    rows = [line.strip("| ").split(" | ") for line in speedrun.table(records).splitlines()[2:]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("36.5", "**10** (9 to 11)", gpu),
        ("36.5", "**101** (100 to 102)", cpu),
        ("37.0", "**10** (9 to 11)", gpu),
        ("37.0", "**301** (300 to 302)", cpu),
        ("37.5", "**10** (9 to 11)", gpu),
    ]
    assert rows[1][2:5] == [
        "36.50, 36.51, 36.52",
        "`python train_a2n.py --recipe cpu`",
        "01234567",
    ]


def test_the_page_holds_the_table_of_the_records():
    _, _, rest = speedrun.PAGE.read_text().partition(speedrun.BEGIN)
    written, _, _ = rest.partition(speedrun.END)
    assert written.strip() == speedrun.table(speedrun.read_records()).strip()


def test_records_keep_the_rules():
    for facts in speedrun.read_records():
        words = facts["command"].split()
        assert speedrun.check_training(words[1:]).max_train_steps == facts["steps"]
        assert re.fullmatch(r"[0-9a-f]{40}", facts["versions"]["commit"]), facts["command"]
        assert [values["seed"] for values in facts["rounds"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("", "Give a training after `--`"),
        ("evaluate.py", "Give a training after `--`"),
        ("train_a2n.py --seed=3", "--seed cannot be given here, which the benchmark sets"),
        ("train_a2n.py --init_from a2n-x2", "as a run begins with fresh weights"),
        ("train_a2n.py --init=a2n-x2", "--init_from cannot be given here"),
        ("train_a2n.py --max_train_minutes 2", "the length of a run is a number of steps"),
        (
            "train_a2n.py --train_data_dir Set5x2",
            "no training may look at Set5, by which it is scored. Name other pictures.",
        ),
        (
            "train_a2n.py --validation_data_dir DIR/Set5/HR",
            "no training may look at Set5, by which it is scored",
        ),
        ("train_a2n.py --scale 3", "scored on Set5 x2, not x3"),
    ],
)
def test_what_breaks_a_rule_is_refused(words, rule):
    with pytest.raises(UserError, match=re.escape(rule)):
        speedrun.main(["--output", "x.json", "--", *words.split()])


@pytest.mark.parametrize("folder", ["subset5", "set500", "Set14"])
def test_other_folders_are_not_taken_for_set5(folder):
    assert speedrun.check_training(["train_a2n.py", "--train_data_dir", folder])


@pytest.fixture
def set5(pictures_dir, tmp_path):
    """A benchmark of that name, of five small pictures."""
    folder = tmp_path / "benchmarks" / "Set5" / "HR"
    folder.mkdir(parents=True)
    for number in range(5):
        shutil.copy(pictures_dir / f"{number}.png", folder)
    return tmp_path / "benchmarks"


def test_a_speedrun_scores_the_last_weights(set5, pictures_dir, tmp_path, monkeypatch, capsys):
    commands, caches = [], set()

    def run(words, **variables):
        commands.append([str(word) for word in words])
        caches.update(variables.values())
        run_here(*map(str, words))

    monkeypatch.setattr(speedrun, "run", run)
    training = ["train_srcnn.py", *SMALL, "--scale", "2", "--train_data_dir", str(pictures_dir)]
    training += ["--max_train_steps", "3", "--checkpointing_steps", "2"]
    output = tmp_path / "new" / "found.json"
    options = ["--rounds", "2", "--benchmark_dir", f"{set5}", "--output", f"{output}"]
    speedrun.main([*options, "--", *training])

    assert commands.pop(0)[:3] == ["evaluate.py", "--model", "bicubic"]
    assert [words[0] for words in commands] == ["train_srcnn.py", "evaluate.py"] * 2
    assert [words[words.index("--seed") + 1] for words in commands[::2]] == ["0", "1"]
    assert all("checkpoint-3" in words[2] for words in commands[1::2])
    assert len(caches) == 2  # an empty one for each run
    facts = json.loads(output.read_text())
    assert (facts["parameters"], facts["steps"]) == (8129, 3)
    assert facts["command"].startswith("python train_srcnn.py --batch_size 4")
    assert {"cpu", "threads"} <= facts["hardware"].keys()
    assert {"commit", "torch"} <= facts["versions"].keys()
    scores = [values["Set5"] for values in facts["rounds"]]
    assert facts["psnr_y"] == pytest.approx(sum(scores) / 2, abs=1e-3)
    assert all(values["seconds"] > 0 for values in facts["rounds"])
    assert f"Written to {output}." in capsys.readouterr().out

    with pytest.raises(UserError, match=r"exists already; name another, or add --overwrite\."):
        speedrun.main([*options, "--", *training])
    monkeypatch.setattr(speedrun, "MOST_PARAMETERS", 8000)
    with pytest.raises(UserError, match="8,129 parameters, more than the 8,000 of the rules"):
        speedrun.main([*options, "--overwrite", "--", *training])


def test_variants_are_trained_in_turn_and_compared_by_seed(
    set5, pictures_dir, tmp_path, monkeypatch, capsys
):
    trained = []

    def run(words, **_):
        if words[0] != "evaluate.py":
            trained.append((words[words.index("--learning_rate") + 1], words[-3]))
        run_here(*map(str, words))

    monkeypatch.setattr(speedrun, "run", run)
    output = tmp_path / "found.json"
    words = ["--variant=--learning_rate 1e-2", "--variant=--learning_rate 2e-2"]
    words += ["--benchmarks", "Set5", "--benchmark_dir", f"{set5}", "--output", f"{output}"]
    training = ["train_srcnn.py", *SMALL, "--scale", "2", "--train_data_dir", f"{pictures_dir}"]
    variants.main([*words, "--", *training, "--optimizer", "adam", "--max_train_steps", "40"])
    assert trained == [("1e-2", "0"), ("2e-2", "0"), ("1e-2", "1"), ("2e-2", "1")]
    facts = json.loads(output.read_text())
    slow, fast = ([run["Set5"] for run in runs] for runs in facts["variants"].values())
    assert len({*slow, *fast}) == 4
    facts["variants"] = {
        "a": [{"Set5": 30.0, "seconds": 1}, {"Set5": 31.0, "seconds": 2}],
        "b": [{"Set5": 30.25, "seconds": 4}, {"Set5": 30.75, "seconds": 6}],
    }
    assert variants.table(facts).splitlines()[2:] == [
        "| `a` | 30.50 | 2 |",
        "| `b` | 30.50 (+0.25, -0.25) | 5 |",
    ]
    assert "n = 2. Written to" in capsys.readouterr().out


def test_variants_that_were_trained_are_kept_when_another_fails(
    set5, pictures_dir, tmp_path, monkeypatch
):
    def run(words, **_):
        if "1e-3" in words:
            raise UserError("diverged")
        run_here(*map(str, words))

    monkeypatch.setattr(speedrun, "run", run)
    output = tmp_path / "new" / "found.json"
    words = ["--variant=--learning_rate 1e-2", "--variant=--learning_rate 1e-3", "--seeds", "1"]
    words += ["--benchmarks", "Set5", "--benchmark_dir", f"{set5}", "--output", f"{output}"]
    training = ["train_srcnn.py", *SMALL, "--scale", "2", "--train_data_dir", f"{pictures_dir}"]
    with pytest.raises(UserError, match="diverged"):
        variants.main([*words, "--", *training, "--max_train_steps", "2"])
    first, second = json.loads(output.read_text())["variants"].values()
    assert (len(first), second) == (1, [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--seed 1", "--recipe cpu"), "--seed cannot be given here"),
        (("--recipe cpu", "--recipe cpu"), "A --variant is named twice. Give each once; --seeds"),
        (("--recipe 'cpu", ""), "cannot be read: No closing quotation"),
    ],
)
def test_mistakes_of_variants_are_told_before_any_training(given, message):
    with pytest.raises(UserError, match=message):
        variants.main([*(f"--variant={words}" for words in given), "--", "train_a2n.py"])


@pytest.mark.slow
def test_a_speedrun_in_processes(set5, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    training = [*"train_a2n.py --dataset_name sample --recipe cpu --max_train_steps 2".split()]
    training += "--patch_size 24 --lr_warmup_steps 0 --cpu_threads 1".split()
    output = tmp_path / "found.json"
    options = ["--rounds", "1", "--benchmark_dir", f"{set5}", "--output", f"{output}"]
    speedrun.main([*options, "--", *training])
    facts = json.loads(output.read_text())
    assert facts["parameters"] == 1_036_443
    assert facts["rounds"][0]["seconds"] > 1
