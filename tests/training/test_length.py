"""Runs by minutes: the number of steps that is measured, and the schedule by it."""

import importlib
import json
import signal

import pytest

import train_a2n
import train_srcnn
import train_srgan
from common.errors import UserError
from common.training.ending import stopped_and_saved
from common.training.length import Stopwatch, set_length, take_length
from common.training.recipe import check_recipe
from common.training.schedule import learning_rate_factor


def test_minutes_become_steps_before_the_warm_up_ends():
    args = train_srcnn.parse_args(
        "--max_train_minutes 10 --lr_warmup_steps 101 --validation_steps 50".split()
    )
    watch = Stopwatch(args, has_phases=False)
    for step in range(1, 100):
        assert watch.steps_after(step, 7.0 + step) is None  # a second a step
        if step == 60:
            watch.add_validation(0.0)
    # 593 seconds are left, a second each but for the eleventh of ten seconds.
    assert watch.steps_after(100, 107.0) == 100 + 493
    watch = Stopwatch(args, has_phases=False)
    seconds = 7.0
    for step in range(1, 101):
        seconds += 1
        if step == 60:
            watch.add_validation(10.0)
            seconds += 10
        found = watch.steps_after(step, seconds)
    assert found == 100 + int((600 - 117 - 10) / 1.2)
    assert watch.steps_after(101, seconds) is None
    resumed = Stopwatch(args, has_phases=False)  # one step before: by the mean of all steps
    assert resumed.steps_after(100, 200.0) == 100 + 200
    args.max_train_minutes = 0.1  # less than the warm-up takes
    watch = Stopwatch(args, has_phases=False)
    assert [watch.steps_after(step, step) for step in (40, 100)] == [None, 101]
    args.max_train_minutes = 1e9
    watch = Stopwatch(args, has_phases=False)
    assert [watch.steps_after(step, step) for step in (40, 100)] == [None, 10**9]


@pytest.mark.parametrize(
    ("script", "options", "steps", "said"),
    [
        # No default bounds the minutes: those of the paper are 9,960 steps, 900 by --recipe cpu.
        ("train_vdsr.py", "", 28_800, "30 minutes are 28,800 steps at this speed, which the"),
        ("train_a2n.py", "--recipe cpu", 28_800, "--max_train_steps 28800 --lr_warmup_steps 50 tr"),
        ("train_a2n.py", "", 28_800, "--max_train_steps 28800 --lr_warmup_steps 100 trains to"),
        (
            "train_a2n.py",
            "--lr_warmup_steps 100",
            28_800,
            "here on. --max_train_steps 28800 trains",
        ),
        (
            "train_a2n.py",
            "--max_train_steps 5000",
            5000,
            "30 minutes are 28,800 steps at this speed, more than --max_train_steps 5,000, which",
        ),
        (
            "train_a2n.py",
            "--recipe modern",
            28_800,
            "--max_train_steps 28800 --lr_warmup_steps 100 --lr_milestones 14400 23040 25920 27360 "
            "28224 --ema_decay 0.99 trains to the same weights.",
        ),
        (
            "train_a2n.py",
            "--lr_warmup_steps 40000",
            40_000,
            "The warm-up alone takes longer than 30 minutes: 40,000 steps, which the run keeps",
        ),
        (
            "train_a2n.py",
            "--lr_scheduler wsd --lr_decay_steps 39900",
            40_000,
            "The warm-up and decay take longer than 30 minutes: 40,000 steps, which the run keeps",
        ),
    ],
)
def test_minutes_are_bounded_by_steps_that_were_asked_for(script, options, steps, said):
    parse_args = importlib.import_module(script.removesuffix(".py")).parse_args
    args = parse_args(["--max_train_minutes", "30", *options.split()])
    watch = Stopwatch(args, has_phases=False)
    end = args.lr_warmup_steps - 1
    found = [watch.steps_after(step, step / 16) for step in range(1, end + 1)][-1]
    set_length(args, found)
    assert args.max_train_steps == found == steps
    assert said in watch.in_words()


def test_the_rate_falls_by_the_length_that_was_measured():
    args = train_a2n.parse_args("--max_train_minutes 30 --recipe modern".split())
    factor = learning_rate_factor(args)
    assert factor(98) == 0.99
    set_length(args, 1000)
    assert [factor(step) for step in (499, 500, 799, 800, 980)] == [1, 0.5, 0.5, 0.25, 2**-5]


def test_minutes_are_for_one_phase(capsys):
    with pytest.raises(SystemExit):
        train_srgan.parse_args("--max_train_minutes 10 --lr_warmup_steps 20".split())
    assert "cannot share the time among the phases of this network" in capsys.readouterr().err
    args = train_srcnn.parse_args("--max_train_minutes 10".split())
    with pytest.raises(UserError, match="cannot share the time among the phases"):
        Stopwatch(args, has_phases=True)  # of a network of one's own


def test_a_measured_length_stays(tmp_path):
    args = train_srcnn.parse_args("--max_train_minutes 5".split())
    before = {"max_train_minutes": 5, "max_train_steps": 777, "lr_warmup_steps": 2000}
    for step, expected in ((1998, 10**9), (1999, 777)):
        (tmp_path / "args.json").write_text(json.dumps({"args": before, "step": step}))
        take_length(args, tmp_path)
        assert args.max_train_steps == expected
    args.max_train_minutes = 6
    with pytest.raises(UserError, match="Give --max_train_steps instead; it was 777"):
        take_length(args, tmp_path)


@pytest.mark.parametrize(
    ("options", "falls"),
    [("--recipe modern", [500, 800, 900, 950, 980]), ("--lr_scheduler cosine", None)],
)
def test_a_measured_length_has_the_falls_of_the_schedule_of_the_command(options, falls, tmp_path):
    args = train_a2n.parse_args(["--max_train_minutes", "5", *options.split()])
    other = {"lr_milestones": None if falls else [500, 800]}
    before = {"max_train_minutes": 5, "max_train_steps": 1000, "lr_warmup_steps": 100, **other}
    (tmp_path / "args.json").write_text(json.dumps({"args": before, "step": 500}))
    take_length(args, tmp_path)
    assert (args.max_train_steps, args.lr_milestones) == (1000, falls)


def test_a_length_that_was_not_measured_is_told_in_words(tmp_path):
    args = train_a2n.parse_args("--max_train_minutes 5 --lr_scheduler cosine".split())
    before = vars(args) | {"lr_warmup_steps": 2000}
    (tmp_path / "args.json").write_text(json.dumps({"args": before, "step": 500}, default=str))
    with pytest.raises(UserError, match=r"Give --max_train_steps instead\.$"):
        take_length(args, tmp_path)
    args = train_a2n.parse_args("--max_train_steps 900 --lr_scheduler cosine".split())
    with pytest.raises(UserError, match="--max_train_steps was not measured yet and is 900"):
        check_recipe(args, tmp_path)
    assert stopped_and_saved(signal.SIGINT, 50, 10**9).startswith(
        "SIGINT: stopped at step 50, which is saved."
    )
    assert "SIGINT: stopped at step 50 of 2,000, wh" in stopped_and_saved(signal.SIGINT, 50, 2000)
