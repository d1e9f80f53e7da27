"""Names from elsewhere act on no terminal, card or table; messages have lines of their own."""

import io
import json
import logging
import multiprocessing
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import distributed
from tqdm import tqdm

import common.training.log
from common.card import add_to_card, model_card
from common.data.cache import decode_pictures
from common.data.find import find_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.evaluation import Bicubic, evaluate, find_results
from common.files import last_name, shorten_command
from common.launcher import says_first
from common.options import Parser
from common.tables import enumerate_first, markdown_table, text_table
from common.terminal import end_bars, markdown, printable, say, show_warnings_beside_bars
from common.training.log import Log
from common.training.trackers import Trackers
from running import SCRIPT, TWO, refusal, run, run_here, run_two

HARMFUL = {
    "\x1b[2J\x1b[31mred": r"\x1b[2J\x1b[31mred",
    "\x9b2J": r"\x9b2J",  # the same in one byte
    "a\nWarning: b": r"a\nWarning: b",
    "a\rb": r"a\rb",
    "a\tb": r"a\tb",
    "a\0b": r"a\x00b",
    "a\bb": r"a\x08b",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "gpj.\u202eexe": r"gpj.\u202eexe",  # what follows is shown backwards
    "a\u200fb\u2066c": r"a\u200fb\u2066c",
    "a\u2028b\x85c": r"a\u2028b\x85c",  # other ends of a line
    "\ufeffa\xadb": r"\ufeffa\xadb",
    "\udcff.png": r"\udcff.png",  # a byte that is no UTF-8
    "\U000e0041": r"\U000e0041",  # an invisible letter
    "<_io.BytesIO object at 0x7f3a5c0b1d60>": "<_io.BytesIO object>",
}
HARMLESS = (
    *("baby.png", "Фото 1.png", "写真.png", "café é.png", "a\u202fb\xa0c.png", "صورة.png"),
    *("👩\u200d🚀.png", "क्\u200dष.png", "a|b`c`<d>[e](f).png"),
)


@pytest.mark.parametrize(("text", "expected"), HARMFUL.items(), ids=map(ascii, HARMFUL))
def test_what_acts_on_a_terminal_is_shown(text, expected):
    assert printable(text) == expected
    assert printable(Path(text.replace("\0", ""))).isprintable()
    assert printable(printable(text)) == expected
    printable(text).encode()


@pytest.mark.parametrize("text", HARMLESS)
def test_names_in_all_languages_stay(text):
    assert printable(text) == text


def test_messages_may_have_lines():
    error = UserError("Cannot read a\n    b\x1b[2J <function f at 0x7f00>")
    assert str(error) == error.code == "Cannot read a\n    b\\x1b[2J <function f>"
    assert error.args == (str(error),)


@pytest.mark.parametrize("command", ["train_srcnn.py", "evaluate.py", "upscale.py"])
def test_options_are_shown_as_they_are(command):
    message = refusal(command, "--scale", "\x1b[2J\r99")
    assert "\x1b" not in message
    assert "x1b[2J" in message


# ----------------------------------------------------------------------------- cards and tables

MARKUP = {
    "a|b": r"a\|b",
    "`rm -rf`": r"\`rm -rf\`",
    "<script>alert(1)</script>": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[x](http://y)": r"\[x\](http://y)",
    "![x](y)": r"!\[x\](y)",
    "**a**": r"\*\*a\*\*",
    "a&lt;b": "a&amp;lt;b",
    "a\n## b": r"a\\n## b",
    r"a\|b": r"a\\\|b",
    "~~a~~": r"\~\~a\~\~",
    "snake_case-1.5 (2)": "snake_case-1.5 (2)",
}


@pytest.mark.parametrize(("text", "expected"), MARKUP.items())
def test_markup_is_shown(text, expected):
    assert markdown(text) == expected


@pytest.mark.parametrize("name", [*HARMFUL, *MARKUP])
def test_a_benchmark_of_any_name_is_one_row(name, tmp_path):
    (tmp_path / "README.md").write_text(model_card("SRCNN", "srcnn", [2]))
    for _ in range(2):
        assert add_to_card(tmp_path, 2, {name: {"psnr_y": 33.0}}, "Y") == ""
    text = (tmp_path / "README.md").read_text()
    (row,) = [line for line in text.split("\n") if line.endswith("| 33.00 |")]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert "<" not in row
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert result.dataset_name == f"{printable(name)} x2"
    assert result.dataset_name.isprintable()


def test_tables_and_lists_keep_their_lines():
    table = text_table([{"": "a\nb\x1b[2J", "PSNR-Y": "30.00"}])
    assert len(table.splitlines()) == 2
    assert "\x1b" not in table
    assert enumerate_first(["a\nb", "c"]) == r"a\nb, c"
    assert len(markdown_table([["", ""], [markdown("a\n|"), "1"]]).splitlines()) == 3


PRIVATE = {
    "/home/alice/secret/T91": "T91",
    "/home/a=b/c": "c",
    "~/secret/T91": "T91",
    "../alice/T91": "T91",
    r"C:\Users\alice\T91": "T91",
    r"\\server\alice\T91": "T91",
    "--train_data_dir=/home/alice/T91": "--train_data_dir=T91",
    "file:///home/alice/T91": "T91",
    "https://alice:password@host/T91.zip?token=hf_x": "T91.zip",
    "zip://a.png::/home/alice/T91.zip": "T91.zip",
    "user/name": "user/name",
    "out/a2n": "out/a2n",
    "--scale": "--scale",
    "data/*.png": "data/*.png",
}


@pytest.mark.parametrize(("word", "expected"), PRIVATE.items())
def test_paths_of_a_machine_are_cut(word, expected):
    assert last_name(word) == expected
    assert shorten_command(f"python '{word}'") in (f"python {expected}", f"python '{expected}'")


def test_what_is_pushed_knows_no_path_and_no_markup(train, pictures_dir, tmp_path):
    folder = tmp_path / "alice" / "<script>a|`b`\n# c\x1b[2J"
    folder.mkdir(parents=True)
    data = folder.parent / "[x](y)\n\n# d"
    data.symlink_to(pictures_dir)
    options = ("--train_data_dir", data, f"--validation_data_dir={data}", "--report_to", "none")
    train(SCRIPT, folder, *options, steps=5)
    for name in ("config.json", "model.safetensors", "README.md"):
        content = (folder / name).read_bytes()
        for private in ("alice", f"{tmp_path}", f"{Path.home()}/", f"{pictures_dir}"):
            assert private.encode() not in content, name
    card = ModelCard.load(folder / "README.md")
    assert "\x1b" not in (folder / "README.md").read_text()
    headings = re.findall("^#.*", card.text, re.MULTILINE)
    assert headings == ["# SRCNN x3", "## Use", "## Results", "## Training", "## License"]
    outside_of_code = re.sub("^    .*", "", card.text, flags=re.MULTILINE)
    assert "<script" not in outside_of_code
    assert "[x](" not in outside_of_code
    assert r"- `output_dir`: &lt;script&gt;a\|\`b\`\\n# c\\x1b\[2J" in outside_of_code


# ------------------------------------------------------------------------------ files and pictures

NAMES = ["\x1b[2J", "a\nb", "a\tb", "\u202egnp", "a|b", "`b`", "<script>", "[x](y)"]


def test_pictures_of_all_names_are_found_with_their_lr_and_results(tmp_path):
    for folder in ("HR", "LR", "made"):
        (tmp_path / folder).mkdir()
        for name in NAMES:
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.png")
    sources = find_pictures(tmp_path, [2])
    assert {source["name"] for source in sources} == {f"{printable(name)}.png" for name in NAMES}
    assert all(source["lr_x2"] for source in sources)
    keys = [printable(name) for name in NAMES]
    assert [path.stem for path in find_results(tmp_path / "made", keys, 2)] == NAMES


def test_a_training_names_what_it_leaves_out(train, pictures_dir, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in pictures_dir.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "\x1b[2Ja\nb\u202e.png").write_bytes(b"no picture")
    process = train(SCRIPT, tmp_path / "run", "--train_data_dir", folder, steps=5)
    (line,) = [line for line in process.stdout.split("\n") if "Left out" in line]
    assert r"Left out 1 of 9 pictures: \x1b[2Ja\nb\u202e.png (it is no PNG, JPEG," in line
    assert "0x" not in line
    assert "\x1b" not in process.stdout + process.stderr


def test_evaluation_of_pictures_of_all_names(tiny_benchmark_dir, tmp_path):
    hr = tmp_path / "Odd" / "HR"
    hr.mkdir(parents=True)
    for name, path in zip(
        NAMES, [*(tiny_benchmark_dir / "Tiny" / "HR").iterdir()] * 3, strict=False
    ):
        (hr / f"{name}.png").symlink_to(path)
    report = tmp_path / "report.json"
    options = ("--model", "bicubic", "--scale", 2, "--benchmark_dir", tmp_path)
    options += ("--benchmarks", "Odd")
    output = run_here("evaluate.py", *options, "--per_image", "--output", report).stdout
    table, written = output[output.index("   images ") :].split("\n\n")
    assert written == f"Written: {report}\n"
    lines = table.lstrip().split("\n")
    assert len(lines) == 1 + len(NAMES) + 1
    assert all(line.isprintable() for line in lines)
    images = json.loads(report.read_text())["benchmarks"]["Odd"]["images"]
    assert set(images) == set(map(printable, NAMES))


# ------------------------------------------------------------------------------- progress bars


class Terminal(io.StringIO):
    """A terminal: `lines` are what a person sees."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        screen, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[A-Z]|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                screen += [""] * (row == len(screen))
            elif part == "\x1b[A":
                row -= 1
            elif part == "\x1b[K":
                screen[row] = screen[row][:column]
            else:
                old = screen[row].ljust(column)
                screen[row] = old[:column] + part + old[column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in screen]


@contextmanager
def a_terminal() -> Iterator[Terminal]:
    """Makes a terminal of both streams. (In a fixture, pytest would take them again.)"""
    terminal, last = Terminal(), logging.lastResort
    with redirect_stdout(terminal), redirect_stderr(terminal), warnings.catch_warnings():
        show_warnings_beside_bars()
        warnings.simplefilter("always")
        yield terminal
    logging.lastResort = last


MESSAGES = {
    "said": lambda: say("Hello,\nworld"),
    "warned": lambda: warnings.warn("Hello,\nworld", stacklevel=1),
    "logged": lambda: logging.getLogger("some.library").warning("Hello,\nworld"),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("process", ["the first", "another", "a worker"])
def test_messages_have_lines_of_their_own(message, process, monkeypatch):
    with (
        a_terminal() as terminal,
        tqdm(total=9, desc="Training", ncols=60, mininterval=0) as bar,
        tqdm(total=3, desc="Evaluating", ncols=60, leave=False, disable=process != "the first"),
    ):
        bar.update(2)
        if process == "another":
            monkeypatch.setenv("LOCAL_RANK", "1")
        if process == "a worker":
            monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
        monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
        message()
        bar.update(3)
    lines = terminal.lines
    assert [line for line in lines if "world" in line] == ["world"]
    (first,) = [line for line in lines if "Hello" in line]
    assert re.fullmatch(r"(test_terminal\.py:\d+: UserWarning: )?Hello,", first)
    assert lines[-2].startswith("Training:  56%|")
    assert lines.count("") == 1  # where the cursor is


def test_many_validations_leave_no_empty_lines():
    with a_terminal() as terminal, tqdm(total=9, desc="Training", ncols=60, mininterval=0) as bar:
        for _ in range(9):
            for _ in tqdm(range(3), desc="Evaluating", ncols=60, leave=False, mininterval=0):
                pass
            bar.update()
    assert len(terminal.lines) == 2


def test_a_validation_in_a_training_writes_no_empty_line(tiny_benchmark_dir):
    """A log that was recorded from a terminal (`script`, a notebook) keeps each of them."""
    sources = find_pictures(tiny_benchmark_dir / "Tiny" / "HR", [2])
    benchmark = BenchmarkDataset(decode_pictures(sources, [2])[0], 2)
    with a_terminal() as terminal, tqdm(total=9, desc="Training", ncols=60, mininterval=0) as bar:
        for _ in range(3):
            evaluate(Bicubic(2), benchmark, torch.device("cpu"))
            bar.update(3)
    text = terminal.getvalue()
    assert "Evaluating" in text
    assert "Training: 100%|" in terminal.lines[0]
    assert text.count("\n") == 1  # the end of the training's bar


def test_the_last_message_stands_below_the_bar():
    with a_terminal() as terminal:
        bar = tqdm(total=9, desc="Training", ncols=60)
        end_bars()
        terminal.write("The end")
    assert terminal.lines[-1] == "The end"
    assert bar.disable


def test_a_file_gets_a_line_a_minute_and_no_bar(tmp_path, monkeypatch, capsys):
    class Alone:
        is_main, rank, count = True, 0, 1
        warn = staticmethod(print)
        print = staticmethod(print)

    class NoTrackers(Trackers):
        def __init__(self) -> None: ...
        def log(self, values, step) -> None: ...
        def finish(self, step, failed) -> None: ...

    now = 1000.0
    monkeypatch.setattr(common.training.log.time, "monotonic", lambda: now)
    log = Log(tmp_path, 8, torch.device("cpu"), NoTrackers(), Alone())
    log.begin(step=0, total_steps=1000, seconds=0.0)
    for step in range(1, 1001):
        now += 0.5
        log.advance()
        if step % 10 == 0:
            log.write({"loss": 0.25}, step)
            log.write_time(step)
    log.close(1000)
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0] == "Step 120 of 1,000: loss 0.25, 01:00 done, 07:20 left."
    assert lines[-1] == "Step 1,000 of 1,000: loss 0.25, 08:20 done, 00:00 left."
    assert len(lines) == 9


def test_a_parser_shows_warnings_beside_bars():
    with a_terminal() as terminal:
        warnings.showwarning = None
        Parser("train_x.py", "").parse_args([])
        warnings.warn("Hello", stacklevel=1)
    assert terminal.lines[0].endswith(": UserWarning: Hello")


# ---------------------------------------------------------------------------- several processes


def test_processes_ask_who_speaks(monkeypatch):
    assert says_first("a") and says_first("a")  # noqa: PT018 (not launched)
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert [says_first(text) for text in ("a", "b", "a", "b")] == [True, True, False, False]
        error = UserError("c")
        assert (error.code, error.code) == ("c", "c")
        assert UserError("c").code == 1
        gone = mock.Mock(side_effect=RuntimeError("Broken pipe"))  # the process that had the store
        monkeypatch.setattr(distributed.distributed_c10d, "_get_default_store", gone)
        assert UserError("c").code == "c"
    finally:
        distributed.destroy_process_group()


ONCE = [
    (["--scale", "99"], "--scale"),
    (["--batch_size", "3"], "--batch_size 3 is that of all 2 processes together"),
    (["--init_from", "nowhere"], "There is no model, folder or file nowhere"),
    (["--train_data_dir", "nowhere"], "There is no folder nowhere"),
]


@pytest.mark.parametrize(
    ("options", "message"), [ONCE[0], *(pytest.param(*row, marks=pytest.mark.slow) for row in ONCE)]
)
def test_two_processes_say_it_once(options, message, request, pictures_dir, tmp_path):
    base = ["--output_dir", tmp_path / "run", "--report_to", "none"]
    if "--train_data_dir" not in options:
        base += ["--train_data_dir", pictures_dir]
    if "slow" in request.node.keywords:
        process = run(*TWO, SCRIPT, *base, *options, check=False)
    else:
        process = run_two(SCRIPT, *base, *options, check=False)
    assert process.returncode in (1, 2)
    assert process.stderr.count(message) == 1, process.stderr
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_warn_of_buffers(train, tmp_path):
    process = train(SCRIPT, tmp_path / "run", steps=5, runner=run_two)
    assert "FutureWarning" not in process.stderr
