"""What is told of a run: lines, files, the trace."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dtp_dist.errors import StorageError
from dtp_dist.monitor import Collector, MetricsLog, Monitor, Monitors, jsonl
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.console import ConsoleMonitor, in_words
from dtp_dist.runtime.segment import Report, Segment
from dtp_dist.schedule import Phase
from dtp_dist.text.foreign import open_log

BOTH = Segment(Phase.BOTH, "train", 1, 30, 30, 0)
INVERSE = Segment(Phase.INVERSE, "train", 1, 30, 30, 0)


class Listener(Monitor):
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.closed = 0

    def write(self, line: Line) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def listener() -> Listener:
    return Listener()


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_monitors_hear_every_line_in_order(listener):
    other = Listener()
    monitors = Monitors([listener, other])
    monitors.values(3, 1, {"train_loss": 1.5})
    monitors.event(4, 2, "checkpoint", path="x")
    monitors.close()
    assert listener.lines == other.lines
    assert [(line.step, line.epoch, line.event) for line in other.lines] == [
        (3, 1, None),
        (4, 2, "checkpoint"),
    ]
    assert 0 <= listener.lines[0].time <= listener.lines[1].time <= monitors.seconds
    assert listener.closed == other.closed == 1


def test_a_line_is_told_when_every_stage_has_reported(listener):
    collector = Collector(Monitors([listener]), 2, 40)
    collector.begin(30)
    collector.report(Report(1, BOTH, 39, {"loss": 0.5, "error": 12.0, "layer/3/forward_loss": 0.1}))
    assert listener.lines == []
    collector.report(Report(1, BOTH, 49, {"loss": 0.25}))
    collector.report(Report(0, BOTH, 39, {"layer/1/forward_loss": 0.2}))
    [line] = listener.lines
    assert (line.step, line.epoch) == (40, 2)
    assert line.values["train_loss"] == 0.5
    assert line.values["train_error"] == 12.0
    assert {"layer/1/forward_loss", "layer/3/forward_loss", "samples_per_second"} <= set(line.values)
    assert line.values["driver/memory_mb"] > 10
    collector.report(Report(0, BOTH, 49, {}))
    assert [line.step for line in listener.lines] == [40, 50]


def test_the_idle_share_is_what_the_stages_are_not_busy(listener):
    collector = Collector(Monitors([listener]), 2, 40)
    collector.report(Report(0, BOTH, 39, {"stage/0/busy": 0.9}))
    collector.report(Report(1, BOTH, 39, {"stage/1/busy": 0.4}))
    assert listener.lines[0].values["idle"] == pytest.approx(0.35)


def test_an_inverse_pass_is_told_at_the_step_before_it_with_its_own_minibatch(listener):
    """No forward update is done in it, so the run's step stands still."""
    collector = Collector(Monitors([listener]), 1, 40)
    collector.report(Report(0, INVERSE, 39, {"layer/2/inverse_loss": 0.5}))
    [line] = listener.lines
    assert (line.step, line.epoch) == (30, 2)
    assert line.details == {"minibatch": 40, "phase": "inverse"}
    assert in_words(line) == ["inverse pass, minibatch 40", "mean inverse loss 0.5"]


@pytest.mark.parametrize("rest", [b'{"step": 3, "ep', b"\0" * 5000, b"\xff\xfe", b"7", b"[" * 100_000])
def test_half_a_line_of_an_earlier_process_is_cut_off(tmp_path, rest):
    path = tmp_path / "metrics.jsonl"
    for before in (b"", b'{"step": 1}\n'):
        path.write_bytes(before + rest)
        log = MetricsLog(path)
        log.write(Line(10, 1, 0.0, {}))
        log.close()
        assert path.read_bytes().startswith(before)
        assert [line["step"] for line in read(path)] == [1, 10][not before :]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_last_line_that_lacks_its_end_alone_stays(tmp_path, end):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}' + end)
    log = MetricsLog(path)
    log.write(Line(10, 1, 0.0, {}))
    log.close()
    assert [line["step"] for line in read(path)] == [1, 10]


def test_a_loss_that_grows_away_is_one_warning(listener):
    collector = Collector(Monitors([listener]), 1, 40)
    for minibatch, loss in ((39, 90_000.0), (49, 1e10), (59, 1e11)):
        collector.report(Report(0, BOTH, minibatch, {"loss": loss}))
    [warning] = [line for line in listener.lines if line.event == "warning"]
    assert "train loss 1e10 at minibatch 50" in warning.details["message"]


def test_a_line_of_metrics_is_one_json_object(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(Line(10, 1, 0.12345, {"train_loss": 1 / 3}))
    log.write(Line(10, 1, 2.0, {}, "checkpoint", {"path": "a\nb", "sizes": [1, 2]}))
    log.write(Line(10, 1, 2.0, {"x": 1.0}, None, {"minibatch": 11, "phase": "inverse"}))
    assert read(tmp_path / "metrics.jsonl") == [
        {"step": 10, "epoch": 1, "time": 0.123, "train_loss": 0.333333},
        {"step": 10, "epoch": 1, "time": 2.0, "event": "checkpoint", "path": "a\nb", "sizes": [1, 2]},
        {"step": 10, "epoch": 1, "time": 2.0, "minibatch": 11, "phase": "inverse", "x": 1.0},
    ], "each line is there before the file is closed"
    log.close()
    log.close()


def test_metrics_of_an_earlier_driver_are_kept(tmp_path):
    for step in (1, 2):
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.write(Line(step, 1, 0.0, {"x": 1.0}))
        log.close()
    assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2]


class HalfFull:
    """A file that takes ``room`` more bytes, as on a full disk."""

    def __init__(self, file: io.RawIOBase, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self.file.write(data[: self.room])
        assert written is not None
        self.room -= written
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    """Half a line at the end made the file no valid JSON."""
    path = tmp_path / "metrics.jsonl"
    disk = HalfFull(open_log(path), 1000)
    monkeypatch.setattr(jsonl, "open_log", lambda path: disk)
    log = MetricsLog(path)
    log.write(Line(1, 1, 0.0, {"x": 1.0}))
    disk.room = 10
    with pytest.raises(StorageError, match=r"metrics.jsonl: can't be written \(No space left on device\)"):
        log.write(Line(2, 1, 0.0, {"x": 1.0}))
    disk.room = 1000
    assert [line["step"] for line in read(path)] == [1]
    log.write(Line(3, 1, 0.0, {"x": 1.0}))
    assert [line["step"] for line in read(path)] == [1, 3]


@pytest.mark.parametrize(
    ("devices", "nodes", "due"),
    [
        (["cpu"] * 3, [], []),
        (["cpu"] * 3, ["a (10.0.0.1)"] * 3, ["stages 0-2 (layers 1-5) on a (10.0.0.1), cpu"]),
        (
            ["cuda:0 (L4)"] * 3,
            ["a (10.0.0.1)", "b [x] (10.0.0.2)", "b [x] (10.0.0.2)"],
            [
                "stage 0 (layers 1-2) on a (10.0.0.1), cuda:0 (L4)",
                "stages 1-2 (layers 3-5) on b [x] (10.0.0.2), cuda:0 (L4)",
            ],
        ),
        (
            ["cuda:0 (L4)", "cuda:1 (L4)", "cuda:1 (L4)"],
            [],
            ["stage 0 (layers 1-2) on cuda:0 (L4)", "stages 1-2 (layers 3-5) on cuda:1 (L4)"],
        ),
    ],
)
def test_the_console_says_where_stages_are_unless_all_is_on_this_machines_cpu(devices, nodes, due):
    shown = io.StringIO()
    console = ConsoleMonitor(Console(file=shown, width=200), 60, 2)
    details = {"stages": [""] * 3, "partition": [2, 2, 1], "devices": devices, "nodes": nodes}
    console.write(Line(0, 1, 0.0, {}, "started", details))
    assert shown.getvalue().splitlines() == due


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_shows_epochs_and_survives_any_message(terminal):
    """A message with brackets was read as markup, and one with [/x] ended in an error of its own."""
    shown = io.StringIO()
    console = ConsoleMonitor(Console(file=shown, force_terminal=terminal, width=200), 60, 2)
    console.write(Line(0, 1, 0.0, {}, "started", {"stages": ["stage 0"]}))
    console.write(Line(10, 1, 1.0, {"train_loss": 0.5}))
    console.write(Line(30, 1, 2.0, {"train_loss": 0.25, "test_error": 9.0, "samples_per_second": 100.0}))
    message = "bad [/x] [red]thing[/red]"
    details = {"message": message, "run_dir": "runs/[/x]", "checkpoint": "[/x]"}
    for event in ("failed", "interrupted", "checkpoint", "finished"):
        console.write(Line(30, 1, 3.0, {}, event, details))
    console.close()
    console.close()
    assert "epoch 1/2" in shown.getvalue()
    assert "test error 9.00 %" in shown.getvalue()
    assert "runs/[/x]" in shown.getvalue()
