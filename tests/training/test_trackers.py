from PIL import Image

from common.training.trackers import Trackers


def test_what_an_interrupted_run_logged_is_hidden(accelerator, processes):
    Trackers(accelerator, processes).start("tensorboard", 20)
    assert accelerator.started == {"tensorboard": {"purge_step": 21}}


def test_the_first_pictures_are_shown(accelerator, processes):
    trackers = Trackers(accelerator, processes)
    assert not trackers.shows(0)
    trackers.start("tensorboard", 0)
    assert [index for index in range(9) if trackers.shows(index)] == [0, 1, 2]
    trackers.show("a.png x2", Image.new("RGB", (4, 4)), 10)
    (tracker,) = accelerator.trackers
    assert tracker.images == [("a.png x2", 10)]


def test_a_tracker_without_room_ends_alone(accelerator, processes, capsys):
    trackers = Trackers(accelerator, processes)
    trackers.start("tensorboard", 0)
    (tracker,) = accelerator.trackers
    trackers.log({"loss": 1.0}, 5)
    tracker.full = True
    trackers.log({"loss": 2.0}, 6)
    trackers.log({"loss": 3.0}, 7)
    assert accelerator.logged == [({"loss": 1.0}, 5), ({"loss": 3.0}, 7)]  # by no tracker
    assert accelerator.trackers == []
    output = capsys.readouterr().out
    assert output.count("TensorBoard's log cannot be written (no room) and ends at step 6.") == 1


def test_none_is_none(accelerator, processes):
    trackers = Trackers(accelerator, processes)
    trackers.start("none", 0)
    assert accelerator.trackers == []
    trackers.finish(5)


def test_trackers_finish(accelerator, processes):
    trackers = Trackers(accelerator, processes)
    trackers.start("tensorboard", 0)
    (tracker,) = accelerator.trackers
    trackers.finish(5)
    assert tracker.finished
