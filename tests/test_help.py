"""`--help` of every script: one line of usage, groups, a sentence for each option, 100 columns."""

import importlib
import re

import pytest

from common.options import Parser
from running import ROOT

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
GROUPS = {"model", "recipe", "data", "run", "output"}


@pytest.fixture(params=SCRIPTS)
def parser(request, monkeypatch) -> Parser:
    """The parser of a script, in a terminal of any width."""

    class FoundError(Exception):
        pass

    def stop(self: Parser, argv: object) -> None:
        raise FoundError(self)

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(Parser, "parse_args", stop)
    with pytest.raises(FoundError) as found:
        importlib.import_module(request.param).parse_args([])
    return found.value.args[0]


def test_usage_is_one_line_of_what_cannot_be_left_out(parser):
    usage, empty, first, *_ = parser.format_help().splitlines()
    assert usage.startswith(f"usage: python {parser.prog} ")
    assert usage.endswith("[options]") == (parser.prog != "convert_published.py")
    assert empty == ""
    assert first == parser.description.splitlines()[0]
    for action in parser._actions:
        name = (action.option_strings or [action.metavar or action.dest])[-1]
        assert (name in usage.split()) == action.required, name


def test_words_come_before_an_option_that_would_take_them():
    parser = Parser("convert.py", "Converts.")
    parser.add_argument("weights", help="file of weights")
    parser.add_argument("--scale", nargs="+", metavar="N", required=True, help="all its factors")
    assert parser.format_help().splitlines()[0] == (
        "usage: python convert.py weights --scale N [N ...]"
    )


def test_lines_are_short(parser):
    lines = parser.format_help().splitlines()
    assert len(lines) > 10
    assert [line for line in lines if len(line) > 100] == []
    if parser.prog.startswith("train_"):
        assert max(map(len, lines)) > 95


def test_a_narrow_terminal_gets_narrow_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    parser = Parser("train_x.py", "Trains x.")
    parser.group("run").add_argument("--steps", help="words " * 30)
    assert 50 < max(map(len, parser.format_help().splitlines())) <= 60


def test_every_option_has_a_group(parser):
    (words, options), groups = (parser._action_groups[:2], parser._action_groups[2:])
    assert [action.dest for action in options._group_actions] == ["help"]
    assert all(not action.option_strings for action in words._group_actions)
    assert {group.title for group in groups} <= GROUPS
    if parser.prog.startswith("train_"):
        assert [group.title for group in groups] == ["recipe", "data", "run", "output"]


def test_every_option_has_a_sentence(parser):
    for action in parser._actions:
        text = re.sub(r"\(default:.*", "", action.help or "")
        assert len(text.split()) >= 3, f"{action.dest}: {text}"
        if action.nargs != 0 and action.option_strings and not action.choices:
            assert action.metavar, action.dest
        words = set(re.findall(r"[\w.-]+", text.replace(": ", " ")))
        choices = [choice for choice in action.choices or () if isinstance(choice, str)]
        if action.dest != "kernel_sizes":  # which explain themselves
            assert set(choices) <= words, action.dest
