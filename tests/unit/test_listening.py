"""What a driver does between two looks at its stages: errands aside, files one by one, limits on waits."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtp_dist.errors import StageError, StageLostError, StartError, StorageError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.errands import Errands
from dtp_dist.runtime.local.control_line import control_pair
from dtp_dist.runtime.processes import Heard, ProcessRuntime
from dtp_dist.runtime.ray.fetching import FilesToFetch
from dtp_dist.runtime.supervisor import Status
from dtp_dist.storage.checkpoint import FileEntry
from dtp_dist.system import remains
from dtp_dist.system.clock import AwakeClock
from dtp_dist.transport.base import wait_for
from runs import small_config

LIMIT = 30.0


def finish_all(errands: Errands) -> None:
    end = time.monotonic() + LIMIT
    while errands.current is not None and time.monotonic() < end:
        errands.finish()
        time.sleep(0.005)


def test_a_gap_between_two_readings_counts_as_the_longest_round():
    wall = iter([0.0, 0.2, 0.4, 100.0, 100.5])
    clock = AwakeClock(1.0, lambda: next(wall))
    assert [round(clock(), 6) for _ in range(4)] == [0.2, 0.4, 1.4, 1.9]


def test_a_wait_on_a_link_does_not_count_the_time_in_which_its_process_was_stopped(monkeypatch):
    wall, polls = [0.0], []

    def poll(seconds: float) -> bool:
        polls.append(seconds)
        wall[0] += 3600.0 if len(polls) == 3 else 0.1
        return len(polls) == 6

    monkeypatch.setattr("dtp_dist.system.clock.time.monotonic", lambda: wall[0])
    monkeypatch.setattr(
        "dtp_dist.transport.base.AwakeClock", lambda longest: AwakeClock(longest, lambda: wall[0])
    )
    wait_for(poll, timeout=10.0, stopped=lambda: False, describe=lambda: "a link")
    assert len(polls) == 6


def test_errands_are_done_in_their_order_and_followed_in_the_callers_thread():
    errands, seen = Errands(), []
    for number in range(3):
        errands.begin(
            f"errand {number}",
            lambda number=number: (number, threading.current_thread().name),
            lambda result: seen.append((result, threading.current_thread())),
        )
    assert errands.current == "errand 0"
    finish_all(errands)
    here = threading.current_thread()
    assert seen == [((number, "errands"), here) for number in range(3)]


def test_what_goes_wrong_in_an_errand_is_raised_where_it_is_finished():
    errands = Errands()
    errands.begin("a checkpoint", lambda: 1 / 0, lambda result: None)
    with pytest.raises(ZeroDivisionError):
        finish_all(errands)
    assert errands.current is None


def test_closing_waits_for_the_errand_under_way_and_begins_no_other():
    errands, begun, done = Errands(), threading.Event(), []

    def work() -> None:
        begun.set()
        time.sleep(0.2)
        done.append("first")

    errands.begin("first", work, lambda result: None)
    errands.begin("second", lambda: done.append("second"), lambda result: None)
    assert begun.wait(LIMIT)
    errands.close(LIMIT)
    assert done == ["first"]


def test_files_are_fetched_one_at_a_time_and_a_stage_is_whole_with_its_last():
    files = FilesToFetch()
    entries = [FileEntry(f"layer-00{n}.safetensors", 1, "") for n in (1, 2, 3)]
    assert files.next() is None
    files.add(1, "step", entries[2:])
    files.add(0, "step", entries[:2])
    order = []
    while (wanted := files.next()) is not None:
        assert files.next() is None, "one is under way"
        order.append((wanted.stage, files.current.name, files.done()))
    assert order == [
        (1, "layer-003.safetensors", (1, "step", entries[2:])),
        (0, "layer-001.safetensors", None),
        (0, "layer-002.safetensors", (0, "step", entries[:2])),
    ]


class Line:
    """Both ends of a control line."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.mine, self.theirs = control_pair(self.said.put, limit)

    def close(self) -> None:
        self.mine.close()
        if not self.theirs.closed:
            self.theirs.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_half_a_message_holds_nobody_up(line):
    """A stage that froze while it sent its timeline held the driver in a read without a limit."""
    line.theirs.send("whole")
    os.write(line.theirs.fileno(), b"\0\0\xff\xff" + b"x" * 100)  # 65,535 bytes are announced
    assert line.said.get(timeout=LIMIT) == "whole"
    with pytest.raises(queue.Empty):
        line.said.get(timeout=0.1)
    line.close()
    assert line.said.get(timeout=LIMIT) is None


def test_the_end_of_the_other_side_is_said(line):
    line.theirs.close()
    assert line.said.get(timeout=LIMIT) is None


def test_what_is_no_message_counts_as_the_end(line):
    os.write(line.theirs.fileno(), b"\0\0\0\x05hello")
    assert line.said.get(timeout=LIMIT) is None


def test_a_stage_that_does_not_read_is_found_within_the_limit():
    line = Line(limit=0.2)
    with pytest.raises(BlockingIOError):
        line.mine.send(b"x" * 10_000_000)
    line.close()


class Scripted(ProcessRuntime):
    """A runtime whose stages say what the test has written."""

    def __init__(self, *overrides: str) -> None:
        config = small_config("parallel.runtime=local", "parallel.stages=2", *overrides)
        super().__init__(resolve(config), lambda report: None, 0)
        self._supervisor.started()
        self.asked: list[str] = []
        self.talking = [0, 1]
        self.script: list[Heard] = []
        self.deaf = False

    def start(self) -> None:
        self._gather("to start", self._start_limit)

    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        self.asked.append(method)
        if method == "save" and not self.deaf:
            self.script.append(Heard(stage, "reply", None))

    def _listen(self, seconds: float) -> Iterator[Heard]:
        time.sleep(0.02)
        now, self.script = self.script, []
        yield from now
        for stage in self.talking:
            yield Heard(stage, "alive", Status("idle", f"stage {stage}", 0.0))

    def load(self, directory: Any) -> None: ...


ENTRIES = [FileEntry(f"layer-00{n}.safetensors", 1, "") for n in range(1, 6)]


def test_a_stage_that_freezes_while_a_checkpoint_is_written_is_lost_within_failure_timeout(tmp_path):
    """It was noticed after action_timeout, 600 s, and ended the run instead of being replaced."""
    runtime = Scripted("parallel.failure_timeout=1", "parallel.action_timeout=100")
    runtime.save(tmp_path, lambda files: None)
    runtime.script.append(Heard(0, "saved", (str(tmp_path), ENTRIES[:3])))
    runtime.talking = [0]
    with pytest.raises(StageLostError, match="stage 1 was lost: no sign of life"):
        runtime.flush()
    runtime.close()


@pytest.mark.slow
def test_a_slow_disk_is_not_silence_and_its_work_follows(tmp_path):
    """A driver that was busy with a checkpoint for longer than failure_timeout lost healthy stages."""
    runtime, done = Scripted("parallel.failure_timeout=0.5"), []
    heard_meanwhile = []

    def slow() -> str:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            time.sleep(0.01)
            heard_meanwhile.append(len(runtime.asked))
        return "written"

    runtime.save(
        tmp_path, lambda files: runtime.aside("a checkpoint", slow, lambda text: done.append((files, text)))
    )
    runtime.script += [
        Heard(0, "saved", (str(tmp_path), ENTRIES[:3])),
        Heard(1, "saved", (str(tmp_path), ENTRIES[3:])),
    ]
    runtime.flush()
    assert done == [(ENTRIES, "written")]
    assert heard_meanwhile
    runtime.close()


def test_work_aside_has_a_limit_and_names_what_hangs(tmp_path):
    runtime, let_go = Scripted("parallel.action_timeout=0.3"), threading.Event()
    runtime.aside(str(tmp_path / "step-7"), lambda: let_go.wait(LIMIT), lambda result: None)
    with pytest.raises(StorageError, match=r"step-7: was not done within 0\.3 s \(parallel.action_timeout\)"):
        runtime.flush()
    let_go.set()
    runtime.close()


def test_a_start_that_takes_too_long_is_an_error_of_its_own_kind():
    runtime = Scripted("parallel.start_timeout=0.2")
    with pytest.raises(StartError, match=r"did not come to start within 0\.2 s \(parallel.start_timeout\)"):
        runtime.start()
    runtime.close()


@pytest.mark.parametrize(
    "call", [Scripted.spans, lambda runtime: runtime.save(Path("x"), lambda files: None)]
)
def test_a_stage_that_lives_but_does_not_answer_has_a_limit(call):
    runtime = Scripted("parallel.action_timeout=0.2")
    runtime.deaf = True
    with pytest.raises(
        StageError, match=r"did not come to (spans|save) within 0\.2 s \(parallel.action_timeout\)"
    ):
        call(runtime)
    runtime.close()


class Unkillable(subprocess.Popen[bytes]):
    """As one that waits for a disk that hangs."""

    def poll(self) -> int | None:
        return None if self.immortal else super().poll()

    immortal = True


def test_a_process_that_can_not_be_killed_is_named_until_it_has_ended():
    process = Unkillable([sys.executable, "-c", "pass"])
    assert remains.still_running() == ""
    remains.add(process, "stage 3")
    assert remains.still_running().startswith(f"process {process.pid} (stage 3) was killed but has not ended")
    process.immortal = False
    process.wait()
    assert remains.still_running() == ""
