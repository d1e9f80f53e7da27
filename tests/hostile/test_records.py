"""Records that are damaged: a resume is never blocked by a log, and no good line is lost."""

import json
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from common.card import CARD, add_to_card, model_card
from common.errors import UserError
from common.files import read_json_lines
from common.training.folder import (
    NEEDED,
    choose_checkpoint,
    claim_folder,
    find_damage,
    seal,
)
from common.training.log import JsonLines
from common.training.recipe import read_recipe
from results.record import training, wall_time
from running import LATEST, RECIPE, SCRIPT, assert_same_run, metrics, refusal

GOOD = [{"step": 5, "loss": 0.5}, {"step": 10, "loss": 0.25}, {"step": 10, "psnr_y": 30.0}]
LINES = [json.dumps(line).encode() for line in GOOD]
LATER = b'{"step": 15, "loss": 0.1}'
BAD = {
    "binary": bytes(range(128, 200)),
    "zeros": bytes(100),
    "cut off": b'{"step": 7, "lo',
    "no object": b"[1, 2]",
    "a number": b"17",
    "without a step": b'{"loss": 1.0}',
    "a step in words": b'{"step": "7"}',
    "a step that is none": b'{"step": true}',
    "a broken step": b'{"step": 7.5}',
    "nested": b"[" * 100_000,
    "digits": b'{"step": ' + b"9" * 5000 + b"}",
    "two in one": LINES[0] + LINES[1],
    "a merge": b"<<<<<<< HEAD",
    "utf-16": '{"step": 7}'.encode("utf-16"),
}


@pytest.fixture
def log(tmp_path) -> JsonLines:
    """A log whose warnings are collected in `log.warnings`."""
    warnings: list[str] = []
    log = JsonLines(tmp_path / "metrics.jsonl", warnings.append)
    log.warnings = warnings
    return log


def lines_of(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1]


# ------------------------------------------------------------------------------------------- logs


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_bad_line_is_put_aside(log, bad, place):
    lines = [*LINES[:place], bad, *LINES[place:], LATER]
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    log.truncate(10)
    assert lines_of(log.path) == LINES
    assert b"\n".join(lines_of(log.path.with_name("metrics.jsonl.damaged"))) == bad.rstrip(b"\r")
    assert log.warnings == [
        "metrics.jsonl had 1 damaged line, which metrics.jsonl.damaged has now. All others stay."
    ]
    log.add(15, {"loss": 0.1})
    assert lines_of(log.path) == [*LINES, LATER]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + b"\n".join(LINES) + b"\n",
        b"\r\n".join(LINES) + b"\r\n",
        b"\n".join(LINES),
        b"\n\n\n".join(LINES) + b"\n\n",
        b"\n".join([LINES[0], *LINES, LATER, LATER]) + b"\n",
        b"\n".join([*LINES, b'{"step": 12, "lo']),
    ],
    ids=["BOM", "CRLF", "no end", "empty lines", "twice and later", "killed"],
)
def test_what_harms_nothing_is_mended_without_a_word(log, content):
    log.path.write_bytes(content)
    log.truncate(10)
    assert lines_of(log.path) == LINES
    assert log.warnings == []
    assert len(list(log.path.parent.iterdir())) == 1


def test_lines_out_of_order_stay(log):
    log.path.write_bytes(b"\n".join([LATER, *LINES]) + b"\n")
    log.truncate(15)
    assert lines_of(log.path) == [LATER, *LINES]


def test_an_empty_log(log):
    log.path.touch()
    log.truncate(10)
    assert log.path.read_bytes() == b""
    assert log.warnings == []


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").touch()


ODD = {
    "a folder": make_folder,
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a loop": lambda path: path.symlink_to(path.name),
    "a link to a folder": lambda path: path.symlink_to("/"),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize("when", ["before", "while it runs"])
def test_what_is_no_file_gets_another_name(log, make, when):
    (log.path.parent / "metrics.jsonl.damaged").write_text("earlier")
    make(log.path)
    if when == "before":
        log.truncate(10)
        assert not os.path.lexists(log.path)
    log.add(15, {"loss": 0.1})
    assert lines_of(log.path) == [LATER]
    aside = log.path.with_name("metrics.jsonl.damaged-2")
    assert os.path.lexists(aside)
    assert log.warnings == [f"metrics.jsonl was no file. It is {aside.name} now; a new one begins."]
    assert log.path.with_name("metrics.jsonl.damaged").read_text() == "earlier"


def test_a_log_that_is_a_link_keeps_its_lines(log, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"\n".join([*LINES, LATER]) + b"\n")
    log.path.symlink_to("elsewhere")
    log.truncate(10)
    assert lines_of(log.path) == LINES
    assert lines_of(tmp_path / "elsewhere") == [*LINES, LATER]  # which may be another run's


def test_a_log_that_may_not_be_written_is_written_anew(log, monkeypatch):
    log.path.write_bytes(b"\n".join(LINES) + b"\n")
    log.path.chmod(0o400)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o200))
    log.add(15, {"loss": 0.1})
    assert lines_of(log.path) == [*LINES, LATER]
    assert os.access(log.path, os.W_OK)


# ------------------------------------------------------------------------- args.json, checkpoints


DAMAGED_RECORDS = {
    "empty": b"",
    "cut off": b'{"args": {"check',
    "binary": bytes(range(256)),
    "a list": b"[]",
    "no options": b'{"command": ""}',
    "other options": b'{"args": [1]}',
    "nothing": b"null",
    "nested": b"[" * 100_000,
}


def add_checkpoint(folder: Path, step: int) -> Path:
    partial = folder / f"checkpoint-{step}.partial"
    partial.mkdir(parents=True)
    for name in NEEDED[:-1]:
        (partial / name).write_text(name)
    seal(partial, {"args": {}})
    return folder / f"checkpoint-{step}"


@pytest.mark.parametrize("content", DAMAGED_RECORDS.values(), ids=DAMAGED_RECORDS)
def test_a_damaged_record_of_the_folder_is_no_hindrance(content, tmp_path):
    checkpoint = add_checkpoint(tmp_path, 10)
    (tmp_path / "args.json").write_bytes(content)
    claim_folder(tmp_path, "latest").release()
    assert choose_checkpoint(tmp_path, "latest") == (checkpoint, [])
    with pytest.raises(UserError, match="is not the record of a run, or is damaged"):
        read_recipe(tmp_path)
    with pytest.raises(UserError, match=r"so nobody knows how to repeat it\. Train it again\."):
        training(tmp_path)
    (tmp_path / "args.json").unlink()
    with pytest.raises(UserError, match=r"args\.json is not there, so nobody knows"):
        read_recipe(tmp_path)
    shutil.rmtree(checkpoint)
    (tmp_path / "metrics.jsonl").write_bytes(LINES[0] + b"\n\0\n")
    with pytest.raises(UserError, match=r"has no checkpoint, though its log goes to step 5\. To"):
        choose_checkpoint(tmp_path, "latest")


def test_a_record_that_is_gone_is_no_hindrance(tmp_path):
    checkpoint = add_checkpoint(tmp_path, 10)
    claim_folder(tmp_path, "latest").release()
    assert choose_checkpoint(tmp_path, "latest") == (checkpoint, [])


@pytest.mark.parametrize("name", NEEDED)
def test_a_checkpoint_that_lacks_a_file_is_not_whole(name, tmp_path):
    checkpoint = add_checkpoint(tmp_path, 10)
    sums = checkpoint / "SHA256SUMS"
    kept = [line for line in sums.read_text().splitlines(keepends=True) if name not in line]
    sums.write_text("".join(kept))
    (checkpoint / name).unlink()
    assert find_damage(checkpoint) == f"{name} is missing"
    before = add_checkpoint(tmp_path, 5)
    chosen, notes = choose_checkpoint(tmp_path, "latest")
    assert chosen == before
    assert notes == [
        f"Passed over checkpoint-10, which is damaged: {name} is missing. It is "
        "checkpoint-10.damaged now."
    ]


def test_damage_that_was_put_aside_before_is_kept(tmp_path):
    add_checkpoint(tmp_path, 5)
    (tmp_path / "checkpoint-10.damaged").write_text("mine")
    (tmp_path / "checkpoint-10").write_text("no folder")
    (tmp_path / "checkpoint-3.partial").write_text("mine")
    _, notes = choose_checkpoint(tmp_path, "latest")
    assert "It is checkpoint-10.damaged-2 now." in notes[0]
    for name in ("checkpoint-10.damaged", "checkpoint-3.partial"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_run_is_resumed_in_spite_of_all_its_records(train, tmp_path):
    """Each record is damaged in another way; the weights, and all good lines, are the same."""
    straight, folder = tmp_path / "straight", tmp_path / "run"
    train(SCRIPT, straight, *RECIPE, "--report_to", "none")
    train(SCRIPT, folder, *RECIPE, steps=10)
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard").write_text("no folder")
    make_folder(folder / "times.jsonl.d")
    (folder / "times.jsonl").unlink()
    (folder / "times.jsonl.d").rename(folder / "times.jsonl")
    (folder / "args.json").unlink()
    make_folder(folder / "args.json")
    (folder / CARD).write_bytes(b"\xff\xfe---\n: [")
    log = folder / "metrics.jsonl"
    log.write_bytes(b"\0\0\n" + log.read_bytes().replace(b"\n", b"\r\n") + b'{"step": 10')
    process = train(SCRIPT, folder, *RECIPE, *LATEST)
    for text in (
        "Warning: metrics.jsonl had 1 damaged line, which metrics.jsonl.damaged has now.",
        "Warning: times.jsonl was no file. It is times.jsonl.damaged now; a new one begins.",
        "Warning: tensorboard fails and ends at step 10; training goes on",
    ):
        assert text in process.stdout
    assert_same_run(folder, straight)
    assert read_recipe(folder)["args"]["max_train_steps"] == 20
    assert (folder / "args.json.damaged" / "mine").exists()
    assert [line["step"] for line in read_json_lines(folder / "times.jsonl").lines.values()]


def test_a_failed_start_leaves_nothing(train, pictures_dir, tmp_path):
    made = tmp_path / "a" / "b" / "run"
    options = ("--train_data_dir", pictures_dir, "--output_dir", made)
    assert "There is no folder or file" in refusal(
        SCRIPT, *options, "--init_from", tmp_path / "nowhere"
    )
    assert list(tmp_path.iterdir()) == []
    made.mkdir(parents=True)
    assert "There is no folder or file" in refusal(
        SCRIPT, *options, "--init_from", tmp_path / "nowhere"
    )
    assert list(made.iterdir()) == []
    train(SCRIPT, made, steps=5)
    assert metrics(made)


def test_a_time_that_is_damaged(tmp_path):
    (tmp_path / "times.jsonl").write_bytes(b'{"step": 5, "seconds": 60}\n{"step": 10, "sec')
    assert wall_time(tmp_path) == 60
    (tmp_path / "times.jsonl").write_bytes(b'{"step": 5}\n')
    with pytest.raises(UserError, match="does not tell how long the run took"):
        wall_time(tmp_path)


# ------------------------------------------------------------------------------------------ cards


CARD_TEXT = model_card("SRCNN", "srcnn", [2], scores={2: {"psnr_y": 30.0}}, license="mit")
SOUND = {
    "empty": b"",
    "BOM": b"\xef\xbb\xbf" + CARD_TEXT.encode(),
    "CRLF": CARD_TEXT.replace("\n", "\r\n").encode(),
    "no metadata": CARD_TEXT.split("---\n", 2)[2].encode(),
    "metadata without an end": CARD_TEXT.replace("\n---\n# ", "\n# ").encode(),
    "no heading": CARD_TEXT.replace("## Use\n", "").encode(),
    "a heading twice": f"{CARD_TEXT}## Use\n".encode(),
    "a score without a name": CARD_TEXT.replace("name: psnr_y", "").encode(),
    "a name that is a number": CARD_TEXT.replace(
        "name: validation pictures x2", "name: 5"
    ).encode(),
    "a score in words": CARD_TEXT.replace("value: 30.0", "value: high").encode(),
}
DAMAGED_CARDS = {
    "no UTF-8": (CARD_TEXT.encode() + b"\xff", "it is no UTF-8"),
    "UTF-16": (CARD_TEXT.encode("utf-16"), "it is no UTF-8"),
    "no YAML": (CARD_TEXT.replace("license: ", "license: [a: {").encode(), "its metadata cannot"),
    "a list": (b"---\n- a\n---\n# T\n\nMine.\n", "its metadata cannot be read"),
    "words": (b"---\nhello\n---\n# T\n", "its metadata cannot be read"),
    "results": (CARD_TEXT.replace("- task:", "- tusk:").encode(), "its metadata cannot be read"),
    "results in words": (b"---\nmodel-index: abc\n---\n# T\n", "its metadata cannot be read"),
    "code": (b"---\na: !!python/object/apply:os.getcwd []\n---\n", "its metadata cannot be read"),
}


def add_results(folder: Path, content: bytes) -> str:
    (folder / CARD).write_bytes(content)
    note = add_to_card(folder, 2, {"Set5": {"psnr_y": 33.0}}, "Y")
    card = ModelCard.load(folder / CARD)
    assert ("Set5 x2", 33.0) in [(r.dataset_name, r.metric_value) for r in card.data.eval_results]
    assert "| Set5 x2 | 33.00 |\n" in card.text
    return note


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND)
def test_cards_that_somebody_edited_take_results(content, tmp_path):
    assert add_results(tmp_path, content) == ""
    assert [path.name for path in tmp_path.iterdir()] == [CARD]


@pytest.mark.parametrize(("content", "reason"), DAMAGED_CARDS.values(), ids=DAMAGED_CARDS)
def test_damaged_cards_take_results_and_are_kept(content, reason, tmp_path):
    note = add_results(tmp_path, content)
    assert note.startswith(f"README.md was damaged: {reason}")
    assert note.endswith("What could be read stays; README.md.damaged has it all.")
    assert len(note) < 400
    assert (tmp_path / "README.md.damaged").read_bytes() == content
