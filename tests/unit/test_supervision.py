"""Watching stages, on a clock that the test moves; and what a stage tells of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dtp_dist.errors import ConfigError, LinkError, NonFiniteError, StageError
from dtp_dist.runtime import local_stage
from dtp_dist.runtime.executor import Links
from dtp_dist.runtime.faults import VARIABLE, faults_from_environment
from dtp_dist.runtime.kernel import die_with_parent
from dtp_dist.runtime.last_seen import SIZE, LastSeen, new_board
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.service import largest_message
from dtp_dist.runtime.setup import Failure
from dtp_dist.runtime.supervised import failure_error
from dtp_dist.runtime.supervision import Status, Supervisor
from dtp_dist.runtime.timeline import Timeline, in_words
from dtp_dist.schedule import Action
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
    return Supervisor(LAYOUT, failure_timeout=10.0, action_timeout=60.0, clock=clock)


def status(state: str, seconds: float = 0.0, where: str = "there") -> Status:
    return Status(state, where, seconds)


def pass_time(clock: Clock, supervisor: Supervisor, seconds: int, states: dict[int, str]) -> None:
    """Let all stages of ``states`` be in their state for so long, with a sign of life each second."""
    for second in range(1, seconds + 1):
        clock.now += 1
        for stage, state in states.items():
            supervisor.heard(stage, status(state, second, f"place {stage}"))
        supervisor.check(states)


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
        "stage 1 was lost: no sign of life for 11.0 s (parallel.failure_timeout); "
        "last seen in stage 1 (layers 3-5), update, layer 4, minibatch 7"
    )


def test_a_stage_that_froze_right_after_a_sign_of_life_is_found_within_the_limit(clock, supervisor):
    """It was found up to a heartbeat later."""
    clock.now += 9.5
    for stage in (0, 2):
        supervisor.heard(stage)
    with pytest.raises(StageError, match=r"stage 1 was lost: no sign of life for 9\.5 s"):
        supervisor.check(range(3))


def test_a_stage_that_owes_nothing_may_be_silent(clock, supervisor):
    clock.now += 50
    supervisor.heard(0)
    supervisor.check([0])


def test_one_action_may_not_take_for_ever_though_its_stage_lives(supervisor):
    supervisor.heard(0, status("computing", 59.0))
    supervisor.check(range(3))
    supervisor.heard(0, status("computing", 61.0, "stage 0 (layers 1-2), forward, layer 1, minibatch 0"))
    with pytest.raises(StageError, match=r"^stage 0 .* minibatch 0: one action takes longer than 60 s"):
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
        pass_time(clock, supervisor, 20, {2: "waiting"})


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
    supervisor = Supervisor(LAYOUT, 10, 60, clock, last_seen=lambda stage: seen.get(stage, ""))
    supervisor.heard(0, status("waiting", where="old"))
    supervisor.heard(1, status("waiting", where="known"))
    assert supervisor.where(0) == "stage 0 (layers 1-2), update, minibatch 9"
    assert supervisor.where(1) == "known"


def test_shared_memory_outlives_the_process_that_wrote_it():
    board = new_board()
    code = (
        "import os, sys; from dtp_dist.runtime.last_seen import LastSeen; "
        "seen = LastSeen(int(sys.argv[1])); seen.write('a longer name', 2); "
        "seen.write('update', 3); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(board)], pass_fds=[board], check=False)
    assert ended.returncode == -signal.SIGKILL
    seen = LastSeen(board)
    assert seen.read() == "update, minibatch 3"
    seen.close()


def test_a_name_is_cut_to_its_memory():
    seen = LastSeen(new_board())
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
    with timeline.computing("forward", 4):
        clock.now += 3
        assert timeline.now == ("computing", "forward", 4, 100.0)
    with timeline.wait("wait for target", 4):
        clock.now += 2
    timeline.mark("idle", "", 4)
    assert told == [("forward", 4), ("wait for target", 4), ("idle", 4)]
    assert (timeline.busy, timeline.waiting) == (3.0, 2.0)
    spans = [(span.name, span.minibatch, span.start, span.end) for span in timeline.spans()]
    assert spans == [("forward", 4, 100.0, 103.0), ("wait for target", 4, 103.0, 105.0)]
    assert in_words("idle", "", -1) == "idle"


def test_a_timeline_keeps_the_last_minibatches_alone():
    timeline = Timeline(2)
    timeline.keeps_spans = True
    for number in range(100):
        with timeline.computing("forward", number):
            pass
    assert [span.minibatch for span in timeline.spans()] == list(range(84, 100))


def test_a_failure_of_a_stage_keeps_its_class_where_it_is_one_of_ours():
    error = failure_error(Failure("NonFiniteError", "layer 3 ...", "trace", "stage 1"))
    assert type(error) is NonFiniteError
    assert str(error) == "layer 3 ..."
    assert error.__notes__ == ["trace"]
    other = failure_error(Failure("ZeroDivisionError", "by zero", "trace", "stage 1 (layer 3), update"))
    assert type(other) is StageError
    assert str(other) == "stage 1 (layer 3), update: ZeroDivisionError: by zero"


def test_a_failure_is_pickled_under_its_modules_own_name():
    """Run by ``-m``, the module was ``__main__``, and the parent could not read any failure."""
    assert Failure.__module__ == "dtp_dist.runtime.setup"
    source = Path(local_stage.__file__).read_text()
    assert "local_stage.main()" in source.split('if __name__ == "__main__":')[1]


def test_faults_happen_at_their_action_alone(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert faults_from_environment() is None
    monkeypatch.setenv(
        VARIABLE, "stage=1 minibatch=20 action=U do=raise; stage=0 minibatch=3 action=F do=raise"
    )
    inject = faults_from_environment()
    assert inject is not None
    for harmless in ("1U19", "0U20", "1T20", "1F3"):
        inject(Action.parse(harmless), Links())
    for faulty in ("1U20", "0F3"):
        with pytest.raises(RuntimeError, match=f"injected fault at {faulty}"):
            inject(Action.parse(faulty), Links())


@pytest.mark.parametrize("text", ["stage=1", "nonsense", "stage=x minibatch=1 action=U do=kill", "do=dance"])
def test_a_fault_that_is_not_understood_says_how_to_write_it(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match="is not understood; write stage=S minibatch=K action"):
        faults_from_environment()


def test_a_process_whose_parent_is_gone_already_ends():
    code = f"from dtp_dist.runtime.kernel import die_with_parent as d; d({os.getpid()}, 9); print('alive')"
    mine = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert mine.stdout == "alive\n"
    other = subprocess.run([sys.executable, "-c", code.replace(str(os.getpid()), "1")], check=False)
    assert other.returncode == 1
    assert callable(die_with_parent)


def test_the_largest_message_holds_the_widest_layer_of_the_largest_minibatch():
    config = small_config("data.batch_size=40", "data.eval_batch_size=50", "model.layers.0.units=100")
    payload = 50 * (100 * 4 + 8)
    assert payload < largest_message(config) < payload + 1000
