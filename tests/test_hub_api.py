"""Questions to a Hub that does not answer."""

import os
import socket
import time

import huggingface_hub
import pytest

from common.data.benchmarks import hub_benchmark
from common.data.hub_sets import hub_pictures
from common.errors import UserError
from common.hub import load_model
from common.hub_api import why


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: load_model("user/tiny"), "for the model user/tiny"),
        (lambda: hub_pictures("user/set", [2]), "for the data set user/set"),
        (lambda: hub_benchmark("Set5"), "for the data set eugenesiow/Set5"),
    ],
)
def test_without_a_network_it_ends_soon(ask, message, monkeypatch, empty_cache):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(UserError, match=f"Cannot reach {os.environ['HF_ENDPOINT']} {message}") as e:
        ask()
    assert "HF_HUB_OFFLINE=1 uses what was downloaded before" in str(e.value)
    assert not waits  # between one attempt and the next


def test_a_network_that_does_not_answer(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        with pytest.raises(UserError, match=f"Cannot reach {endpoint} for the model user/tiny"):
            load_model("user/tiny")
        silent.settimeout(0)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()  # it asked once, and not again


@pytest.mark.parametrize("error", [ConnectionError("Check your connection"), FileNotFoundError()])
def test_the_network_is_not_blamed_for_the_users_own_wish(error, monkeypatch):
    assert why(ConnectionError("Check your connection.")) == "Check your connection."
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert why(error).startswith("HF_HUB_OFFLINE=1 forbids a download")
    assert why(ValueError("it is damaged")) == "it is damaged."
