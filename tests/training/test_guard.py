"""Steps whose gradients are not finite: left out, counted, said."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from common.training.guard import StepGuard, not_finite, skipped_in_words
from common.training.log import RunningMeans
from common.training.muon import Muon

CPU = torch.device("cpu")


FUSED = {
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": partial(torch.optim.SGD, fused=True),
    "muon": Muon,
}


def make(make_optimizer, fp16=False, shape=(2,)):
    """(weights, optimizer, guard) of a tensor of ones."""
    weights = torch.nn.Parameter(torch.ones(shape))
    optimizer = make_optimizer([weights], lr=0.5)
    return weights, optimizer, StepGuard([SimpleNamespace(optimizer=optimizer)], CPU, fp16)


@pytest.mark.parametrize(
    ("name", "shape"), [("adam", (2,)), ("sgd", (2,)), ("muon", (16, 16, 1, 1))]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_step_that_would_ruin_the_weights_is_left_out(name, shape, value):
    weights, optimizer, guard = make(FUSED[name], shape=shape)
    alone = torch.nn.Parameter(torch.ones(shape))
    unguarded = FUSED[name]([alone], lr=0.5)
    for step, last in enumerate([1.0, value, 3.0, value, 2.0]):
        gradient = torch.linspace(0.5, 1, weights.numel()).view(shape)
        gradient[-1] = last
        weights.grad = gradient
        optimizer.step()
        if step % 2 == 0:
            alone.grad = gradient.clone()
            unguarded.step()
        assert torch.equal(weights, alone)
        assert guard.values(1) == {}
    assert guard.bad() == ["the gradients of 2 steps are not finite"]


def test_hooks_of_muon_run_once_where_an_adamw_was_made_before():
    torch.optim.AdamW(
        [torch.nn.Parameter(torch.ones(1))]
    )  # whose `step` PyTorch wraps by the hooks
    kernel, bias = (torch.nn.Parameter(torch.ones(shape)) for shape in ((16, 16, 1, 1), (16,)))
    optimizer = Muon([kernel, bias], lr=0.5)
    guard = StepGuard([SimpleNamespace(optimizer=optimizer)], CPU, False)
    kernel.grad, bias.grad = torch.full_like(kernel, torch.inf), torch.ones_like(bias)
    optimizer.step()
    assert torch.equal(kernel, torch.ones_like(kernel))
    assert torch.equal(bias, torch.ones_like(bias))
    assert guard.bad() == ["the gradients of 1 step are not finite"]


def test_muon_goes_on_from_a_checkpoint_in_which_it_was_not_fused():
    weights, optimizer, guard = make(Muon, shape=(16,))
    state = optimizer.state_dict()
    state["param_groups"][0]["fused"] = None
    optimizer.load_state_dict(state)
    for value, expected in ((float("nan"), 1.0), (2.0, 0.5)):
        weights.grad = torch.full((16,), value)
        optimizer.step()
        assert torch.allclose(weights, torch.full((16,), expected), atol=1e-2)
    assert guard.bad() == ["the gradients of 1 step are not finite"]


def test_sound_steps_say_nothing():
    weights, optimizer, guard = make(FUSED["adam"])
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


@pytest.mark.parametrize("name", ["adam", "not fused", "muon"])
def test_steps_that_the_scaler_skips_are_counted(name):
    shape = (16, 16, 1, 1)
    made = torch.optim.Adam if name == "not fused" else FUSED[name]
    weights, optimizer, guard = make(made, fp16=True, shape=shape)
    alone = torch.nn.Parameter(torch.ones(shape))
    unscaled = made([alone], lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4)
    shares = torch.linspace(0.5, 1, alone.numel()).view(shape)
    found = []
    for factor in (1.0, float("inf"), 1.0, float("inf"), float("inf")):
        scaler.scale((weights * shares * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        means = RunningMeans(torch.device("cpu"))
        means.add({})  # the first of two parts
        means.add(guard.values(parts=2))
        found.append(means.means(SimpleNamespace(mean=torch.clone))["share_skipped"])
        if factor == 1:
            alone.grad = shares.clone()
            unscaled.step()
        assert torch.allclose(weights, alone, atol=1e-6)
    assert found == [0, 1, 0, 1, 1]
    assert guard.bad() == []


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
