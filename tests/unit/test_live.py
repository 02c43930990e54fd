"""The live view on a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from dtp_dist.monitor import console as console_module
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.console import ConsoleMonitor
from dtp_dist.monitor.live import View
from screen import shown

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def started(stages: int, **details: object) -> Line:
    return Line(0, 1, 0.0, {}, "started", {"partition": [2] * stages, **details})


def measured(stages: int, step: int, seconds: float) -> Line:
    values = {"train_loss": 0.5, "train_error": 12.5, "samples_per_second": 123456.0}
    values |= {f"stage/{stage}/busy": (stage + 1) / stages for stage in range(stages)}
    values |= {f"stage/{stage}/waiting": 0.25 for stage in range(stages)}
    values |= {f"layer/{layer}/inverse_loss": float(layer) for layer in range(2, 2 * stages)}
    return Line(step, 1, seconds, values)


def drawn(view: View, height: int = 40, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=width, height=height).print(view)
    return CONTROL.sub("", file.getvalue()).splitlines()


def a_view(stages: int, **details: object) -> View:
    view = View(3000, 6)
    view.take(started(stages, **details))
    view.take(measured(stages, 100, 10.0))
    view.take(measured(stages, 1000, 40.0))
    return view


def test_a_row_a_stage_and_totals_below():
    head, first, second, progress, totals = drawn(a_view(2))
    assert head.split() == ["stage", "layers", "busy", "waits", "minibatch", "inverse", "loss"]
    assert re.fullmatch(r" +0  1-2 +━+[╸╺]━* +50 % +25 % +1000 +2", first.rstrip()), "layer 2's loss alone"
    assert re.fullmatch(r" +1  3-4 +━+ +100 % +25 % +1000 +3", second.rstrip()), (
        "layer 3's: the last has no inverse"
    )
    assert progress.split() == ["epoch", "1/6", progress.split()[2], "step", "1000/3000", "0:01:07", "left"]
    assert totals == "train loss 0.5, error % train 12.50, 123,456 samples/s"


def test_before_anything_is_measured_it_says_so():
    view = View(3000, 6)
    assert drawn(view)[-1] == "starting"
    view.take(started(3))
    lines = drawn(view)
    assert lines[-1] == "no metrics yet"
    assert [line.split()[-3:] for line in lines[1:4]] == [["-", "0", "-"]] * 3


def test_values_stay_until_they_are_measured_again():
    """An epoch's line has no stages' values, and the lines after it no test error."""
    view = a_view(2)
    view.take(Line(1000, 1, 41.0, {"train_loss": 0.25, "valid_error": 9.0, "test_error": 8.0}))
    view.take(Line(1010, 2, 42.0, {"train_loss": 0.125}))
    lines = drawn(view)
    assert lines[-1] == "train loss 0.125, error % train 12.50 valid 9.00 test 8.00, 123,456 samples/s"
    assert "100 %" in lines[2]
    assert "epoch 2/6" in lines[3]


def test_an_inverse_pass_counts_its_own_minibatches():
    view = a_view(2)
    view.take(
        Line(1000, 2, 50.0, {"layer/2/inverse_loss": 1.5}, None, {"minibatch": 1300, "phase": "inverse"})
    )
    lines = drawn(view)
    assert lines[1].split()[-2:] == ["1300", "1.5"]
    assert "step 1000/3000" in lines[3]


@pytest.mark.parametrize("stages", [1, 16, 17, 1000])
@pytest.mark.parametrize("height", [10, 24, 40])
def test_it_fits_the_screen_however_many_stages_there_are(stages, height):
    lines = drawn(a_view(stages, virtual=True), height)
    assert max(map(len, lines)) <= 80
    assert len(lines) < height
    rows = [line.split() for line in lines[1:-2]]
    assert len(rows) == min(stages, 16, height - 5)
    if len(rows) < stages:
        assert rows[-1][:3] == ["...", f"{len(rows) - 1}-{stages - 1}", f"{2 * len(rows) - 1}-{2 * stages}"]
        mean = 100 * sum(range(len(rows), stages + 1)) / len(range(len(rows), stages + 1)) / stages
        assert f"{mean:.0f} %" in lines[-3]
    assert lines[-2].startswith("virtual epoch 1/6")


@contextmanager
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ConsoleMonitor, io.StringIO]]:
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    monitor = ConsoleMonitor(Console(file=file, force_terminal=True, width=80, height=24), 3000, 6)
    monitor.write(started(2))
    now[0] = 100.0
    yield monitor, file
    monitor.close()


def test_it_is_drawn_twice_a_second_at_most_and_once_more_at_the_end(monkeypatch):
    with a_terminal(monkeypatch) as (monitor, file):
        for step in range(10, 100):
            monitor.write(measured(2, step, step))
        seen = file.getvalue()
        assert "step 10/3000" in seen
        assert "step 11/3000" not in seen
        monitor.write(Line(99, 1, 99.0, {}, "recovered", {}))
    assert "step 99/3000" in file.getvalue()
    assert "step 98/3000" not in file.getvalue()


def test_events_stay_above_it(monkeypatch):
    with a_terminal(monkeypatch) as (monitor, file):
        monitor.write(measured(2, 10, 1.0))
        monitor.write(Line(10, 1, 2.0, {}, "stage lost", {"message": "stage 1 was lost [/x]"}))
        monitor.write(measured(2, 20, 3.0))
    lines = shown(file.getvalue().replace("\n", "\r\n"), 80)
    [event] = [number for number, line in enumerate(lines) if line.startswith("stage lost at step 10")]
    assert "stage 1 was lost [/x]" in lines[event]
    [head] = [number for number, line in enumerate(lines) if line.startswith("stage  layers")]
    assert event < head == len(lines) - 6, "one view, below it"
    assert "step 20/3000" in lines[-3]


def test_the_cursor_comes_back(monkeypatch):
    with a_terminal(monkeypatch) as (_, file):
        assert file.getvalue().startswith("\x1b[?25l"), "hidden meanwhile"
    assert file.getvalue().endswith("\x1b[?25h")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    monitor = ConsoleMonitor(Console(file=file, force_terminal=True, width=80), 3000, 6)
    monitor.write(started(2, virtual=True))
    monitor.write(measured(2, 100, 10.0))
    monitor.close()
    assert file.getvalue() == (
        "virtual epoch 1/6  step 100/3000  train loss 0.5, train error 12.50 %,\n"
        "  samples/s 123,456  (10 s)\n"
    )


ALL = {"train_loss": 0.123456, "train_error": 12.345, "valid_error": 23.456, "test_error": 34.567}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_an_evaluation_breaks_between_its_values_on_a_terminal(width):
    file = io.StringIO()
    monitor = ConsoleMonitor(Console(file=file, force_terminal=True, width=width, height=24), 300_000, 100)
    monitor.write(Line(120_000, 40, 12_345.0, {**ALL, "samples_per_second": 123_456.0}))
    monitor.close()
    lines = shown(file.getvalue().replace("\n", "\r\n"), width)
    begin = next(number for number, line in enumerate(lines) if line.startswith("epoch 40/100"))
    end = next(number for number, line in enumerate(lines) if line.endswith("(12,345 s)"))
    told = lines[begin : end + 1]
    assert max(map(len, told)) <= width
    whole = " ".join(line.strip() for line in told)
    assert whole.split("  ")[-2].split(", ") == [
        "train loss 0.1235",
        "train error 12.35 %",
        "valid error 23.46 %",
        "test error 34.57 %",
        "samples/s 123,456",
    ]
    assert all(line.endswith(",") for line in told[:-1]), "broken between two values"


def test_an_evaluation_is_one_line_in_a_file():
    file = io.StringIO()
    monitor = ConsoleMonitor(Console(file=file, width=40), 300, 3)
    monitor.write(Line(100, 1, 3.0, {**ALL, "samples_per_second": 123_456.0}))
    assert file.getvalue().count("\n") == 1


def test_what_a_start_waits_for_is_shown_until_the_stages_are_there():
    view = View(3000, 6)
    view.say("waiting for room")
    assert drawn(view)[-1] == "waiting for room"
    view.take(started(2))
    assert drawn(view)[-1] == "no metrics yet"
    view.take(measured(2, 100, 10.0))
    view.say("starting 2 stages")
    assert drawn(view)[-1] == "starting 2 stages", "again, after a loss"
    view.take(started(2))
    assert drawn(view)[-1].startswith("train loss")


def test_what_a_start_waits_for_and_warnings_are_lines_in_a_file():
    file = io.StringIO()
    monitor = ConsoleMonitor(Console(file=file, width=80), 3000, 6)
    monitor.say("starting a private Ray")
    monitor.write(Line(0, 1, 2.0, {}, "warning", {"message": "[odd]"}))
    assert file.getvalue() == "starting a private Ray\nwarning: [odd]\n"
