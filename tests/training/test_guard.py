"""Steps whose gradients are not finite: left out, counted, said."""

from types import SimpleNamespace

import pytest
import torch

from common.training.guard import StepGuard, not_finite, skipped_in_words

CPU = torch.device("cpu")


def make(optimizer_class, fp16=False, **options):
    """(weights, optimizer, guard) of two weights."""
    weights = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizer_class([weights], lr=0.5, **options)
    return weights, optimizer, StepGuard([SimpleNamespace(optimizer=optimizer)], CPU, fp16)


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_step_that_would_ruin_the_weights_is_left_out(optimizer_class, value):
    weights, optimizer, guard = make(optimizer_class, fused=True)
    alone = torch.nn.Parameter(torch.ones(2))
    unguarded = optimizer_class([alone], lr=0.5, fused=True)
    for step, gradient in enumerate([1.0, value, 3.0, value, 2.0]):
        weights.grad = torch.tensor([0.5, gradient])
        optimizer.step()
        if step % 2 == 0:
            alone.grad = torch.tensor([0.5, gradient])
            unguarded.step()
        assert torch.equal(weights, alone)
        assert guard.values() == {}
    assert guard.bad() == ["the gradients of 2 steps are not finite"]


def test_sound_steps_say_nothing():
    weights, optimizer, guard = make(torch.optim.Adam, fused=True)
    optimizer.step()  # without gradients
    weights.grad = torch.ones(2)
    optimizer.step()
    assert guard.bad() == []


def test_an_optimizer_that_is_not_fused_steps_as_ever():
    weights, optimizer, guard = make(torch.optim.Adam)
    weights.grad = torch.tensor([1.0, float("nan")])
    optimizer.step()
    assert weights.isnan().any()
    assert guard.bad() == ["the gradients of 1 step are not finite"]


@pytest.mark.parametrize("fused", [True, False])
def test_steps_that_the_scaler_skips_are_counted(fused):
    weights, optimizer, guard = make(torch.optim.Adam, fp16=True, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4)
    found = []
    for factor in (1.0, float("inf"), 1.0, float("inf"), float("inf")):
        scaler.scale((weights * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        found.append(float(guard.values()["share_skipped"]))
    assert found == [0, 1, 0, 1, 1]
    assert guard.bad() == []
    assert weights.isfinite().all()


def test_many_skipped_steps_are_said():
    assert skipped_in_words(0.5, 100) == ""
    assert skipped_in_words(0.8, 100).startswith("fp16 skipped 80% of the last 100 steps, whose")


def test_what_is_not_finite_is_named():
    model = torch.nn.Linear(1, 1)
    assert not_finite({"loss": 1.0}, model) == []
    model.weight.data.fill_(torch.nan)
    assert not_finite({"loss": float("inf"), "mse": 1.0}, model) == [
        "loss is inf",
        "there are weights that are not finite",
    ]
