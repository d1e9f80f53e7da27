"""Command lines: a parser that shows every default and tells all mistakes in one message.

    parser = Parser(__file__, __doc__)
    recipe = parser.group("recipe")
    recipe.add_argument("--scale", type=whole(least=2), default=3, help="factor of enlargement")
    args = parser.parse_args()

Options under the heading `recipe` decide about the weights. They may not change when a run resumes.
"""

import argparse
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any, NoReturn

from common.sizes import LARGEST_FACTOR, Size
from common.terminal import escape_what_cannot_be_printed, printable, show_warnings_beside_bars

# A check gets the parsed options and yields what is wrong: the value, the rule, the way out.
Check = Callable[[argparse.Namespace], Iterable[str]]
Condition = Callable[[argparse.Namespace], bool]
# Defaults by option, for a command line whose other options are these.
Recipe = Callable[[argparse.Namespace], Mapping[str, Any]]

LARGEST = 10**9  # numbers above it are mistakes, and some would take all memory
WIDTH = 100  # columns of `--help`, at most


class Arguments(argparse.Namespace):
    """Parsed options, and facts about them that `vars` leaves out.

    Attributes:
        command: Command line, `python train_a2n.py --scale 2`.
        fixed: Names of the options that decide about the weights.
        given: Names of the options that the command line gives.
    """

    __slots__ = ("command", "fixed", "given")

    command: str
    fixed: frozenset[str]
    given: frozenset[str]


class Group:
    """Options under one heading of `--help`."""

    def __init__(self, title: str, group: argparse._ActionsContainer) -> None:
        self.title, self._group = title, group
        self.recipe: dict[str, Condition] = {}  # by option: when it belongs to the recipe
        self.only_with: dict[str, Sequence[str]] = {}  # by option: what it has no meaning without

    def add_argument(
        self,
        *names: str,
        recipe_if: Condition | None = None,
        only_with: Sequence[str] = (),
        **settings: Any,
    ) -> argparse.Action:
        """Adds an option as argparse does, with its default in the help.

        Args:
            *names: Names of the option.
            recipe_if: Condition under which the option belongs to the recipe. Default: always in
                the group `recipe`, never in others.
            only_with: Another option, and those of its values with which alone the option has a
                meaning; without values, it must be given, with any.
            **settings: Settings that argparse takes.
        """
        action = self._group.add_argument(*names, **_completed(names, settings))
        if only_with:
            self.only_with[action.dest] = only_with
        if recipe_if or self.title == "recipe":
            self.recipe[action.dest] = recipe_if or (lambda args: True)
        return action

    def exclusive(self, required: bool = False) -> "Group":
        """Group within this one. A command line can have only one of its options."""
        inner = Group(self.title, self._group.add_mutually_exclusive_group(required=required))
        inner.recipe, inner.only_with = self.recipe, self.only_with
        return inner


class Parser(argparse.ArgumentParser):
    """Parser of a script.

    Attributes:
        checks: Checks of several options together, for a command line whose options are valid each.
        completions: Functions that fill in defaults which depend on other options, before the
            checks.
        recipes: Defaults that `--recipe NAME` sets, by the name. Any option overrides them.
    """

    def __init__(self, script: str, description: str | None) -> None:
        """
        Args:
            script: `__file__` of the script.
            description: Docstring of the script.
        """
        self.checks: list[Check] = []
        self.completions: list[Callable[[argparse.Namespace], None]] = []
        self.recipes: dict[str, Recipe] = {}
        self._groups: list[Group] = []
        super().__init__(
            prog=Path(script).name,
            description=description,
            formatter_class=partial(
                argparse.RawDescriptionHelpFormatter,
                max_help_position=30,
                width=min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns),
            ),
            exit_on_error=False,
        )

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # type: ignore[override]
        """Adds an option as argparse does, with its default in the help."""
        return super().add_argument(*names, **_completed(names, settings))

    def group(self, title: str, description: str = "") -> Group:
        """Adds a heading of `--help`."""
        lines = textwrap.fill(description, WIDTH - 2)
        self._groups.append(Group(title, self.add_argument_group(title, lines)))
        return self._groups[-1]

    def format_help(self) -> str:
        """Text of `--help`: a usage line of what cannot be left out, then all options."""
        needed = [action for action in self._actions if action.required]
        # (Words without an option come first, or an option of several values would take them.)
        needed.sort(key=lambda action: bool(action.option_strings))
        words = [f"python {self.prog}", *map(_usage_of, needed)]
        has_more = len(self._actions) > len(needed) + 1  # besides --help
        self.usage = " ".join([*words, "[options]"] if has_more else words)
        return super().format_help()

    def parse_args(self, argv: Sequence[str] | None = None) -> Arguments:  # type: ignore[override]
        """Parses the words of a command line, by default those of this process.

        An option that is not valid is noted and left out, so that the others are checked as well.

        Raises:
            SystemExit: There are mistakes. All are printed; the status is 2.
        """
        escape_what_cannot_be_printed()
        show_warnings_beside_bars()
        words = list(map(str, sys.argv[1:] if argv is None else argv))
        args, mistakes, wrong = self._parse(words)
        if args:
            if recipe := self.recipes.get(getattr(args, "recipe", "")):
                args, mistakes, wrong = self._parse_by(recipe(args), words)
            found = list(self._without_meaning(args))
            for complete in self.completions:
                complete(args)
            found += [mistake for check in self.checks for mistake in check(args)]
            # What a check says of an option that was left out would be about its default.
            mistakes += [text for text in found if not wrong & set(re.findall(r"--\w+", text))]
        if mistakes or args is None:
            text = "\n".join(mistakes)
            if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process says the same
                self.exit(2)
            text = f"{self.prog}: error: {text}\n(`{self.prog} --help` lists the options.)\n"
            self.exit(2, printable(text, keep="\n"))
        args.command = shlex.join(["python", self.prog, *words])
        args.fixed = frozenset(
            name
            for group in self._groups
            for name, condition in group.recipe.items()
            if condition(args)
        )
        return args

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print at once."""
        raise argparse.ArgumentError(None, message)

    def _parse_by(
        self, recipe: Mapping[str, Any], words: list[str]
    ) -> tuple[Arguments, list[str], set[str]]:
        """Parses words that are known to be readable, by the defaults of a recipe."""
        before = {name: self.get_default(name) for name in recipe}
        self.set_defaults(**recipe)
        args, mistakes, wrong = self._parse(words)
        self.set_defaults(**before)
        assert args
        for name in recipe.keys() & self._only_with.keys():
            # What the recipe gives to a schedule, say, goes where the command names another one.
            if getattr(args, name) is recipe[name] and not self._has_meaning(args, name):
                setattr(args, name, self.get_default(name))
        return args, mistakes, wrong

    @property
    def _only_with(self) -> dict[str, Sequence[str]]:
        return {name: rule for group in self._groups for name, rule in group.only_with.items()}

    def _has_meaning(self, args: argparse.Namespace, name: str) -> bool:
        other, *values = self._only_with[name]
        value = getattr(args, other)
        return value in values if values else bool(value)

    def _without_meaning(self, args: Arguments) -> Iterator[str]:
        for name, (other, *values) in self._only_with.items():
            if name in args.given and not self._has_meaning(args, name):
                those = " ".join([other, " or ".join(values)]).rstrip()
                yield f"--{name} belongs to --{those}. Leave it out, or add that."

    def _parse(self, words: list[str]) -> tuple[Arguments | None, list[str], set[str]]:
        """(options, None if they could not be read; mistakes; options that were left out)."""
        mistakes: list[str] = []
        wrong: set[str] = set()
        while True:
            args = Arguments()
            try:
                super().parse_args(words, args)
                # No default is filled in where there is a value.
                given = vars(super().parse_args(words, Arguments(**dict.fromkeys(vars(args)))))
                args.given = frozenset(key for key in given if given[key] is not None)
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


def _usage_of(action: argparse.Action) -> str:
    value = f"{action.metavar or action.dest}"
    several = f" [{value} ...]" if action.nargs == "+" else ""
    return " ".join([*action.option_strings[:1], value]) + several


def _completed(names: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an option with a short name for its value, and its default in the help.

    A help that tells the default by itself stays as it is.
    """
    default, text = settings.get("default"), settings.get("help", "")
    if names[0].startswith("-") and not {"action", "choices", "metavar"} & settings.keys():
        settings["metavar"] = {Path: "PATH", None: "NAME"}.get(settings.get("type"), "N")
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
