"""Command lines: defaults in the help, all mistakes in one message, the recipe as a group."""

import pytest

from common.options import Parser, real, whole


@pytest.fixture
def parser() -> Parser:
    parser = Parser("train_x.py", "Trains x.")
    recipe, run = parser.group("recipe"), parser.group("run")
    recipe.add_argument("--batch_size", type=whole(), default=16, help="patches of a step")
    recipe.add_argument("--scale", type=int, nargs="+", choices=[2, 3], default=[2, 3], help="all")
    recipe.add_argument("--decay", type=real(least=0, below=1), default=0.0, help="0: none")
    run.add_argument(
        "--steps", type=whole(), default=100, recipe_if=lambda args: args.decay > 0, help="steps"
    )
    run.add_argument("--name", help="any name (default: that of the folder)")
    return parser


def mistakes(parser: Parser, capsys, *words: str) -> list[str]:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2
    *found, hint = capsys.readouterr().err.removeprefix("train_x.py: error: ").splitlines()
    assert hint == "(`train_x.py --help` lists the options.)"
    return found


def test_help_shows_every_default(parser):
    text = " ".join(parser.format_help().split())
    assert "patches of a step (default: 16)" in text
    assert "all (default: 2 3)" in text
    assert "0: none (default: 0)" in text
    assert "any name (default: that of the folder)" in text
    assert "None" not in text


def test_all_mistakes_of_a_command_line_are_told_together(parser, capsys):
    words = "--batch_size 0 --scale 2 9 --decay=1.5 --steps many --name x --colour red".split()
    assert mistakes(parser, capsys, *words) == [
        "--batch_size 0 is not at least 1",
        "--scale: invalid choice: 9 (choose from 2, 3)",
        "--decay 1.5 is not at least 0 and below 1",
        "--steps many is no whole number",
        "unrecognized arguments: --colour red",
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_numbers_are_finite(value, parser, capsys):
    assert mistakes(parser, capsys, f"--decay={value}") == [
        f"--decay {value} is not at least 0 and below 1"
    ]


def test_huge_numbers_are_refused(parser, capsys):
    assert mistakes(parser, capsys, "--steps", f"{10**30}") == [
        f"--steps {10**30} is more than 1000000000"
    ]


def test_checks_of_several_options_come_together_when_each_is_valid(parser, capsys):
    parser.checks.append(lambda args: [f"--steps {args.steps} is odd."] if args.steps % 2 else [])
    parser.checks.append(lambda args: ["--name is missing."] if not args.name else [])
    assert mistakes(parser, capsys, "--steps", "3") == ["--steps 3 is odd.", "--name is missing."]
    # A check of an option that is wrong by itself would speak of its default.
    assert mistakes(parser, capsys, "--steps", "0") == [
        "--steps 0 is not at least 1",
        "--name is missing.",
    ]
    assert parser.parse_args(["--steps", "4", "--name", "x"]).steps == 4


def test_the_recipe_is_the_group_of_that_name_and_what_joins_it_under_a_condition(parser):
    args = parser.parse_args([])
    assert args.fixed == {"batch_size", "scale", "decay"}
    assert parser.parse_args(["--decay", "0.9"]).fixed == args.fixed | {"steps"}
    assert set(vars(args)) == {"batch_size", "scale", "decay", "steps", "name"}


def test_command_is_that_of_the_script(parser):
    args = parser.parse_args(["--name", "my run"])
    assert args.command == "python train_x.py --name 'my run'"


def test_a_group_of_which_one_is_needed(capsys):
    parser = Parser("train_x.py", None)
    inner = parser.group("source").exclusive(required=True)
    for name in ("--folder", "--dataset"):
        inner.add_argument(name, help="pictures")
    (message,) = mistakes(parser, capsys, "--folder", "a", "--dataset", "b")
    assert message == "--dataset: not allowed with argument --folder"
    (message,) = mistakes(parser, capsys)
    assert message == "one of the arguments --folder --dataset is required"
