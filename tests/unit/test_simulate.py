"""The simulation: the same as replaying the schedule one action after another, and as its drawing."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp_dist.errors import ScheduleError
from dtp_dist.planning.simulate import simulate
from dtp_dist.planning.timing import NANOSECONDS, Timing, nanoseconds
from dtp_dist.schedule import TWO_WAVES, Activity, Flow, Kind, Phase, Schedule, kinds_of, receives, sends
from dtp_dist.schedule.checking import execute

PHASES = st.sampled_from(list(Phase))
ONE_WAVE = Flow(inverse_in="U", target_reads_forward=False)
FLOWS = st.sampled_from([TWO_WAVES, Flow(inverse_in="U"), ONE_WAVE])
NAMES = {"F": "forward", "I": "inverse", "T": "target", "U": "update"}
MESSAGES = {"F": "activation", "T": "target"}


def replay(schedule: Schedule, timing: Timing, capacity: int) -> list[list[tuple[str, int, int, int]]]:
    """Replay a pipeline one action after another: slow and plain.

    Returns each stage's actions and waits: name, minibatch, start and end in nanoseconds.
    """
    rows = schedule.rows()
    spans: list[list[tuple[str, int, int, int]]] = [[] for _ in rows]
    arrivals, taken, free = defaultdict(list), defaultdict(list), defaultdict(int)
    clock, place = [0] * len(rows), [0] * len(rows)

    def of(part, kind: Kind, stage: int) -> int:
        return int(part[kind][stage]) if kind in part else 0

    def step(stage: int) -> bool:
        """Do the stage's next action if its message and the room for what it sends are known."""
        if place[stage] == len(rows[stage]):
            return False
        action = rows[stage][place[stage]]
        kind, now, add = action.kind, clock[stage], spans[stage].append
        inbox, outbox = receives(action, len(rows)), sends(action, len(rows))
        lead = of(timing.lead, kind, stage)
        if inbox and len(arrivals[inbox]) == len(taken[inbox]):
            return False
        over = 0
        if outbox and len(arrivals[outbox]) >= capacity:
            number = len(arrivals[outbox]) - capacity
            if number >= len(taken[outbox]):
                return False
            over = taken[outbox][number]
        begun = now + lead
        if inbox:
            begun = max(now, arrivals[inbox][len(taken[inbox])]) + lead
            add((f"wait for {MESSAGES[kind]}", action.minibatch, now, begun))
            taken[inbox].append(begun)
        done = begun + of(timing.actions, kind, stage)
        add((NAMES[kind], action.minibatch, begun, done))
        if outbox:
            sent = max(done, over) + of(timing.send, kind, stage)
            add((f"send {MESSAGES[kind]}", action.minibatch, done, sent))
            free[outbox] = max(sent, free[outbox]) + of(timing.transfer, kind, stage)
            arrivals[outbox].append(free[outbox] + of(timing.latency, kind, stage))
            done = sent
        clock[stage] = done
        place[stage] += 1
        return True

    while any(step(stage) for stage in range(len(rows))):
        pass
    assert place == [len(row) for row in rows], "stages wait in a circle"
    return spans


def in_nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def ones(stages: int) -> Timing:
    return Timing(stages, {kind: np.ones(stages, np.int64) for kind in Kind})


@st.composite
def pipelines(draw) -> tuple[Schedule, Timing, int]:
    stages = draw(st.integers(1, 6))
    minibatches = range(3, 3 + draw(st.integers(0, 9)))
    schedule = Schedule(stages, minibatches, draw(st.integers(1, 7)), draw(PHASES), draw(FLOWS))
    times = st.lists(st.integers(0, 9), min_size=stages, max_size=stages).map(np.array)
    links = {Kind.FORWARD: times, Kind.TARGET: times}
    parts = [dict.fromkeys(Kind, times)] * 2 + [links] * 3
    actions, lead, send, transfer, latency = (draw(st.fixed_dictionaries(part)) for part in parts)
    for part in (send, transfer, latency):
        part[Kind.FORWARD][-1] = part[Kind.TARGET][0] = 0
    targets = Kind.TARGET in kinds_of(schedule.phase, schedule.flow)
    needed = min(stages, schedule.in_flight) if targets else 1
    return schedule, Timing(stages, actions, lead, send, transfer, latency), needed + draw(st.integers(0, 3))


@pytest.mark.slow
@given(pipeline=pipelines())
@settings(max_examples=200, deadline=None)
def test_it_equals_the_replay_of_every_action(pipeline):
    schedule, timing, capacity = pipeline
    found = simulate(schedule, timing, capacity=capacity, keep=len(schedule.minibatches))
    spans = replay(schedule, timing, capacity)
    ends = [end for row in spans for *_, end in row]
    assert found.total == max(ends, default=0)
    whole = [[(*span[:2], *map(in_nanoseconds, span[2:])) for span in row] for row in found.spans()]
    assert [sorted(row) for row in whole] == [sorted(row) for row in spans]
    actions = [[each for each in row if Activity(each[0]).computes] for row in spans]
    assert found.busy.tolist() == [sum(end - start for *_, start, end in row) for row in actions]


@given(
    stages=st.integers(1, 7), count=st.integers(1, 12), in_flight=st.integers(1, 8), phase=PHASES, flow=FLOWS
)
@settings(max_examples=60, deadline=None)
def test_with_costs_of_one_it_is_the_drawing(stages, count, in_flight, phase, flow):
    schedule = Schedule(stages, range(count), in_flight, phase, flow)
    ticks = execute(schedule.rows(), capacity=1 + len(schedule.rows()[0]))
    found = simulate(schedule, ones(stages), capacity=count + stages, keep=count)
    starts = [[in_nanoseconds(span.start) for span in row if span.activity.computes] for row in found.spans()]
    assert starts == ticks


@pytest.mark.slow
@given(pipeline=pipelines(), keep=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_the_end_of_all(pipeline, keep):
    schedule, timing, capacity = pipeline
    every = simulate(schedule, timing, capacity=capacity, keep=len(schedule.minibatches))
    some = simulate(schedule, timing, capacity=capacity, keep=keep)
    first = schedule.minibatches.stop - min(keep, len(schedule.minibatches))
    assert some.total == every.total
    assert (some.finished == every.finished).all()
    assert some.spans() == [[span for span in row if span.minibatch >= first] for row in every.spans()]


def test_the_slowest_stage_sets_the_pace():
    costs = {kind: np.array([1, 5, 2], np.int64) * 10**6 for kind in Kind}
    found = simulate(Schedule(3, range(60), 3), Timing(3, costs))
    assert found.period == pytest.approx(0.020)
    exact = simulate(Schedule(3, range(60), 1), Timing(3, costs))
    around = 5 + 2 + 2 + 2 + 5 + 5  # F1, F2, I2, T2, T1, U1: stage 1 is next when its own U is over
    assert exact.period == pytest.approx(around * 1e-3)


def test_a_link_that_holds_too_little_is_refused():
    with pytest.raises(ScheduleError, match="capacity is 1; a link must hold 3 messages"):
        simulate(Schedule(3, range(4), 3), ones(3), capacity=1)


def test_seconds_become_whole_nanoseconds():
    assert nanoseconds([1e-9, 0.25, 1.5e-9 + 1e-10]).tolist() == [1, 250_000_000, 2]


@pytest.mark.parametrize(("flow", "spans"), [(TWO_WAVES, 8), (ONE_WAVE, 7)])
@pytest.mark.parametrize("in_flight", [1, 400, 1000])
@pytest.mark.slow
def test_a_thousand_stages_fit(in_flight, flow, spans):
    found = simulate(Schedule(1000, range(1000), in_flight, flow=flow), ones(1000), keep=2)
    assert len(found.finished) == 1000
    assert len(found.spans()[500]) == 2 * spans


def test_an_exact_step_of_one_wave_takes_as_long_as_one():
    """S + 1 where all actions take as long as another, and backpropagation's two waves 2 S + 1."""
    costs = Timing(16, {kind: np.full(16, 10**6, np.int64) for kind in Kind if kind is not Kind.INVERSE})
    one, two = (simulate(Schedule(16, range(60), 1, flow=flow), costs) for flow in (ONE_WAVE, TWO_WAVES))
    assert one.period == pytest.approx(17e-3)
    assert two.period == pytest.approx(33e-3)
