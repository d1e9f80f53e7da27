"""Threads that write pictures while others are computed."""

import threading
from contextlib import suppress
from pathlib import Path

from common.workers import Writers


def test_as_many_are_written_at_once_as_there_are_threads_and_room():
    failures, lock, all_there = {}, threading.Lock(), threading.Barrier(3, timeout=20)
    most, running = [], []

    def write():
        with lock:
            running.append(1)
            most.append(len(running))
        all_there.wait()  # breaks unless three run at once
        with lock:
            running.pop()

    with Writers(failures, threads=3, most=30) as writers:
        for number in range(6):
            writers.submit(Path(f"{number}"), 10, write)
    assert failures == {}
    assert max(most) == 3


def test_a_large_picture_is_alone():
    failures, running, alone = {}, [], []

    def write(pixels):
        running.append(pixels)
        alone.append(sum(running) <= 30 or len(running) == 1)
        running.remove(pixels)

    with Writers(failures, threads=4, most=30) as writers:
        for pixels in (10, 100, 20, 10, 31):
            writers.submit(Path("a"), pixels, lambda pixels=pixels: write(pixels))
            assert writers._room._taken <= 30 or writers._room._taken == pixels
    assert all(alone)


def test_what_cannot_be_written_is_named_and_the_others_are_written():
    failures, written = {}, []

    def fail():
        raise OSError("no room")

    with Writers(failures, threads=2) as writers:
        for name, action in (("a", fail), ("b", lambda: written.append("b")), ("c", fail)):
            writers.submit(Path(name), 1, action)
    assert failures == {Path("a"): "no room", Path("c"): "no room"}
    assert written == ["b"]


def test_all_is_written_when_the_work_is_stopped():
    written = []
    with suppress(KeyboardInterrupt), Writers({}, threads=1) as writers:
        writers.submit(Path("a"), 1, lambda: written.append("a"))
        raise KeyboardInterrupt
    assert written == ["a"]
