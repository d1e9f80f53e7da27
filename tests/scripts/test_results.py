import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import save_file

import common.pretrained
import convert_published
import evaluate
from common.errors import UserError
from common.hub import load_model
from results import degraded, photographs, publish, record
from results.record import training, wall_time
from results.table import BEGIN, END, rows, runs_of, table
from running import ROOT, SCRIPT, metrics, run_here
from train_a2n import A2N
from train_srgan import SRGAN


def test_readme_holds_the_table_of_the_recorded_results():
    _, _, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    written, _, _ = rest.partition(END)
    assert written.strip() == table(rows()).strip()


def test_the_row_of_the_demo_is_of_its_command():
    row = json.loads((ROOT / "results" / "a2n_demo.json").read_text())
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo: setup\n\t")[2]
    command, _, _ = recipe.replace("\\\n\t\t", "").partition("\n")
    command = command.replace("$(PRECISION)", "bf16").removeprefix(".venv/bin/")
    assert row["training"]["command"] == command


def test_the_page_on_degradation_holds_the_measured_tables():
    _, _, rest = (ROOT / "docs" / "degradation.md").read_text().partition(BEGIN)
    written, _, _ = rest.partition(END)
    assert written.strip() == degraded.tables().strip()


def test_the_page_on_degradation_holds_the_measured_curves():
    page = (ROOT / "docs" / "degradation.md").read_text()
    names = {"none": "not saved", "jpeg-75": "quality 75", "jpeg-50": "quality 50"}
    files = list((ROOT / "results" / "between").glob("*.json"))
    assert len(files) == 4
    for file in files:
        curve = [f"{point['psnr_y']:.2f}" for point in json.loads(file.read_text())["curve"]]
        name = names.get(file.stem, f"`{file.stem}`")
        assert f"| {' | '.join([name, *curve])} |" in page


def test_degraded_sets_were_scored_by_the_models_that_are_here():
    files = list(degraded.SETS.glob("*.json"))
    for file in files:
        for model, checksum in json.loads(file.read_text())["weights"].items():
            again = f"measure again by `python -m results.degraded {file.stem} --benchmark_dir DIR`"
            assert checksum == degraded.checksum_of_weights(model), again


def test_degraded_sets_by_hand(tiny_benchmark_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(degraded, "SETS", tmp_path / "sets")
    monkeypatch.setattr(degraded, "MODELS", ("a2n-x2-photo",))
    monkeypatch.setattr(degraded, "DEGRADATIONS", {"none": "not saved", "jpeg:50": "quality 50"})
    options = ["Tiny", "--benchmark_dir", f"{tiny_benchmark_dir}"]
    degraded.main([*options, "--pictures", "2"])
    figures = json.loads((tmp_path / "sets" / "Tiny.json").read_text())
    assert "--benchmark_dir" in figures["command"]
    assert str(tiny_benchmark_dir) not in figures["command"]
    scores = figures["degradations"]
    assert scores["none"]["bicubic"]["psnr_y"] > scores["jpeg:50"]["bicubic"]["psnr_y"]
    assert scores["none"]["lr_checksum"] != scores["jpeg:50"]["lr_checksum"]
    bicubic = {"psnr_y": 30.0, "ssim_y": 0.9}
    model = {"psnr_y": 29.5, "ssim_y": 0.91234}
    figures["degradations"] = {"jpeg:50": {"bicubic": bicubic, "a2n-x2-photo": model}}
    assert degraded.table(figures).splitlines() == [
        f"| Tiny, the first 2 pictures of {figures['of']} | bicubic | `a2n-x2-photo` |",
        "| --- | --- | --- |",
        "| quality 50 | 30.00 / 0.9000 | -0.50: 29.50 / 0.9123 |",
    ]


def test_photographs_that_are_not_there(monkeypatch):
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", ["skimage/data/rocket.jpg", "nowhere/a.jpg"])
    with pytest.raises(UserError, match=r"nowhere/a\.jpg is not there\. It comes with a package"):
        photographs.main([])


def test_photographs(monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", ["skimage/data/rocket.jpg"] * 2)
    monkeypatch.setattr(photographs, "SIDE", 48)
    photographs.main(["--output", f"{tmp_path / 'sheet.jpg'}"])
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size == (160 + 4 * 168, 2 * 188 + 8)


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
        for run in runs_of(facts):
            words = shlex.split(run["command"])
            importlib.import_module(words[1].removesuffix(".py")).parse_args(words[2:])
            assert 0 < run.get("ended_at_step", 1) < 20_000


@pytest.fixture
def vgg19(tmp_path):
    """Random weights of VGG19's convolutions, as if of torchvision."""
    torchvision = pytest.importorskip("torchvision")
    features = torchvision.models.vgg19(weights=None).features
    file = tmp_path / "vgg19.safetensors"
    save_file({f"features.{n}": t for n, t in features.state_dict().items()}, file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    sorted(
        {run["command"] for row in rows() if "training" in row for run in runs_of(row["training"])}
    ),
)
def test_recorded_commands_train(command, vgg19, tmp_path):
    """Their first 20 steps, on other pictures, as theirs may not be here."""
    _, script, *words = shlex.split(command)
    args = importlib.import_module(script.removesuffix(".py")).parse_args(words)
    for option in ("--train_data_dir", "--validation_data_dir"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    words += ["--dataset_name", "sample", "--output_dir", tmp_path / "run", "--logging_steps", 20]
    if args.init_from:
        networks = {"train_a2n.py": A2N(2), "train_srgan.py": SRGAN(4)}
        networks[script].save_pretrained(tmp_path / "weights")
        words += ["--init_from", tmp_path / "weights"]
    if script == "train_srgan.py":
        words += ["--pretrain_steps", 20 if args.pretrain_steps else 0, "--vgg_weights", vgg19]
    words += ["--max_train_steps", 20 if args.max_train_steps else 0]
    words += ["--lr_warmup_steps", min(args.lr_warmup_steps, 10)]
    words += ["--lr_decay_steps", 5] if args.lr_decay_steps else []
    run_here(script, *map(str, words))
    losses = [line for line in metrics(tmp_path / "run") if "learning_rate" in line]
    assert losses[-1]["step"] == 20


def test_other_rows_say_where_they_come_from():
    for row in (row for row in rows() if "training" not in row):
        assert row.get("source") or row["row"] == "bicubic"
        if "in the paper" in row["row"]:
            assert row["source"].startswith("https://arxiv.org/abs/")
            continue
        for words in map(shlex.split, row.get("also_by", [])):
            evaluate.parse_args(words[2:])
        *conversion, measuring = map(shlex.split, row["repeat"])
        assert measuring[:3] == ["python", "-m", "results.record"]
        assert measuring[measuring.index("--row") + 1] == row["row"]
        for words in conversion:
            convert_published.parse_args(words[2:])
            assert re.fullmatch("[0-9a-f]{64}", row["sha256"][words[2]])


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
    better = {
        "row": "better",
        "note": "Twice.",
        "parameters": None,
        "scales": {"2": {"Set5": {"psnr_y": 37.0}}},
    }
    longest = {"seconds": 40, "hardware": {"cpu": "", "processes": 8, "gpu": "H200"}}
    last = {"cpu": "Some CPU", "processes": 1, "threads": 1}
    better["training"] = {"seconds": 20, "hardware": last, "init_from": longest}
    assert table([better, measured | {"note": "Once."}]).splitlines()[2:] == [
        "| x2 | mine [1] | 1,234 | 36.34 / 0.9500 |  |  | 1 h 2 min, 1 core of Some CPU |",
        "| x2 | better [2] |  | 37.00 |  |  | 1 min, 8 H200 |",
        "| x3 | mine [1] | 1,234 | 32.00 |  |  | 1 h 2 min, 1 core of Some CPU |",
        *("", "[1] Once.", "", "[2] Twice."),
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


@pytest.mark.parametrize(
    "start", [".", "checkpoint-10", "checkpoint-10/model.safetensors", "pretrained"]
)
def test_training_tells_of_the_run_before(tmp_path, start):
    write_run(tmp_path / "first", command="python train_x.py")
    (tmp_path / "first" / start).mkdir(parents=True, exist_ok=True)
    if start.startswith("checkpoint"):
        (tmp_path / "first" / "checkpoint-10" / "args.json").write_text('{"plain": {}}')
    write_run(tmp_path / "second", args={"init_from": str(tmp_path / "first" / start)})
    facts = training(tmp_path / "second")
    assert facts["init_from"]["command"] == "python train_x.py"
    assert facts["seconds"] == facts["init_from"]["seconds"] == 60
    assert facts["init_from"].get("ended_at_step") == (10 if "checkpoint" in start else None)


def test_training_tells_of_a_pretrained_model(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.check_output(("git", *who, *words), cwd=tmp_path, text=True).strip()

    file = tmp_path / "results" / "a2n-x2.json"
    file.parent.mkdir()
    git("init", "--quiet")
    commits = []
    for command in ("the first", "the second"):
        file.write_text(json.dumps({"training": {"command": command}}))
        git("add", "results")
        git("commit", "--quiet", "--message", command)
        commits.append(git("rev-parse", "HEAD"))
    monkeypatch.setattr(record, "ROOT", tmp_path)
    for start in ("a2n-x2", str(ROOT / "pretrained" / "a2n-x2" / "model.safetensors")):
        write_run(tmp_path / "run", args={"init_from": start}, commit=commits[0])
        assert training(tmp_path / "run")["init_from"] == {"command": "the first"}
    write_run(tmp_path / "run", args={"init_from": "a2n-x2"})
    with pytest.raises(UserError, match=r"git show 0{40}:results/a2n-x2\.json` does not show it"):
        training(tmp_path / "run")


def test_training_from_weights_without_a_run(tmp_path):
    file = tmp_path / "weights" / "published.safetensors"
    write_run(tmp_path / "run", args={"init_from": str(file)})
    with pytest.raises(UserError, match=r"published\.safetensors, which is not on this"):
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


@pytest.fixture
def recorded(train, tmp_path, monkeypatch):
    """Folder of a run, and a function that records a model: the row of its JSON."""
    for module in (record, publish):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(publish, "FOLDER", tmp_path / "pretrained")
    monkeypatch.setattr(common.pretrained, "FOLDER", tmp_path / "pretrained")
    scores = {"psnr_y": 32.123456789, "ssim_y": 0.9, "seconds": 1.0, "images": {}}
    report = {"parameters": 8129, "benchmarks": {"Set5": scores}}
    monkeypatch.setattr(record, "evaluate", lambda *args: report)
    run = tmp_path / "srcnn-x3"
    train(SCRIPT, run, steps=5)
    args = json.loads((run / "args.json").read_text())
    (run / "args.json").write_text(json.dumps(args | {"commit": "0" * 40}))

    def make_row(folder, *options):
        words = ["record", folder, "--row", "SRCNN", "--benchmark_dir", "DIR"]
        words += ["--benchmarks", "Set5", *options]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        record.main()
        return json.loads((tmp_path / f"{folder.name}.json").read_text())

    return run, make_row


def test_a_run_is_published(recorded, tmp_path, monkeypatch):
    """Recorded, then taken into `pretrained/`, with a card that tells all."""
    run, make_row = recorded
    row = make_row(run, "--also=--self_ensemble", "--note", "Short.")
    assert (row["row"], row["note"]) == ("SRCNN", "Short.")
    assert row["measured"]["command"].startswith("python -m results.record srcnn-x3 --row SRCNN")
    assert row["also"]["--self_ensemble"]["3"]["Set5"]["psnr_y"] == 32.12345679

    options = [f"{run}", "--data", "Eight crops, free.", "--purpose", "Tests.", "--license", "mit"]
    publish.main(options)
    folder = tmp_path / "pretrained" / "srcnn-x3"
    names = ["README.md", "SHA256SUMS", "config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert load_model("srcnn-x3").scale == 3
    card = ModelCard.load(folder / "README.md")
    results = {
        x.dataset_name: x.metric_value for x in card.data.eval_results if "psnr" in x.metric_name
    }
    assert list(results) == ["Set5 x3", "Set5, self-ensemble x3"]
    assert results["Set5 x3"] == round(row["scales"]["3"]["Set5"]["psnr_y"], 4)
    assert card.data.license == "mit"
    text = card.text
    for part in ("Tests.", "Pictures: Eight crops, free.", "minutes, by commit 0000", "1 core of"):
        assert part in text
    assert 'load_model("srcnn-x3")' in text
    assert f"{tmp_path}" not in text
    assert "    python train_srcnn.py --batch_size" in text

    with pytest.raises(UserError, match=r"exists already\. Give another --name, or --overwrite"):
        publish.main(options)
    publish.main([*options, "--overwrite"])
    monkeypatch.setattr(publish, "LARGEST", 1000)
    with pytest.raises(UserError, match="bytes, more than 1,000"):
        publish.main([*options, "--overwrite"])
    with pytest.raises(UserError, match=r"other\.json is missing or damaged"):
        publish.main([*options, "--name", "other"])
    (tmp_path / "srcnn-x3.json").write_text(json.dumps(row | {"training": {}}))
    with pytest.raises(UserError, match=r"is not of the run in .*Record it by"):
        publish.main([*options, "--overwrite"])
