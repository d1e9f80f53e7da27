"""A run is never lost, whatever has become of its checkpoints."""

import json
import re
import shutil
from itertools import count

import torch
from safetensors.torch import load_file

from common.files import write_checksums
from common.training import state
from common.training.folder import choose_checkpoint, seal
from common.training.recipe import read_recipe
from helpers.forked import run_forked
from running import (
    LATEST,
    RECIPE,
    SCRIPT,
    SMALL,
    assert_equal,
    assert_same_run,
    disturbed,
    flip_a_bit,
    metrics,
    refusal,
    run_here,
    run_two,
)


def test_all_state_is_resumed(train, tmp_path):
    # Random numbers of every process, the loss scale of fp16, averages, rates, what is logged.
    watched = disturbed(run_two, WATCH="1")
    options = (*RECIPE, "--checkpointing_steps", 5, "--logging_steps", 4)
    train(SCRIPT, tmp_path / "straight", *options, steps=10, runner=watched)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-10")
    process = train(SCRIPT, tmp_path / "resumed", *options, *LATEST, steps=10, runner=watched)
    assert "Resuming from" in process.stdout
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")
    states = [tmp_path / name / "checkpoint-10" / "scaler.pt" for name in ("straight", "resumed")]
    ours, theirs = map(torch.load, states)
    assert_equal(ours, theirs)
    assert (ours["scale"], ours["_growth_tracker"]) == (2.0**19, 1)  # doubled every third step
    assert len({row["random"] for row in metrics(tmp_path / "straight") if "random" in row}) == 3


def test_muon_is_resumed(train, tmp_path):
    options = ("--optimizer", "muon", "--checkpointing_steps", 3)
    train(SCRIPT, tmp_path / "straight", *RECIPE, *options, steps=6)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-6")
    train(SCRIPT, tmp_path / "resumed", *RECIPE, *options, *LATEST, steps=6)
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")


def test_a_loss_scale_begins_where_the_checkpoint_has_none(copy, train):
    train(SCRIPT, copy, *RECIPE, *LATEST, steps=22, runner=disturbed(run_forked, WATCH="1"))
    assert metrics(copy)[-2]["scale"] == 2.0**16


def test_a_damaged_checkpoint_is_passed_over(copy, straight, train):
    flip_a_bit(copy / "checkpoint-20" / "optimizer.bin")
    (copy / "checkpoint-30.partial").mkdir()
    process = train(SCRIPT, copy, *RECIPE, *LATEST)
    assert process.stdout.startswith(
        "Warning: Passed over checkpoint-30.partial, which is not whole, and removed it.\n"
        "Warning: Passed over checkpoint-20, which is damaged: optimizer.bin is not what was "
        "written. It is checkpoint-20.damaged now.\n"
    )
    assert f"Resuming from {copy / 'checkpoint-10'}." in process.stdout
    assert_same_run(copy, straight)
    assert {path.name for path in copy.iterdir()} == {
        *(path.name for path in straight.iterdir()),
        "checkpoint-20.damaged",
    }


def test_another_networks_checkpoint_is_refused(copy, train, pictures_dir, tmp_path):
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    # Its weights alone are damage, and the checkpoint before is taken.
    train("train_vdsr.py", tmp_path / "vdsr", "--num_layers", 2, "--ema_decay", 0.9, steps=1)
    other, ours = tmp_path / "vdsr" / "checkpoint-1", copy / "checkpoint-20"
    shutil.copy(other / "model.safetensors", ours)
    assert choose_checkpoint(copy, "latest")[0] == copy / "checkpoint-10"
    # The whole of it, under the name of ours.
    record = json.loads((copy / "checkpoint-10" / "args.json").read_text())
    shutil.copytree(other, copy / "checkpoint-20.partial")
    (copy / "checkpoint-20.partial" / "SHA256SUMS").unlink()
    seal(copy / "checkpoint-20.partial", record)
    message = refusal(*base, *LATEST)
    assert "checkpoint-20 is of another network, optimizer or --ema_decay than this" in message
    assert "size mismatch for layers.0.weight" in message


def test_another_recipe_needs_permission(copy, train, pictures_dir, tmp_path):
    base = (SCRIPT, *SMALL, "--train_data_dir", pictures_dir, "--output_dir", copy, *LATEST)
    changes = (*RECIPE, "--learning_rate", 1e-6, "--batch_size", 8, "--seed", 3)
    changes += ("--max_train_steps", 22, "--num_workers", 1)  # of which the recipe knows nothing
    message = refusal(*base, *changes)
    assert f"Cannot resume from {copy / 'checkpoint-20'} by another recipe: " in message
    assert "--seed was 0 and is 3" in message
    assert "--learning_rate was 2e-05 and is 1e-06" in message
    assert "--batch_size was 4 and is 8" in message
    assert "steps was" not in message
    assert "workers was" not in message
    assert "Give the same options, or start a new run with --init_from and another --o" in message
    assert "are the same, --allow_recipe_change goes on with the new recipe." in message
    message = refusal(*base, *changes, "--allow_recipe_change", "--ema_decay", 0)
    assert message.endswith(
        "has an average of the weights, and this command has --ema_decay 0. Give --ema_decay 0.9, "
        "or start a new run in another --output_dir, with --init_from."
    )
    changes += ("--logging_steps", 1, "--allow_recipe_change")
    process = train(SCRIPT, copy, *LATEST, *changes, steps=22)
    assert re.search(
        r"The recipe changes at step 20: .*--batch_size was 4 and is 8", process.stdout
    )
    # The rates are those of the new schedule: halved at steps 7, 14 and 21.
    rates = [row["learning_rate"] for row in metrics(copy) if row["step"] > 20 and "loss" in row]
    assert rates == [1e-6 / 8, 1e-6 / 8]
    optimizer = torch.load(copy / "checkpoint-22" / "optimizer.bin")
    assert [group["initial_lr"] for group in optimizer["param_groups"]] == [1e-6, 1e-7]
    for folder in (copy, copy / "checkpoint-22"):
        (before,) = json.loads((folder / "args.json").read_text())["recipes"]
        assert before["until"] == 20
        assert before["command"].startswith(f"python {SCRIPT} --batch_size 4")
        assert "--batch_size was 4 and is 8" in before["changes"]


def test_another_optimizer_is_refused_in_words(copy, pictures_dir):
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    options = (*LATEST, "--optimizer", "sgd", "--allow_recipe_change", "--max_train_steps", 22)
    message = refusal(*base, *options)
    assert "checkpoint-20 was trained by Adam, and this command trains by SGD. A run" in message
    assert "start a new run in another --output_dir, with --init_from." in message
    # An older checkpoint does not name its optimizer.
    record = json.loads((copy / "checkpoint-20" / "args.json").read_text())
    del record["optimizers"]
    (copy / "checkpoint-20" / "args.json").write_text(json.dumps(record))
    write_checksums(copy / "checkpoint-20")
    message = refusal(*base, *options)
    assert re.search(r"checkpoint-20 has no .*momentum.*, which SGD needs\. A run", message)


def test_a_script_that_has_changed_is_said(copy, train, monkeypatch):
    looks = count()  # the script is another one at each look
    monkeypatch.setattr(state, "script_of", lambda network: {SCRIPT: f"{next(looks)}"})
    process = train(SCRIPT, copy, *RECIPE, *LATEST, steps=21)
    said = f"Warning: Since checkpoint-20 {SCRIPT} has changed. From here on its network and its "
    assert said in process.stdout
    assert "optimizer are those of the checkpoint, unless you add --allow_recipe" in process.stdout
    # A file that is edited while a run trains is not what it trains by.
    assert read_recipe(copy / "checkpoint-21")["script"] == {SCRIPT: "0"}
    monkeypatch.setattr(state, "script_of", lambda network: {SCRIPT: "0"})
    process = train(SCRIPT, copy, *RECIPE, *LATEST, steps=22)
    assert "has changed" not in process.stdout


def test_fewer_steps_than_there_are(copy, pictures_dir):
    base = (SCRIPT, *SMALL, *RECIPE, "--train_data_dir", pictures_dir, "--output_dir", copy)
    message = refusal(*base, *LATEST, "--max_train_steps", 19)
    assert f"{copy / 'checkpoint-20'} is later than the 19 steps of this command" in message
    (copy / "model.safetensors").unlink()
    output = run_here(*base, *LATEST, "--max_train_steps", 20).stdout
    assert "Warning: model.safetensors is missing: it is written from the last step." in output
    ours, last = (load_file(path / "model.safetensors") for path in (copy, copy / "checkpoint-20"))
    assert ours.keys() == last.keys()


def test_other_pictures_need_permission(copy, pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "fewer")
    (tmp_path / "fewer" / "0.png").unlink()
    options = (*SMALL, *RECIPE, "--train_data_dir", tmp_path / "fewer", "--output_dir", copy)
    message = refusal(SCRIPT, *options, *LATEST)
    assert "by another recipe: there were 7 training pictures and are 6. Give the sam" in message
    (tmp_path / "fewer" / "00.png").write_bytes((pictures_dir / "0.png").read_bytes())
    message = refusal(SCRIPT, *options, *LATEST)
    assert "the names or sizes of the training pictures have changed" in message


def test_other_validation_pictures_choose_anew(copy, train, pictures_dir, tmp_path):
    (tmp_path / "same").mkdir()
    for number in range(7):  # those that were trained on
        shutil.copy(pictures_dir / f"{number}.png", tmp_path / "same")
    options = (*RECIPE, *LATEST, "--learning_rate", 1e-9, "--allow_recipe_change")
    options += ("--train_data_dir", tmp_path / "same", "--validation_data_dir", pictures_dir)
    process = train(SCRIPT, copy, *options, steps=21)
    assert "Best validation, at step 21, on 8 pictures: " in process.stdout
    scores = metrics(copy)[-1]
    assert f"PSNR-Y {scores['psnr_y']:.2f} dB" in (copy / "README.md").read_text()
