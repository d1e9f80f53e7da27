"""The recipe: the schedule of the learning rate, and what may not change when a run resumes."""

import json
from types import SimpleNamespace

import pytest

from common.errors import UserError
from common.options import Arguments
from common.training.recipe import check_recipe, learning_rate_factor


def factors(steps: int, **settings) -> list[float]:
    defaults = {"lr_warmup_steps": 0, "lr_scheduler": "step", "lr_step_size": 2, "lr_gamma": 0.5}
    factor = learning_rate_factor(SimpleNamespace(**defaults | settings))
    return [factor(step) for step in range(steps)]


def test_learning_rate_by_steps():
    assert factors(5) == [1, 1, 0.5, 0.5, 0.25]
    assert factors(5, lr_warmup_steps=4) == [0.25, 0.5, 0.75, 1, 0.25]


def test_learning_rate_by_a_cosine():
    found = factors(8, lr_scheduler="cosine", lr_warmup_steps=2, max_train_steps=6)
    assert found == pytest.approx([0.5, 1, 1, 0.5 + 2**-1.5, 0.5, 0.5 - 2**-1.5, 0, 0])


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of an older command, which did not know `--new`."""
    before = {"learning_rate": 1e-4, "scale": [2, 3], "num_workers": 2}
    (tmp_path / "args.json").write_text(json.dumps({"args": before}))
    return tmp_path


def command(**changes) -> Arguments:
    options = {"learning_rate": 1e-4, "scale": [2, 3], "num_workers": 4, "new": True}
    args = Arguments(**options | {"allow_recipe_change": False} | changes)
    args.recipe = frozenset(("learning_rate", "scale", "new"))
    return args


def test_the_same_recipe(checkpoint):
    assert check_recipe(command(), checkpoint) == []


def test_an_older_checkpoint_knew_no_degradation(checkpoint):
    args = command(degradation="jpeg")
    args.recipe |= {"degradation"}
    with pytest.raises(UserError, match="--degradation was none and is jpeg"):
        check_recipe(args, checkpoint)
    args.degradation = "none"
    assert check_recipe(args, checkpoint) == []


def test_a_degradation_may_lie_elsewhere(checkpoint):
    before = {"degradation": "/home/me/own.py:f@01234567"}
    (checkpoint / "args.json").write_text(json.dumps({"args": before}))
    for name in ("own.py:f@01234567", "../code/own.py:f@01234567"):
        args = command(degradation=name)
        args.recipe |= {"degradation"}
        assert check_recipe(args, checkpoint) == []
    for name in ("own.py:f@76543210", "own.py:g@01234567", "other.py:f@01234567", "jpeg"):
        args.degradation = name
        with pytest.raises(UserError, match=f"--degradation was .* and is {name}"):
            check_recipe(args, checkpoint)


def test_another_recipe_needs_permission(checkpoint):
    changes = {"learning_rate": 1e-5, "scale": [2]}
    with pytest.raises(UserError) as error:
        check_recipe(command(**changes), checkpoint)
    assert str(error.value).startswith(
        f"Cannot resume from {checkpoint} by another recipe: --learning_rate was 0.0001 and is "
        "1e-05, --scale was [2, 3] and is [2]. Give the same options, start a new run with "
        "--init_from and another --output_dir, or go on with the new recipe by --allow_rec"
    )
    assert check_recipe(command(**changes, allow_recipe_change=True), checkpoint) == [
        "--learning_rate was 0.0001 and is 1e-05",
        "--scale was [2, 3] and is [2]",
    ]
