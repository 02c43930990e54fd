"""Watching stages, on a clock that the test moves; and what a stage tells of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dtp_dist.errors import (
    ConfigError,
    DtpDistError,
    LinkError,
    NonFiniteError,
    StageError,
    StageLostError,
    StorageError,
)
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.local.runtime import START
from dtp_dist.runtime.processes import Heard, ProcessRuntime, failure_error
from dtp_dist.runtime.stage.executor import Links
from dtp_dist.runtime.stage.faults import VARIABLE, faults_from_environment
from dtp_dist.runtime.stage.handshake import Failure
from dtp_dist.runtime.stage.service import largest_message
from dtp_dist.runtime.stage.timeline import Timeline, in_words
from dtp_dist.runtime.status_board import SIZE, StatusBoard, new_board
from dtp_dist.runtime.supervisor import Status, Supervisor
from dtp_dist.schedule import Action, Activity, Kind, Span
from dtp_dist.storage.checkpoint import layer_file
from dtp_dist.system.clock import AwakeClock
from dtp_dist.system.process import signal_with_parent
from runs import small_config

LAYOUT = Layout((2, 3, 1), 3)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(clock: Clock) -> Supervisor:
    made = Supervisor(LAYOUT, failure_timeout=10.0, action_timeout=60.0, clock=clock)
    made.started()
    return made


def status(state: str, since: float = 0.0, where: str = "there") -> Status:
    return Status(state, where, since)


def pass_time(
    clock: Clock,
    supervisor: Supervisor,
    seconds: int,
    states: dict[int, str],
    owing: Sequence[int] = (0, 1, 2),
) -> None:
    """Let all stages of ``states`` be in their state for so long, with a sign of life each second."""
    for _ in range(seconds):
        clock.now += 1
        for stage, state in states.items():
            supervisor.heard(stage, status(state, 0.0, f"place {stage}"))
        supervisor.check(owing)


def test_signs_of_life_are_asked_for_five_times_in_the_limit_and_each_second_at_least():
    assert Supervisor(LAYOUT, 2.0, 1.0).heartbeat == pytest.approx(0.4)
    assert Supervisor(LAYOUT, 100.0, 1.0).heartbeat == 1.0


def test_a_stage_without_a_sign_of_life_is_lost(clock, supervisor):
    supervisor.heard(1, status("computing", where="stage 1 (layers 3-5), update, layer 4, minibatch 7"))
    clock.now += 9
    for stage in (0, 2):
        supervisor.heard(stage)
    supervisor.check(range(3))
    clock.now += 2
    with pytest.raises(StageError) as caught:
        supervisor.check(range(3))
    assert str(caught.value) == (
        "stage 1 was lost: no sign of life for 11 s (parallel.failure_timeout); "
        "last seen in stage 1 (layers 3-5), update, layer 4, minibatch 7"
    )


def test_a_stage_that_froze_right_after_a_sign_of_life_is_found_within_the_limit(clock, supervisor):
    """It was found up to a heartbeat later."""
    clock.now += 9.5
    for stage in (0, 2):
        supervisor.heard(stage)
    with pytest.raises(StageError, match=r"stage 1 was lost: no sign of life for 9\.5 s"):
        supervisor.check(range(3))


@pytest.mark.parametrize("owing", [[], [0], [0, 1, 2]], ids=["nobody", "another", "all"])
def test_a_stage_that_owes_nothing_may_not_freeze_either(clock, supervisor, owing):
    """One that froze while a checkpoint was written was noticed after minutes, and ended the run."""
    clock.now += 50
    for stage in (0, 2):
        supervisor.heard(stage)
    with pytest.raises(StageLostError, match=r"stage 1 was lost: no sign of life for 50 s"):
        supervisor.check(owing)


def test_starting_is_not_silence(clock):
    """A process that imports torch from a slow disk can't answer: the run failed after four times 9 s."""
    supervisor = Supervisor(LAYOUT, failure_timeout=10.0, action_timeout=60.0, clock=clock)
    clock.now += 170
    supervisor.check(range(3))
    assert not supervisor.silent(1)
    supervisor.started()
    clock.now += 8
    supervisor.check(range(3))
    clock.now += 2
    with pytest.raises(StageLostError, match=r"no sign of life for 10 s"):
        supervisor.check(range(3))


def test_one_action_may_not_take_for_ever_though_its_stage_lives(clock, supervisor):
    pass_time(clock, supervisor, 60, dict.fromkeys(range(3), "computing"))
    with pytest.raises(StageError, match=r"^place 0: one action takes longer than 60 s"):
        pass_time(clock, supervisor, 2, dict.fromkeys(range(3), "computing"))


def test_many_short_actions_may_take_as_long_as_they_like(clock, supervisor):
    for second in range(300):
        clock.now += 1
        for stage in range(3):
            supervisor.heard(stage, status("computing", since=float(second)))
        supervisor.check(range(3))


@pytest.mark.parametrize("gap", [9.0, 16.0, 4000.0], ids=["slow disk", "stopped", "closed lid"])
@pytest.mark.parametrize("state", ["computing", "waiting", "idle"])
def test_a_judge_that_was_away_blames_nobody_for_that_time(gap, state):
    """A driver that was busy or stopped, or a run that was stopped as a whole, lost healthy stages."""
    wall = Clock()
    supervisor = Supervisor(LAYOUT, 10.0, 60.0, clock=AwakeClock(1.0, wall))
    supervisor.started()
    for minibatch in range(5):
        pass_time(wall, supervisor, 3, {0: state, 1: "computing", 2: state})
        wall.now += gap
        supervisor.check(range(3))  # nothing was read yet
        for stage in range(3):
            supervisor.heard(stage, status(state, float(minibatch)))
        supervisor.check(range(3))
    wall.now += gap
    for _ in range(12):
        wall.now += 1
        for stage in (0, 2):
            supervisor.heard(stage)
    with pytest.raises(
        StageLostError, match="stage 1 was lost"
    ):  # what froze meanwhile is found all the same
        supervisor.check(range(3))


def test_a_long_wait_beside_a_busy_stage_is_no_failure(clock, supervisor):
    pass_time(clock, supervisor, 50, {0: "waiting", 1: "computing", 2: "waiting"})


def test_all_waiting_at_once_means_that_a_message_was_lost(clock, supervisor):
    pass_time(clock, supervisor, 9, {0: "waiting", 1: "waiting", 2: "waiting"})
    with pytest.raises(LinkError, match="a message was lost: all stages wait for one: place 0; place 1; pl"):
        pass_time(clock, supervisor, 10, {0: "waiting", 1: "waiting", 2: "waiting"})


def test_the_last_stage_waiting_alone_means_that_a_message_was_lost(clock, supervisor):
    """One stage that waited while all others were done was not looked at: the run hung for minutes."""
    pass_time(clock, supervisor, 3, dict.fromkeys(range(3), "computing"))
    with pytest.raises(LinkError, match="a message was lost"):
        pass_time(clock, supervisor, 20, {0: "idle", 1: "idle", 2: "waiting"}, owing=[2])


def test_what_was_seen_before_the_last_answer_is_not_held_against_the_others(clock, supervisor):
    """Stage 0 computes for long and is done; the others' last signs of life still say that they wait."""
    pass_time(clock, supervisor, 30, {0: "computing", 1: "waiting", 2: "waiting"})
    supervisor.check([1, 2])
    clock.now += 0.5
    supervisor.check([1, 2])
    clock.now += 1
    for stage in (1, 2):
        supervisor.heard(stage, status("computing", 0.1))
    supervisor.check([1, 2])


def test_a_stage_that_died_is_named_with_its_last_place(supervisor):
    assert str(supervisor.died(2, "its process was killed by SIGKILL")) == (
        "stage 2 was lost: its process was killed by SIGKILL; last seen in stage 2 (layer 6), starting"
    )


def test_the_place_comes_from_shared_memory_where_there_is_one(clock):
    seen = {0: "update, minibatch 9"}
    supervisor = Supervisor(LAYOUT, 10, 60, clock, doing=lambda stage: seen.get(stage, ""))
    supervisor.heard(0, status("waiting", where="old"))
    supervisor.heard(1, status("waiting", where="known"))
    assert supervisor.where(0) == "stage 0 (layers 1-2), update, minibatch 9"
    assert supervisor.where(1) == "known"


def test_shared_memory_outlives_the_process_that_wrote_it():
    board = new_board()
    code = (
        "import os, sys; from dtp_dist.runtime.status_board import StatusBoard; "
        "seen = StatusBoard(int(sys.argv[1])); seen.write('a longer name', 2); "
        "seen.write('update', 3); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(board)], pass_fds=[board], check=False)
    assert ended.returncode == -signal.SIGKILL
    seen = StatusBoard(board)
    assert seen.read() == "update, minibatch 3"
    seen.close()


def test_a_name_is_cut_to_its_memory():
    seen = StatusBoard(new_board())
    assert seen.read() == ""
    seen.write("x" * 1000, 7)
    assert seen.read() == "x" * (SIZE - 8) + ", minibatch 7"
    seen.close()


def test_a_timeline_says_what_is_going_on():
    told: list[tuple[str, int]] = []
    clock = Clock()
    timeline = Timeline(2, clock)
    timeline.tell = lambda *words: told.append(words)
    timeline.keeps_spans = True
    with timeline.during(Activity.FORWARD, 4):
        clock.now += 3
        assert (timeline.state, timeline.now) == ("computing", (Activity.FORWARD, 4, 100.0))
    with timeline.during(Activity.WAIT_TARGET, 4):
        clock.now += 2
        assert timeline.state == "waiting"
    timeline.mark(None, 4)
    assert timeline.state == "idle"
    assert told == [("forward", 4), ("wait for target", 4), ("idle", 4)]
    assert (timeline.busy, timeline.waiting) == (3.0, 2.0)
    assert timeline.spans() == [
        Span(Activity.FORWARD, 4, 100.0, 103.0),
        Span(Activity.WAIT_TARGET, 4, 103.0, 105.0),
    ]
    assert (in_words("idle", -1), in_words("idle", 4)) == ("idle", "idle after minibatch 4")


def test_a_timeline_keeps_the_last_minibatches_alone():
    timeline = Timeline(2)
    timeline.keeps_spans = True
    for number in range(100):
        with timeline.during(Activity.FORWARD, number):
            pass
    assert [span.minibatch for span in timeline.spans()] == list(range(84, 100))


def test_a_failure_of_a_stage_keeps_its_class_where_it_is_one_of_ours():
    named = "stage 1 (layer 3), update, minibatch 7: the loss is nan"
    error = failure_error(Failure("NonFiniteError", named, "trace", "stage 1"), "stage 1 (layer 3)", "a")
    assert type(error) is NonFiniteError
    assert str(error) == named
    assert error.__notes__ == ["trace"]
    bug = Failure("ZeroDivisionError", "by zero", "trace", "stage 1 (layer 3), update")
    other = failure_error(bug, "stage 1 (layer 3)")
    assert type(other) is StageError
    assert str(other) == "stage 1 (layer 3), update: ZeroDivisionError: by zero"


@pytest.mark.parametrize(
    ("kind", "node", "due"),
    [
        ("DataError", "gpu-7 (10.0.0.3)", "stage 0 (layers 1-3) on gpu-7 (10.0.0.3): data: is missing"),
        ("DataError", "", "stage 0 (layers 1-3): data: is missing"),
        ("StorageError", "gpu-7 (10.0.0.3)", "stage 0 (layers 1-3) on gpu-7 (10.0.0.3): data: is missing"),
        ("OSError", "gpu-7 (10.0.0.3)", "stage 0, starting on gpu-7 (10.0.0.3): OSError: data: is missing"),
    ],
)
def test_a_failure_names_its_stage_and_node(kind, node, due):
    runtime = Told(node)
    runtime.said.append(Heard(0, "failed", Failure(kind, "data: is missing", "trace", "stage 0, starting")))
    with pytest.raises(DtpDistError) as error:
        runtime.spans()
    assert str(error.value) == due


class Told(ProcessRuntime):
    """Two stages, at the end of this test's own wire: what they are asked is kept, what they say is given."""

    def __init__(self, node: str = "", through_driver: bool = False) -> None:
        super().__init__(resolve(small_config("parallel.stages=2")), lambda report: None, 0)
        self.asked: list[tuple[int, str, Any]] = []
        self.said: list[Heard] = []
        self._node, self._remote = node, through_driver

    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        self.asked.append((stage, method, arguments))
        self.said.append(Heard(stage, "reply"))

    def _listen(self, seconds: float) -> list[Heard]:
        heard, self.said = self.said, []
        return heard

    def _through_driver(self, directory: Path) -> bool:
        return self._remote

    def nodes(self) -> list[str]:
        return [self._node] * 2 if self._node else []

    def close(self) -> None:
        """Nothing runs."""


@pytest.mark.parametrize("through_driver", [True, False])
def test_each_stage_is_sent_the_files_of_its_own_layers_alone(tmp_path, through_driver):
    for index in range(1, 6):
        (tmp_path / layer_file(index)).write_bytes(f"layer {index}".encode())
    (tmp_path / layer_file(6)).write_bytes(b"of nobody")
    runtime = Told(through_driver=through_driver)
    runtime.load(tmp_path)
    layers = [list(runtime.layout.layers(stage)) for stage in (0, 1)]
    files = [{index: f"layer {index}".encode() for index in each} for each in layers]
    due = [(stage, "load", (str(tmp_path), files[stage] if through_driver else None)) for stage in (0, 1)]
    assert runtime.asked == due


def test_a_file_that_is_gone_is_said_by_the_driver_that_would_send_it(tmp_path):
    with pytest.raises(StorageError, match=r"layer-001.safetensors: can't be read \(No such file"):
        Told(through_driver=True).load(tmp_path)


def test_a_failure_is_pickled_under_its_modules_own_name():
    """Run as a script, the module was ``__main__``, and the parent could not read any failure."""
    assert Failure.__module__ == "dtp_dist.runtime.stage.handshake"
    assert START.endswith("\nfrom dtp_dist.runtime.local import process\nprocess.main()\n")


def test_faults_happen_at_their_action_alone(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert faults_from_environment() is None
    monkeypatch.setenv(
        VARIABLE, "stage=1 minibatch=20 action=U do=raise; stage=0 minibatch=3 action=F do=raise"
    )
    inject = faults_from_environment()
    assert inject is not None
    update, target, forward = Kind.UPDATE, Kind.TARGET, Kind.FORWARD
    for harmless in ((update, 1, 19), (update, 0, 20), (target, 1, 20), (forward, 1, 3)):
        inject(Action(*harmless), Links())
    for faulty in (Action(update, 1, 20), Action(forward, 0, 3)):
        with pytest.raises(RuntimeError, match=f"injected fault at {faulty}"):
            inject(faulty, Links())


@pytest.mark.parametrize("text", ["stage=1", "nonsense", "stage=x minibatch=1 action=U do=kill", "do=dance"])
def test_a_fault_that_is_not_understood_says_how_to_write_it(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match="is not understood; write stage=S minibatch=K action"):
        faults_from_environment()


def test_a_process_whose_parent_is_gone_already_ends():
    code = f"from dtp_dist.system.process import signal_with_parent as d; d({os.getpid()}, 9); print('alive')"
    mine = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert mine.stdout == "alive\n"
    other = subprocess.run([sys.executable, "-c", code.replace(str(os.getpid()), "1")], check=False)
    assert other.returncode == 1
    assert callable(signal_with_parent)


def test_the_largest_message_holds_the_widest_layer_of_the_largest_minibatch():
    config = small_config("data.batch_size=40", "data.eval_batch_size=50", "model.layers.2.units=100")
    payload = 50 * (100 * 4 + 8)
    assert payload < largest_message(config) < payload + 1000
