"""Wishes to stop. How a process ends then is tested in scripts/test_stop.py."""

import os
import signal

import pytest

from common.signals import take_signals
from common.training.stop import StopRequest


@pytest.fixture(params=["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def number(request):
    """A signal that ends a program, as long as nobody takes it."""
    number = signal.Signals[request.param]
    before = signal.signal(number, signal.SIG_DFL)
    yield number
    signal.signal(number, before)


def test_a_signal_is_a_wish_to_stop(number, capfd):
    stop = StopRequest()
    assert stop.after_step() is None
    os.kill(os.getpid(), number)
    assert stop.after_step() == number
    os.kill(os.getpid(), signal.SIGTERM)  # what comes later changes nothing
    assert stop.after_step() == number
    stop.give_back()
    assert signal.getsignal(number) == signal.SIG_DFL
    message = capfd.readouterr().err
    assert f"{number.name}: stopping after this step." in message
    assert ("Once more ends it at once." in message) == (number == signal.SIGINT)
    assert message.count("stopping") == 1


def test_what_nohup_ignores_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    stop = StopRequest()
    os.kill(os.getpid(), number)
    assert stop.after_step() is None
    stop.give_back()
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_handler_that_python_does_not_know_is_left_alone(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # of a program in C, around us
    assert take_signals(lambda number, frame: None) == {}
