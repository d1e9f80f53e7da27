"""Named recipes, schedules that can become longer, chains of runs: resumed to the bit."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from results.record import training
from results.table import runs_of
from running import LATEST, SCRIPT, SMALL, assert_same_run, metrics, refusal

WSD = "--lr_scheduler wsd --lr_warmup_steps 2 --lr_decay_steps 4 --checkpoints_total_limit 1"
WSD_OPTIONS = [*WSD.split(), "--checkpointing_steps", 5, "--logging_steps", 1]
TERMS = "--loss charbonnier --ms_ssim_weight 0.1 --fft_weight 0.05 --clip_grad_norm 0.05"
# (script, options): between them, all that is new of optimizers, schedules and losses.
RECIPES = [
    pytest.param("train_a2n.py", f"--recipe modern {TERMS}"),
    pytest.param("train_srcnn.py", "--recipe modern --optimizer sgd --clip_grad_norm 1"),
    pytest.param(
        "train_vdsr.py",
        "--optimizer adamw --betas 0.8 0.9 --weight_decay 0.1 --clip_grad_norm 1",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "train_srgan.py",
        "--optimizer adamw --clip_grad_norm 1 --pretrain_steps 4 --max_train_steps 4 "
        "--lr_scheduler multistep --lr_milestones 1 3",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("script", "options"), RECIPES)
def test_recipes_of_today_are_resumed(script, options, train, tmp_path):
    short = (*options.split(), "--checkpointing_steps", 4, "--logging_steps", 1)
    short += ("--validation_steps", 8)
    steps = 4 if script == "train_srgan.py" else 8
    train(script, tmp_path / "straight", *short, steps=steps)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-8")
    assert "Resuming" in train(script, tmp_path / "resumed", *short, *LATEST, steps=steps).stdout
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")


def test_a_recipe_is_told_and_recorded(train, tmp_path):
    process = train(SCRIPT, tmp_path / "run", "--recipe", "modern", "--betas", 0.8, 0.9, steps=50)
    assert "    Recipe: modern, adamw, rate 0.005, schedule multistep\n" in process.stdout
    card = (tmp_path / "run" / "README.md").read_text()
    assert "- `recipe`: modern\n" in card
    assert "- `betas`: 0.8 0.9\n" in card
    assert "- `lr_milestones`: 25 40 45 47 49\n" in card
    state = torch.load(tmp_path / "run" / "checkpoint-50" / "optimizer.bin")
    assert [group["betas"] for group in state["param_groups"]] == [(0.8, 0.9)] * 2


def test_clipped_gradients_are_those_that_train(train, tmp_path):
    """SGD's first step is as long as the rate times the bound, which no gradient is below."""
    options = (
        "--optimizer sgd --lr_scheduler step --lr_warmup_steps 0 --clip_grad_norm 1e-3".split()
    )
    states = []
    for rate in (1e-12, 1):
        folder = tmp_path / f"{rate}"
        train(SCRIPT, folder, *options, "--learning_rate", rate, steps=1)
        states.append(load_file(folder / "checkpoint-1" / "model.safetensors"))
    fresh, trained = states
    last = ("layers.4.weight", "layers.4.bias")  # which learns by a tenth of the rate
    steps = [(trained[k] - fresh[k]).flatten() * (10 if k in last else 1) for k in fresh]
    assert torch.linalg.vector_norm(torch.cat(steps)).item() == pytest.approx(1e-3, rel=1e-2)


# -------------------------------------------------------------------------------- longer, by time


def test_a_run_by_wsd_becomes_longer(train, tmp_path, pictures_dir):
    process = train(SCRIPT, tmp_path / "short", *WSD_OPTIONS, steps=12)
    kept = tmp_path / "short" / "checkpoint-8"
    names = sorted(path.name for path in (tmp_path / "short").glob("checkpoint-*"))
    assert names == ["checkpoint-12", "checkpoint-8"]  # in spite of --checkpoints_total_limit 1
    way_out = f"--resume_from_checkpoint {kept} and another --output_dir"
    assert "To train longer, go on from the last checkpoint before that: " in process.stdout
    assert way_out in process.stdout

    options = (*SMALL, *WSD_OPTIONS, "--train_data_dir", pictures_dir, "--max_train_steps", 15)
    message = refusal(SCRIPT, *options, "--output_dir", tmp_path / "short", *LATEST)
    assert "--max_train_steps was 12 and is 15. By --lr_scheduler wsd its rate has been" in message
    assert way_out in message

    longer = tmp_path / "longer"
    train(SCRIPT, longer, *WSD_OPTIONS, "--resume_from_checkpoint", kept, steps=15)
    train(SCRIPT, tmp_path / "straight", *WSD_OPTIONS, steps=15)
    ours, theirs = (metrics(tmp_path / name) for name in ("longer", "straight"))
    assert ours == [row for row in theirs if row["step"] > 8]
    one, two = (
        load_file(tmp_path / name / "checkpoint-15" / "model.safetensors")
        for name in ("longer", "straight")
    )
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_minutes_are_a_number_of_steps(train, tmp_path):
    options = "--lr_scheduler cosine --lr_warmup_steps 20 --checkpointing_steps 15".split()
    options += ["--logging_steps", 10, "--validation_steps", 30]
    minutes = ("--max_train_minutes", 1e-9)  # so that it ends with its warm-up, on any machine
    process = train(SCRIPT, tmp_path / "timed", *options, *minutes, steps=1000)
    assert "0 to 1,000, or what 1e-09 minutes allow" in process.stdout
    assert "warm-up alone takes longer than 1e-09 minutes: 20 steps, which" in process.stdout
    assert re.search(r"--max_train_steps 20 trains to the same weights\.", process.stdout)
    train(SCRIPT, tmp_path / "steps", *options, steps=20)
    assert_same_run(tmp_path / "timed", tmp_path / "steps")
    record = json.loads((tmp_path / "timed" / "args.json").read_text())["args"]
    assert (record["max_train_steps"], record["max_train_minutes"]) == (20, 1e-9)

    # Resumed in the warm-up, it measures again; later the number of steps stays.
    for gone in (["checkpoint-20"], []):
        shutil.copytree(tmp_path / "timed", tmp_path / "resumed", dirs_exist_ok=True)
        for name in gone:
            shutil.rmtree(tmp_path / "resumed" / name)
        train(SCRIPT, tmp_path / "resumed", *options, *minutes, *LATEST, steps=1000)
        assert_same_run(tmp_path / "resumed", tmp_path / "steps")


# -------------------------------------------------------------------------------------- warm starts


def test_a_chain_of_warm_starts_is_recorded(train, tmp_path):
    """x2, x4 from it, x2 again, then larger patches and squared error: as in docs/train.md."""
    chain = [
        ("x2", "", "Recipe: paper"),
        ("x4", "--scale 4 --init_from {x2}", "172 of 178 tensors copied"),
        ("x2-again", "--init_from {x4}", "172 of 172 tensors copied"),
        ("x2-mse", "--init_from {x2-again} --patch_size 48 --loss mse --learning_rate 1e-5", "172"),
    ]
    folders = {name: tmp_path / name for name, _, _ in chain}
    for name, options, said in chain:
        words = ["--variant", "a2n-m", "--scale", 2, *options.format(**folders).split()]
        assert said in train("train_a2n.py", folders[name], *words, steps=1).stdout
        record = json.loads((folders[name] / "args.json").read_text())
        (folders[name] / "args.json").write_text(json.dumps(record | {"commit": "0" * 40}))
    runs = runs_of(training(folders["x2-mse"]))
    assert [run["command"].split()[-1] for run in runs] == ["1e-5", "x4", "x2", "2"]
