"""Stopping between two steps when somebody asks for it: all processes stop after the same step."""

import atexit
import multiprocessing.util  # noqa: F401 # so that its own clean-up comes after ours
import os
import signal
import time
from types import FrameType
from typing import Any

import torch
from torch import distributed

from common.launcher import PARENT, is_launched
from common.signals import give_back_signals, take_signals
from common.workers import kill_children


class StopRequest:
    """Takes the signals of `common.signals` as wishes to stop, and the launcher's death as SIGTERM.

    `accelerate launch` and torchrun start the training as a process of its own, which would
    otherwise live on if they are killed. A second Ctrl-C ends the program at once.
    """

    def __init__(self) -> None:
        """Begins to listen; all processes call it at the same time."""
        self._received = 0  # the number of the signal
        self._received_at = 0.0
        self._launcher = PARENT if is_launched() else None
        self._group: Any = None
        self._sent: tuple[Any, torch.Tensor] | None = None  # the last exchange
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            self._group = distributed.new_group(backend="gloo")
        self._handlers = take_signals(self._receive)
        atexit.register(kill_children)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # torchrun sends on the Ctrl-C that the terminal has sent to everybody.
        echo = self._launcher is not None and time.monotonic() - self._received_at < 1
        if self._received and number == signal.SIGINT and not echo:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self._received:
            self._received, self._received_at = number, time.monotonic()
            hint = " Once more ends it at once." if number == signal.SIGINT else ""
            text = f"\n{signal.Signals(number).name}: stopping after this step.{hint}\n"
            if int(os.environ.get("RANK", 0)) == 0:
                os.write(2, text.encode())  # print() could be the very thing that it interrupts

    def asked(self) -> signal.Signals | None:
        """Signal that this process got; others may not know of it yet."""
        if self._launcher not in (None, os.getppid()):
            self._received = self._received or signal.SIGTERM
        return signal.Signals(self._received) if self._received else None

    def after_step(self) -> signal.Signals | None:
        """Signal to stop for, the same on all processes, which must call this after every step.

        With several processes it is known one step later: each sends what it received, and reads
        what all had sent a step before. So no process waits for a GPU, or for other processes
        unless they are more than a step behind.
        """
        asked = self.asked()
        if self._group is None:
            return asked
        if number := self._sent_last():
            return signal.Signals(number)
        numbers = torch.tensor(self._received)
        work = distributed.all_reduce(numbers, distributed.ReduceOp.MAX, self._group, async_op=True)
        self._sent = work, numbers
        return None

    def give_back(self) -> None:
        """Takes signals no longer."""
        give_back_signals(self._handlers)
        self._handlers = {}

    def end_exchange(self) -> None:
        """Ends the exchange, before the processes part."""
        self._sent_last()
        self._sent = self._group = None

    def _sent_last(self) -> int:
        """Largest number that any process sent at the last exchange."""
        if self._sent is None:
            return 0
        work, numbers = self._sent
        work.wait()
        return int(numbers)
