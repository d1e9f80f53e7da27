"""Command lines: a parser that shows every default and tells all mistakes in one message.

    parser = Parser(__file__, __doc__)
    recipe = parser.group("recipe")
    recipe.add_argument("--scale", type=whole(least=2), default=3, help="factor of enlargement")
    args = parser.parse_args()

Options under the heading `recipe` decide about the weights. They may not change when a run resumes.
"""

import argparse
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf, isfinite
from pathlib import Path
from typing import Any, NoReturn

from common.sizes import LARGEST_FACTOR, Size
from common.terminal import printable, show_warnings_beside_bars

# A check gets the parsed options and yields what is wrong: the value, the rule, the way out.
Check = Callable[[argparse.Namespace], Iterable[str]]
Condition = Callable[[argparse.Namespace], bool]

LARGEST = 10**9  # numbers above it are mistakes, and some would take all memory


class Arguments(argparse.Namespace):
    """Parsed options, and two facts about them that `vars` leaves out.

    Attributes:
        command: Command line, `python train_a2n.py --scale 2`.
        recipe: Names of the options that decide about the weights.
    """

    __slots__ = ("command", "recipe")

    command: str
    recipe: frozenset[str]


class Group:
    """Options under one heading of `--help`."""

    def __init__(self, title: str, group: argparse._ActionsContainer) -> None:
        self.title, self._group = title, group
        self.recipe: dict[str, Condition] = {}  # by option: when it belongs to the recipe

    def add_argument(
        self, *names: str, recipe_if: Condition | None = None, **settings: Any
    ) -> argparse.Action:
        """Adds an option as argparse does, with its default in the help.

        Args:
            *names: Names of the option.
            recipe_if: Condition under which the option belongs to the recipe. Default: always in
                the group `recipe`, never in others.
            **settings: Settings that argparse takes.
        """
        action = self._group.add_argument(*names, **_with_default(settings))
        if recipe_if or self.title == "recipe":
            self.recipe[action.dest] = recipe_if or (lambda args: True)
        return action

    def exclusive(self, required: bool = False) -> "Group":
        """Group within this one. A command line can have only one of its options."""
        inner = Group(self.title, self._group.add_mutually_exclusive_group(required=required))
        inner.recipe = self.recipe
        return inner


class Parser(argparse.ArgumentParser):
    """Parser of a script.

    Attributes:
        checks: Checks of several options together, for a command line whose options are valid each.
    """

    def __init__(self, script: str, description: str | None) -> None:
        """
        Args:
            script: `__file__` of the script.
            description: Docstring of the script.
        """
        self.checks: list[Check] = []
        self._groups: list[Group] = []
        super().__init__(
            prog=Path(script).name,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            exit_on_error=False,
        )

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # type: ignore[override]
        """Adds an option as argparse does, with its default in the help."""
        return super().add_argument(*names, **_with_default(settings))

    def group(self, title: str, description: str | None = None) -> Group:
        """Adds a heading of `--help`."""
        self._groups.append(Group(title, self.add_argument_group(title, description)))
        return self._groups[-1]

    def parse_args(self, argv: Sequence[str] | None = None) -> Arguments:  # type: ignore[override]
        """Parses the words of a command line, by default those of this process.

        An option that is not valid is noted and left out, so that the others are checked as well.

        Raises:
            SystemExit: There are mistakes. All are printed; the status is 2.
        """
        for stream in (sys.stdout, sys.stderr):  # no name of a file must end a program
            if isinstance(stream, io.TextIOWrapper):
                with suppress(OSError):  # it may be a file on a full disk
                    stream.reconfigure(errors="backslashreplace")
        show_warnings_beside_bars()
        words = list(map(str, sys.argv[1:] if argv is None else argv))
        args, mistakes, wrong = self._parse(words)
        if args:
            found = [mistake for check in self.checks for mistake in check(args)]
            # What a check says of an option that was left out would be about its default.
            mistakes += [text for text in found if not wrong & set(re.findall(r"--\w+", text))]
        if mistakes or args is None:
            text = "\n".join(mistakes)
            if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process says the same
                self.exit(2)
            text = f"{self.prog}: error: {text}\n(`{self.prog} --help` lists the options.)\n"
            self.exit(2, printable(text, keep="\n"))
        args.command = shlex.join(["python", self.prog, *words])
        args.recipe = frozenset(
            name
            for group in self._groups
            for name, condition in group.recipe.items()
            if condition(args)
        )
        return args

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print at once."""
        raise argparse.ArgumentError(None, message)

    def _parse(self, words: list[str]) -> tuple[Arguments | None, list[str], set[str]]:
        """(options, None if they could not be read; mistakes; options that were left out)."""
        mistakes: list[str] = []
        wrong: set[str] = set()
        while True:
            args = Arguments()
            try:
                super().parse_args(words, args)
                return args, mistakes, wrong
            except argparse.ArgumentError as error:
                # An option that is missing may be one that was left out here.
                if error.argument_name or "required" not in error.message or not mistakes:
                    mistakes.append(_in_our_words(error))
                wrong.add(error.argument_name or "")
                before, words = words, _without(words, error.argument_name)
                if words == before:
                    return None, mistakes, wrong


def whole(least: int = 1, most: int = LARGEST) -> Callable[[str], int]:
    """Type of an option, for argparse: a whole number from `least` to `most`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not at least {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is more than {most}")
        return value

    return convert


def real(
    *, above: float = -inf, least: float = -inf, below: float = inf, most: float = inf
) -> Callable[[str], float]:
    """Type of an option, for argparse: a number within bounds, at most `LARGEST`."""
    bounds = {"above": above, "at least": least, "below": below, "at most": most}
    rule = " and ".join(f"{name} {bound:g}" for name, bound in bounds.items() if isfinite(bound))

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is no number") from None
        if not (isfinite(value) and above < value < below and least <= value <= most):
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not {rule or 'finite'}")
        if value > LARGEST:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is more than {LARGEST}")
        return value

    return convert


def wanted_size(text: str) -> Size:
    """Type of an option, for argparse: `4000x3000`, `4000x` or `x3000`."""
    try:
        return Size.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}") from None


def _shown(text: str) -> str:
    """A word of a command line as a message shows it."""
    return f"{text[:40]}..." if len(text) > 40 else text.strip() or "''"


def add_model_arguments(options: Parser | Group, *, any_scale: bool = False) -> None:
    """Adds the options of `common.hub.load_model`: `--model`, `--revision`, `--scale`.

    Args:
        options: Parser or group that gets them.
        any_scale: Whether `--scale` may be any factor above 1, not only a trained one.
    """
    options.add_argument(
        "--model",
        help="name of a model in pretrained/, folder that a training script wrote, checkpoint in "
        "it, or user/name on the Hub (default: the best model in pretrained/ for --scale)",
    )
    options.add_argument("--revision", help="branch, tag or commit of a --model on the Hub")
    if any_scale:
        options.add_argument(
            "--scale",
            type=real(above=1, most=LARGEST_FACTOR),
            help="factor, 2 or 1.5 for example: by the network, as often as needed, then by "
            "bicubic (default: the smallest of the model)",
        )
    else:
        options.add_argument(
            "--scale",
            type=whole(least=0),
            choices=range(2, 9),
            help="factor, for models of several, or to choose a model by (default: the smallest)",
        )


def _with_default(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an option whose help ends with its default, unless it has none or says more."""
    default, text = settings.get("default"), settings.get("help", "")
    nothing = default is None or default is False or default in ([], argparse.SUPPRESS)
    if not nothing and "default:" not in text:
        value = " ".join(map(str, default)) if isinstance(default, list) else default
        text += f" (default: {value:g})" if isinstance(value, float) else f" (default: {value})"
    return settings | {"help": text.strip().replace("%", "%%")}


def _in_our_words(error: argparse.ArgumentError) -> str:
    """`--batch_size 0 is not at least 1`; argparse writes `argument --batch_size: 0 is ...`."""
    text = re.sub(r"^argument (--\w+): (?!invalid|expected|not allowed)", r"\1 ", f"{error}")
    return text.removeprefix("argument ")


def _without(words: list[str], option: str | None) -> list[str]:
    """Words of a command line without an option and its values."""
    kept, drops = [], False
    for word in words:
        if word.startswith("--"):
            drops = option is not None and word.partition("=")[0] == option
        if not drops:
            kept.append(word)
    return kept
