"""Numbers that are none, too large or too small, for every numeric option of every script."""

import importlib
from unittest import mock

import pytest

from common.options import Parser
from helpers.forked import ROOT

BAD = ["nan", "inf", "-inf", "1e999", f"{10**30}", "-1", "", " ", "many", "1,5", "0x10", "9" * 5000]
SCRIPTS = [path.stem for path in ROOT.glob("*.py") if "import common.start" in path.read_text()]


def parser_of(script: str) -> Parser:
    """The parser that a script makes."""
    with (
        mock.patch.object(
            Parser, "parse_args", autospec=True, side_effect=InterruptedError
        ) as parse,
        pytest.raises(InterruptedError),
    ):
        importlib.import_module(script).parse_args([])
    return parse.call_args[0][0]


def numeric(parser: Parser) -> dict[str, float]:
    """Options that take numbers, each with one that it takes."""
    found = {}
    for action in parser._actions:
        if action.option_strings and action.type not in (None, str) and action.nargs != 0:
            for value in (*(action.choices or ()), "64", "1", "0.5", "0"):
                try:
                    found[action.option_strings[0]] = action.type(str(value))
                    break
                except Exception:
                    continue
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


CASES = [(script, name) for script in SCRIPTS for name in numeric(parser_of(script))]


def test_all_scripts_are_looked_at():
    assert len(SCRIPTS) == 11
    assert len(CASES) > 90


@pytest.mark.parametrize(("script", "option"), CASES)
def test_what_is_no_number_of_its_range_is_refused_in_words(script, option, capsys):
    parser = parser_of(script)
    parser.checks.clear()
    required = [
        word
        for action in parser._actions
        if action.required and option not in action.option_strings
        for word in [*action.option_strings[:1], "2" if action.type else "x"]
    ]
    for value in BAD:
        with pytest.raises(SystemExit) as end:
            parser.parse_args([*required, f"{option}={value}"])
        message = capsys.readouterr().err
        assert end.value.code == 2
        assert option in message
        assert "Traceback" not in message
        assert len(message) < 500, value[:20]
