"""The folder of a run: who may have it, and which of its checkpoints is whole."""

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

import common.training.folder
from common.errors import UserError
from common.options import Arguments
from common.training.folder import (
    NEEDED,
    choose_checkpoint,
    claim_folder,
    claim_together,
    delete_oldest,
    find_damage,
    list_checkpoints,
    seal,
)
from running import flip_a_bit

FILES = NEEDED[:-1]


def add_checkpoint(folder: Path, step: int) -> None:
    """Adds a whole checkpoint whose files hold their own names."""
    partial = folder / f"checkpoint-{step}.partial"
    partial.mkdir()
    for name in FILES:
        (partial / name).write_text(name * 9)
    seal(partial, {"step": step})


@pytest.fixture
def folder(tmp_path) -> Path:
    """What a run leaves that logged step 20, with a checkpoint every 10 steps."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps({"args": {"checkpointing_steps": 10}}))
    (folder / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"step": 2')
    for step in (10, 20):
        add_checkpoint(folder, step)
    return folder


# ------------------------------------------------------------------------------------- checkpoints


def test_every_kind_of_damage_is_found(folder):
    checkpoint = folder / "checkpoint-20"
    assert {path.name for path in checkpoint.iterdir()} == {*FILES, "args.json", "SHA256SUMS"}
    assert find_damage(checkpoint) is None
    for file in sorted(checkpoint.iterdir()):
        content = file.read_bytes()
        file.unlink()
        assert find_damage(checkpoint) == f"{file.name} is missing"
        file.write_bytes(content)
        if file.name != "SHA256SUMS":
            flip_a_bit(file)
            assert find_damage(checkpoint) == f"{file.name} is not what was written"
            file.write_bytes(content[:-1])
            assert find_damage(checkpoint) == f"{file.name} is not what was written"
        file.write_bytes(content)
    for content in ("", "\0\0\0", "conv_first.weight"):
        (checkpoint / "SHA256SUMS").write_text(content)
        assert find_damage(checkpoint) == "SHA256SUMS is not what was written"
    (folder / "checkpoint-10" / ".DS_Store").touch()
    assert find_damage(folder / "checkpoint-10") is None


def test_the_newest_whole_checkpoint_is_chosen(folder):
    assert choose_checkpoint(folder, "latest") == (folder / "checkpoint-20", [])
    add_checkpoint(folder, 100)  # not by the order of the alphabet
    (folder / "checkpoint-200.partial").mkdir()
    (folder / "notes.partial").touch()  # which is the user's
    flip_a_bit(folder / "checkpoint-100" / "optimizer.bin")
    chosen, notes = choose_checkpoint(folder, "latest")
    assert chosen == folder / "checkpoint-20"
    assert notes == [
        "Passed over checkpoint-200.partial, which is not whole, and removed it.",
        "Passed over checkpoint-100, which is damaged: optimizer.bin is not what was written. It "
        "is checkpoint-100.damaged now.",
    ]
    assert [path.name for path in folder.glob("*.partial")] == ["notes.partial"]


def test_no_whole_checkpoint_is_no_new_beginning(folder):
    (folder / "checkpoint-10" / "optimizer.bin").unlink()
    flip_a_bit(folder / "checkpoint-20" / "model.safetensors")
    with pytest.raises(UserError) as error:
        choose_checkpoint(folder, "latest")
    message = str(error.value)
    assert f"No checkpoint in {folder} is whole" in message
    assert "checkpoint-20: model.safetensors is not what was written" in message
    assert "checkpoint-10: optimizer.bin is missing" in message
    assert "by --init_from" in message
    assert len(list_checkpoints(folder)) == 2
    with pytest.raises(UserError, match=r"20 is damaged: model\.safetensors is not what was writt"):
        choose_checkpoint(folder, f"{folder / 'checkpoint-20'}")


def test_a_run_whose_checkpoints_are_gone_is_not_overwritten(folder):
    for checkpoint in list_checkpoints(folder):
        shutil.rmtree(checkpoint)
    with pytest.raises(UserError, match=f"{folder} has no checkpoint, though its log goes to step"):
        choose_checkpoint(folder, "latest")
    (folder / "metrics.jsonl").write_text('{"step": 10}\n')  # killed before its first checkpoint
    assert choose_checkpoint(folder, "latest") == (None, [])
    (folder / "checkpoint-10.damaged").mkdir()
    with pytest.raises(UserError, match="no checkpoint, though its log goes to step 10"):
        choose_checkpoint(folder, "latest")


def test_a_checkpoint_by_its_path(folder, tmp_path):
    (folder / "empty").mkdir()
    (folder / "checkpoint-8").mkdir()
    for path, message in {
        folder / "checkpoint-7": "is not there. Use `latest`, or the path of a checkpoint. In .* "
        "there are: .*checkpoint-10, checkpoint-20",
        folder / "metrics.jsonl": "is a file, no checkpoint folder",
        folder / "empty": "is no checkpoint folder: it has no SHA256SUMS",
        folder / "checkpoint-8": "is damaged: SHA256SUMS is missing",
        folder: f"is the folder of a run. Give `latest` with --output_dir {folder} to go on there",
    }.items():
        with pytest.raises(UserError, match=f"{path} {message}"):
            choose_checkpoint(folder, f"{path}")
    (folder / "checkpoint-8").rmdir()
    renamed = Path(shutil.copytree(folder / "checkpoint-10", tmp_path / "best"))
    assert choose_checkpoint(tmp_path / "other", f"{renamed}") == (renamed, [])
    for name in ("config.json", "model.safetensors"):
        (folder / "empty" / name).write_text("")
    with pytest.raises(UserError, match="is a model, from which a new run can begin by --init_fro"):
        choose_checkpoint(folder, f"{folder / 'empty'}")
    newest, older = folder / "checkpoint-20", folder / "checkpoint-10"
    assert choose_checkpoint(folder, f"{newest}") == (newest, [])
    with pytest.raises(UserError, match="holds a run that goes on from elsewhere than"):
        choose_checkpoint(folder, f"{older}")
    assert choose_checkpoint(tmp_path / "other", f"{older}") == (older, [])


def test_the_oldest_are_deleted(folder):
    add_checkpoint(folder, 100)
    (folder / "checkpoint-5.damaged").mkdir()
    delete_oldest(folder, keep=2)
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-20", "checkpoint-100"]
    assert (folder / "checkpoint-5.damaged").exists()


# ------------------------------------------------------------------------------------------ folder


def test_two_runs_cannot_share_a_folder(folder, monkeypatch, capsys):
    monkeypatch.setattr(common.training.folder, "PATIENCE", 0.1)
    lock = FileLock(folder / ".lock")  # as another program has it
    lock.acquire()
    with pytest.raises(UserError, match=f"Another program still trains in --output_dir {folder}"):
        claim_folder(folder, "latest")
    assert "for another program that holds" in capsys.readouterr().out
    lock.release()
    kept = claim_folder(folder, "latest")  # by a run that failed in a notebook
    claim_folder(folder, "latest")
    kept.release(force=True)


def test_a_run_that_ended_before_it_began_leaves_the_folder_free(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "args.json.partial").touch()
    assert choose_checkpoint(tmp_path, "latest") == (None, [])
    claim_folder(tmp_path, None).release()
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="is not empty"):
        claim_folder(tmp_path, None)


def test_a_run_is_not_overwritten(folder):
    with pytest.raises(UserError, match=r"is not empty\. Go on with the run in it by --resume_fr"):
        claim_folder(folder, None)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for wanted in (None, "latest"):
        with pytest.raises(UserError, match="is not empty and not that of a run"):
            claim_folder(tmp_path, wanted)
    with pytest.raises(UserError, match=r"notes\.txt is a file\. Name a folder"):
        claim_folder(tmp_path / "notes.txt", None)
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_one_machine_alone_has(tmp_path, processes, monkeypatch):
    args = Arguments(output_dir=tmp_path / "run", resume_from_checkpoint=None, push_to_hub=False)
    claim = claim_together(args, processes)
    assert (claim.checkpoint, claim.differences) == (None, [])
    claim.lock.release()
    monkeypatch.setattr(processes, "gather", lambda found: [found, False])
    with pytest.raises(UserError, match=r"machine only\. Name an --output_dir that all"):
        claim_together(args, processes)
