"""Curves of runs: what is read from the logs, where it is drawn."""

import json
import re
from xml.etree import ElementTree

import pytest

from common.curves import CURVES, Curves, draw_curves, draw_panel, read_curves, ticks
from common.errors import UserError
from results import compare

SVG = "{http://www.w3.org/2000/svg}"


def write_run(folder, name: str, seconds: float):
    """A run of 20 steps that took so many seconds a step, and logged at every tenth."""
    run = folder / name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(
        '{"step": 10, "loss": 0.1, "learning_rate": 0.5}\n{"step": 20, "loss": 0.001}\n'
        '{"step": 15, "psnr_y": 30.0, "ssim_y": 0.9}\n{"step": 20, "psnr_y": 32.0}\n'
    )
    (run / "times.jsonl").write_text(
        "".join(f'{{"step": {step}, "seconds": {step * seconds}}}\n' for step in (10, 20))
    )
    return run


def panels(picture: str) -> list[list[list[tuple[float, float]]]]:
    """The points of the lines of each panel."""
    root = ElementTree.fromstring(picture)
    return [
        [
            [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
            for line in group.iter(f"{SVG}polyline")
        ]
        for group in root.iter(f"{SVG}g")
    ]


def test_curves_are_read_from_the_logs(tmp_path):
    curves = read_curves(write_run(tmp_path, "run", 6.0))
    assert curves.loss == [(10, 0.1), (20, 0.001)]
    assert curves.psnr_y == [(15, 30.0), (20, 32.0)]
    assert curves.minutes == [(10, 1.0), (20, 2.0)]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_times_that_are_no_numbers_are_passed_over(tmp_path, seconds):
    run = write_run(tmp_path, "run", 6.0)
    with (run / "times.jsonl").open("a") as file:
        file.write(f'{{"step": 30, "seconds": {json.dumps(seconds)}}}\n')
    compare.main([f"{run}", "--output", f"{tmp_path / 'run.svg'}"])
    assert read_curves(run).minutes == [(10, 1.0), (20, 2.0)]


def test_two_runs_in_one_picture(tmp_path):
    runs = [write_run(tmp_path, name, seconds) for name, seconds in (("fast", 3.0), ("slow", 6.0))]
    output = tmp_path / "new" / "both.svg"
    compare.main([*map(str, runs), "--output", str(output)])
    picture = output.read_text()
    loss_by_steps, loss_by_minutes, psnr_by_steps, psnr_by_minutes = panels(picture)
    for panel in (loss_by_steps, psnr_by_steps):  # the same lines
        assert panel[0] == panel[1]
    # Over minutes the fast run is half as wide; the left edge is minute 0.
    left, right = loss_by_minutes[1][0][0], loss_by_minutes[1][1][0]
    edge = left - (right - left)
    assert [x for x, _ in loss_by_minutes[0]] == pytest.approx(
        [edge + (left - edge) / 2, edge + (right - edge) / 2], abs=0.2
    )
    # Step 15 was logged half-way between minutes 1 and 2.
    assert psnr_by_minutes[1][0][0] == pytest.approx((left + right) / 2, abs=0.2)
    assert psnr_by_steps[0][0][1] > psnr_by_steps[0][1][1]  # upwards is better
    assert ">fast</text>" in picture
    assert ">slow</text>" in picture
    assert ">PSNR-Y in dB, validation</text>" in picture
    with pytest.raises(UserError, match="exists already; name another, or add --overwrite"):
        compare.main([*map(str, runs), "--output", str(output)])
    compare.main([*map(str, runs[:1]), "--output", str(output), "--overwrite"])
    assert [len(panel) for panel in panels(output.read_text())] == [1, 1, 1, 1]


def test_a_loss_is_drawn_by_its_logarithm():
    points = [(1, 1.0), (2, 0.1), (3, 0.01)]
    run = Curves(points, [], [(3, 1.0)])
    picture = draw_curves({"<run>": run, "other": run})
    (line, _), *_ = panels(picture)
    (_, first), (_, second), (_, third) = line
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert "Nothing has been logged yet." in picture
    assert "&lt;run&gt;" in picture
    assert {"0.01", "0.1", "1"} <= set(re.findall(r">([\d.]+)</text>", picture))


def test_long_runs_are_drawn_by_means():
    points = [(step, step % 2 + 1.0) for step in range(1, 6001)]
    lines = panels(draw_curves({"run": Curves(points, points, [(6000, 60.0)])}))
    assert [len(line) for panel in lines for line in panel] == [300] * 4
    assert len({y for _, y in lines[2][0]}) == 1  # the mean of each part


def test_mistakes(tmp_path):
    run = write_run(tmp_path, "run", 1.0)
    with pytest.raises(UserError, match=r"x\.png: curves are written as SVG"):
        compare.main([f"{run}", "--output", "x.png"])
    with pytest.raises(UserError, match="has no logs of a run"):
        compare.main([f"{tmp_path}", "--output", f"{tmp_path / 'x.svg'}"])
    with pytest.raises(UserError, match="A run is named twice"):
        compare.main([f"{run}", f"{run}", "--output", f"{tmp_path / 'x.svg'}"])
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no loss yet"):
        read_curves(run)
    assert compare.names_of([run, tmp_path / "other" / "run"]) == [
        f"{run}",
        f"{tmp_path / 'other' / 'run'}",
    ]


def test_a_run_leaves_its_curves_beside_its_card(train, tmp_path):
    train("train_srcnn.py", tmp_path / "run", steps=10)
    loss, _, psnr, _ = panels((tmp_path / "run" / CURVES).read_text())
    assert len(loss[0]) == 2
    assert len(psnr[0]) == 1
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"## Results\n\n![Loss and PSNR of the training]({CURVES})\n\nBest validation" in card


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (29.2, 30.7, [29.5, 30, 30.5]),
        (0.017, 0.023, [0.018, 0.02, 0.022]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_curves_leave_out_what_is_no_number():
    points = [(1, float("nan")), (2, 1.0), (3, float("inf")), (4, 3.0)]
    svg = draw_panel({"loss": points}, "step", "x")
    (line,) = re.findall(r'<polyline points="([^"]+)"', svg)
    (first, last) = [tuple(map(float, spot.split(","))) for spot in line.split()]
    assert first[0] < last[0]
    assert first[1] > last[1]  # down is small
    assert "Nothing has been logged yet." in draw_panel({"loss": []}, "step", "x")
    assert "polyline" in draw_panel({"loss": [(5, 1.0)]}, "step", "x", ("bicubic", 1.0))
