"""Schedules: what the generator makes, what validation refuses, and how it is drawn."""

import inspect
import itertools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp_dist import schedule as module
from dtp_dist.errors import ScheduleError
from dtp_dist.schedule import (
    TWO_WAVES,
    Action,
    Flow,
    Kind,
    Link,
    Phase,
    Schedule,
    delay,
    draw,
    effective_in_flight,
    receives,
    sends,
    stage_actions,
    validate,
    window,
)
from dtp_dist.schedule import __main__ as drawing

LETTERS = {Phase.BOTH: "FITU", Phase.INVERSE: "FI", Phase.FORWARD: "FTU", Phase.EVALUATE: "F"}
IN_UPDATE = Flow(inverse_in="U")
ONE_WAVE = Flow(inverse_in="U", target_reads_forward=False)
FLOWS = [TWO_WAVES, IN_UPDATE, ONE_WAVE]
TRAINING = [Phase.BOTH, Phase.FORWARD]
ROOT = Path(__file__).parents[2]

relaxed = settings(deadline=None, max_examples=200)  # a shared machine may pause


@st.composite
def schedules(draw_value, phases=tuple(Phase), stages=(1, 12), minibatches=(1, 40), flows=(TWO_WAVES,)):
    first = draw_value(st.integers(0, 3))
    return Schedule(
        stages=draw_value(st.integers(*stages)),
        minibatches=range(first, first + draw_value(st.integers(*minibatches))),
        in_flight=draw_value(st.integers(1, 16)),
        phase=draw_value(st.sampled_from(phases)),
        flow=draw_value(st.sampled_from(flows)),
    )


def letters(schedule):
    """The actions of a minibatch in a stage that F reaches first."""
    in_update = schedule.flow.inverse_in == "U" and schedule.phase is not Phase.EVALUATE
    return "FTU" if in_update else LETTERS[schedule.phase]


def text(actions):
    return " ".join(f"{action.kind}{action.minibatch}" for action in actions)


def parsed(text: str) -> Action:
    """Return the action that prints so."""
    found = re.fullmatch(r"(\d+)([FITU])(\d+)", text)
    assert found is not None
    return Action(Kind(found[2]), int(found[1]), int(found[3]))


def rows_of(*lines):
    """Rows from lines such as `F0 T0 U0`, one per stage."""
    return [[parsed(f"{stage}{cell}") for cell in line.split()] for stage, line in enumerate(lines)]


def simple(rows, in_flight, phase=Phase.FORWARD):
    """The schedule that `rows` claim to be: all minibatches up to the highest one in them."""
    highest = max(action.minibatch for row in rows for action in row)
    return Schedule(len(rows), range(highest + 1), in_flight, phase)


def cells_of(drawing):
    return [line.split("|")[1].split() for line in drawing.splitlines()]


# What the generator makes


@pytest.mark.slow
@relaxed
@given(schedules(flows=FLOWS))
def test_every_schedule_is_valid(schedule):
    validate(schedule.rows(), schedule)


@pytest.mark.slow
@relaxed
@given(schedules(flows=[TWO_WAVES, IN_UPDATE]))
def test_one_slot_per_link_is_enough(schedule):
    validate(schedule.rows(), schedule, 1)


@pytest.mark.slow
@relaxed
@given(schedules(flows=[ONE_WAVE]))
def test_two_slots_per_link_are_enough_for_waves_that_meet(schedule):
    """Where they do, both stages send before they take, so that one slot is not."""
    validate(schedule.rows(), schedule, 2)
    if schedule.in_flight == 1:
        validate(schedule.rows(), schedule, 1)


@relaxed
@given(schedules(flows=FLOWS))
def test_every_action_of_the_phase_is_there_once(schedule):
    for stage in range(schedule.stages):
        counts = Counter(str(action) for action in schedule.actions(stage))
        wanted = {f"{stage}{kind}{k}" for kind in letters(schedule) for k in schedule.minibatches}
        assert counts == dict.fromkeys(wanted, 1)


@relaxed
@given(st.integers(1, 12), st.integers(0, 40), st.sampled_from(list(Phase)))
def test_one_in_flight_does_minibatch_after_minibatch(stages, count, phase):
    wanted = " ".join(f"{kind}{k}" for k in range(count) for kind in LETTERS[phase])
    for stage in range(stages):
        assert text(stage_actions(stage, stages, range(count), 1, phase)) == wanted


@relaxed
@given(schedules(phases=TRAINING))
def test_window_is_the_forwards_before_the_first_target(schedule):
    for stage in range(schedule.stages):
        kinds = [action.kind for action in schedule.actions(stage)]
        forwards = kinds[: kinds.index(Kind.TARGET)].count(Kind.FORWARD)
        w = window(stage, schedule.stages, schedule.in_flight)
        assert forwards == min(w, len(schedule.minibatches))
        assert w == min(schedule.in_flight, schedule.stages - stage)


@relaxed
@given(schedules(phases=TRAINING, flows=FLOWS))
def test_delay_is_the_updates_between_forward_and_update(schedule):
    for stage in range(schedule.stages):
        row = list(schedule.actions(stage))
        steady = delay(stage, schedule.stages, schedule.in_flight, schedule.flow)
        for since_start, k in enumerate(schedule.minibatches):
            begin = row.index(Action(Kind.FORWARD, stage, k))
            end = row.index(Action(Kind.UPDATE, stage, k))
            updates = sum(action.kind is Kind.UPDATE for action in row[begin:end])
            assert updates == min(since_start, steady)


@relaxed
@given(schedules(phases=TRAINING))
def test_never_more_than_the_window_between_forward_and_update(schedule):
    for stage in range(schedule.stages):
        steps = [{"F": 1, "U": -1}.get(action.kind, 0) for action in schedule.actions(stage)]
        most = max(itertools.accumulate(steps))
        assert most <= min(schedule.in_flight, schedule.stages - stage)


@relaxed
@given(schedules(flows=FLOWS))
def test_more_in_flight_than_stages_changes_nothing(schedule):
    depth = effective_in_flight(schedule.stages, schedule.in_flight)
    assert depth == min(schedule.in_flight, schedule.stages)
    assert replace(schedule, in_flight=depth).rows() == schedule.rows()


# Where T needs nothing of F


@relaxed
@given(st.integers(1, 12), st.integers(1, 40), st.sampled_from(TRAINING))
def test_waves_that_meet_come_in_the_order_in_which_they_arrive(stages, count, phase):
    """On equal stages F takes ``stage`` steps to come and T ``stages - 1 - stage``."""
    schedule = Schedule(stages, range(count), 1, phase, ONE_WAVE)
    for stage, row in enumerate(schedule.rows()):
        first = "FTU" if stage <= stages - 1 - stage else "TFU"
        assert text(row) == " ".join(f"{kind}{k}" for k in range(count) for kind in first)


@relaxed
@given(schedules(phases=TRAINING, flows=[ONE_WAVE]))
def test_windows_are_widest_at_both_ends(schedule):
    stages, depth = schedule.stages, effective_in_flight(schedule.stages, schedule.in_flight)
    windows = [window(stage, stages, schedule.in_flight, ONE_WAVE) for stage in range(stages)]
    assert windows == windows[::-1]
    assert windows[: -(-stages // 2)] == sorted(windows[: -(-stages // 2)], reverse=True)
    assert windows[0] == depth
    for stage in range(stages):
        kinds = [action.kind for action in schedule.actions(stage)]
        ahead = kinds.index(Kind.TARGET if kinds[0] is Kind.FORWARD else Kind.FORWARD)
        assert ahead == min(windows[stage], len(schedule.minibatches))
        steps = [{kinds[0]: 1, Kind.UPDATE: -1}.get(kind, 0) for kind in kinds]
        assert max(itertools.accumulate(steps)) <= windows[stage]


@relaxed
@given(st.integers(1, 12))
def test_an_exact_step_of_waves_that_meet_takes_as_long_as_one(stages):
    """S + 1 ticks with the updates; one more below an odd number's middle, which has both to do at once."""
    one = Schedule(stages, range(1), 1, Phase.BOTH, ONE_WAVE)
    assert len(cells_of(draw(one.rows()))[0]) == stages + 1 + stages % 2
    assert len(cells_of(draw(replace(one, flow=IN_UPDATE).rows()))[0]) == 2 * stages + 1


def test_rows_of_waves_that_meet_by_hand():
    rows = Schedule(4, range(3), 2, Phase.BOTH, ONE_WAVE).rows()
    assert text(rows[0]) == "F0 F1 T0 U0 F2 T1 U1 T2 U2"
    assert text(rows[1]) == "F0 T0 U0 F1 T1 U1 F2 T2 U2"
    assert text(rows[2]) == "T0 F0 U0 T1 F1 U1 T2 F2 U2"
    assert text(rows[3]) == "T0 T1 F0 U0 T2 F1 U1 F2 U2"
    assert text(Schedule(2, range(2), 2, Phase.EVALUATE, ONE_WAVE).rows()[1]) == "F0 F1"


@pytest.mark.parametrize(
    ("row", "marked", "reason"),
    [
        ("F0 T0 U0", "1F0", "comes before 1T0"),
        ("T0 U0 F0", "1U0", "comes before 1F0"),
        ("T0 T1 F0 U0 F1 U1", "1T1", "comes before 1U0"),
        ("T0 F0", "1U0", "is missing"),
    ],
)
def test_a_row_that_t_reaches_first_and_that_breaks_a_rule(row, marked, reason):
    rows = rows_of("F0 T0 U0 F1 T1 U1" if "1" in row else "F0 T0 U0", row)
    count = 2 if "1" in row else 1
    message = refusal(rows, Schedule(2, range(count), 1, Phase.FORWARD, ONE_WAVE))
    assert is_marked(message, marked)
    assert reason in message.splitlines()[0]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"inverse_in": "T"}, "inverse_in is 'T'; it must be 'I' or 'U'"),
        ({"target_reads_forward": False}, "goes with inverse_in='U'"),
    ],
)
def test_a_flow_that_no_rule_can_have(values, named):
    with pytest.raises(ValueError, match=named):
        Flow(**values)


def test_rows_by_hand():
    assert text(stage_actions(0, 2, range(3), 2, Phase.BOTH)) == "F0 I0 F1 I1 T0 U0 F2 I2 T1 U1 T2 U2"
    assert text(stage_actions(1, 2, range(3), 2, Phase.BOTH)) == "F0 I0 T0 U0 F1 I1 T1 U1 F2 I2 T2 U2"
    assert text(stage_actions(0, 3, range(5, 9), 3, Phase.FORWARD)) == "F5 F6 F7 T5 U5 F8 T6 U6 T7 U7 T8 U8"


@pytest.mark.parametrize("phase", Phase)
def test_fewer_minibatches_than_the_window(phase):
    whole = Schedule(8, range(2), 8, phase)
    validate(whole.rows(), whole)
    empty = Schedule(3, range(0), 3, phase)
    validate(empty.rows(), empty)
    assert empty.rows() == [[], [], []]


def test_actions_are_made_as_they_are_asked_for():
    endless = stage_actions(0, 1000, range(10**12), 64, Phase.BOTH)
    assert text(itertools.islice(endless, 3)) == "F0 I0 F1"


@pytest.mark.parametrize(
    ("stage", "stages", "minibatches", "in_flight", "message"),
    [
        (0, 0, range(1), 1, "stages is 0; it must be at least 1"),
        (0, 1, range(1), 0, "in_flight is 0; it must be at least 1"),
        (4, 4, range(1), 1, r"stage is 4; .* one of 0\.\.3"),
        (-1, 4, range(1), 1, r"stage is -1; .* one of 0\.\.3"),
        (0, 4, range(0, 9, 2), 1, r"minibatches is range\(0, 9, 2\); .* step 1"),
        (0, 4, range(-2, 9), 1, r"minibatches is range\(-2, 9\); .* start at 0"),
    ],
)
def test_arguments_that_make_no_schedule(stage, stages, minibatches, in_flight, message):
    with pytest.raises(ScheduleError, match=message):
        stage_actions(stage, stages, minibatches, in_flight, Phase.BOTH)


@pytest.mark.parametrize("values", [(0, range(3), 1), (2, range(3), 0), (2, range(-1, 3), 1)])
def test_a_schedule_fails_when_it_is_made(values):
    with pytest.raises(ScheduleError):
        Schedule(*values)


# Actions and links


def test_an_action_prints_as_stage_letter_and_minibatch():
    assert str(Action(kind=Kind.TARGET, stage=12, minibatch=345)) == "12T345"
    assert f"{Action(Kind.FORWARD, 2, 0)}" == "2F0"


@pytest.mark.parametrize(
    ("action", "inbox", "outbox"),
    [
        ("0F7", None, "activation link 0->1"),
        ("1F7", "activation link 0->1", "activation link 1->2"),
        ("2F7", "activation link 1->2", None),
        ("2T7", None, "target link 2->1"),
        ("1T7", "target link 2->1", "target link 1->0"),
        ("0T7", "target link 1->0", None),
        ("1I7", None, None),
        ("1U7", None, None),
    ],
)
def test_what_is_received_and_sent_among_three_stages(action, inbox, outbox):
    links = receives(parsed(action), 3), sends(parsed(action), 3)
    assert tuple(link and str(link) for link in links) == (inbox, outbox)


def test_a_single_stage_needs_no_links():
    for kind in Kind:
        assert receives(Action(kind, 0, 0), 1) is None
        assert sends(Action(kind, 0, 0), 1) is None


def test_a_link_is_the_same_value_at_both_ends():
    assert sends(parsed("0F3"), 2) == receives(parsed("1F3"), 2) == Link(0, 1, Kind.FORWARD)


# What validation refuses


def refusal(rows, schedule, capacity=None):
    with pytest.raises(ScheduleError) as caught:
        validate(rows, schedule, capacity)
    return str(caught.value)


def is_marked(message, action):
    headline, *listing = message.splitlines()
    return str(action) in headline and any(f">{action}<" in line.split() for line in listing)


@relaxed
@given(schedules(flows=FLOWS), st.data())
def test_a_dropped_action_is_named(schedule, data):
    rows = schedule.rows()
    row = data.draw(st.sampled_from(rows))
    dropped = row.pop(data.draw(st.integers(0, len(row) - 1)))
    assert str(dropped) in refusal(rows, schedule).splitlines()[0]


@relaxed
@given(schedules(flows=FLOWS), st.data())
def test_a_repeated_action_is_named_and_marked(schedule, data):
    rows = schedule.rows()
    row = data.draw(st.sampled_from(rows))
    position = data.draw(st.integers(0, len(row) - 1))
    row.insert(data.draw(st.integers(position + 1, len(row))), row[position])
    message = refusal(rows, schedule)
    assert is_marked(message, row[position])
    assert "second time" in message


@pytest.mark.slow
@relaxed
@given(schedules(phases=[Phase.BOTH, Phase.INVERSE, Phase.FORWARD]), st.data())
def test_two_swapped_actions_of_a_minibatch_are_named(schedule, data):
    rows = schedule.rows()
    row = data.draw(st.sampled_from(rows))
    k = data.draw(st.sampled_from(schedule.minibatches))
    positions = [p for p, action in enumerate(row) if action.minibatch == k]
    p, q = sorted(data.draw(st.permutations(positions))[:2])
    row[p], row[q] = row[q], row[p]
    message = refusal(rows, schedule)
    assert is_marked(message, row[p])
    assert f"comes before {row[q]}" in message or len(positions) > 2


@relaxed
@given(schedules(stages=(2, 12), minibatches=(2, 40), flows=FLOWS), st.data())
def test_two_minibatches_swapped_in_one_stage_are_refused(schedule, data):
    """The row is sound by itself; only its neighbours see that it takes minibatches in another order."""
    rows = schedule.rows()
    stage = data.draw(st.integers(0, schedule.stages - 1))
    a, b = data.draw(st.permutations(schedule.minibatches))[:2]
    other = {a: b, b: a}
    rows[stage] = [
        action._replace(minibatch=other.get(action.minibatch, action.minibatch)) for action in rows[stage]
    ]
    headline, *listing = refusal(rows, schedule).splitlines()
    assert "wrong order on the" in headline
    marked = [parsed(cell.strip("><")) for line in listing for cell in line.split() if cell[0] == ">"]
    assert len(marked) == 1
    assert marked[0].minibatch in (a, b)
    assert str(marked[0]) in headline


@pytest.mark.parametrize(
    ("phase", "row", "marked", "reason"),
    [
        (Phase.BOTH, "F0 I0 U0 T0", "0U0", "comes before 0T0"),
        (Phase.BOTH, "I0 F0 T0 U0", "0I0", "comes before 0F0"),
        (Phase.BOTH, "F0 T0 U0", "0T0", "comes before 0I0"),
        (Phase.FORWARD, "T0 F0 U0", "0T0", "comes before 0F0"),
        (Phase.FORWARD, "F0 T0", "0U0", "is missing"),
        (Phase.FORWARD, "F0 F1 T0 U0 T1 U1", "0F1", "comes before 0U0"),
        (Phase.FORWARD, "F0 T0 U0 U0", "0U0", "comes a second time"),
        (Phase.FORWARD, "F0 I0 T0 U0", "0I0", "has no place"),
        (Phase.EVALUATE, "F0 T0", "0T0", "has no place"),
        (Phase.INVERSE, "F0 I0 F1", "0I1", "is missing"),
    ],
)
def test_a_row_that_breaks_a_rule(phase, row, marked, reason):
    rows = rows_of(row)
    message = refusal(rows, simple(rows, in_flight=1, phase=phase))
    assert is_marked(message, marked)
    assert reason in message.splitlines()[0]


def test_the_message_lists_the_schedule_around_the_failing_action():
    rows = Schedule(3, range(100), 2).rows()
    position = rows[1].index(parsed("1T50"))
    rows[1][position : position + 2] = reversed(rows[1][position : position + 2])
    message = refusal(rows, Schedule(3, range(100), 2))
    assert message.splitlines()[0] == "1U50 comes before 1T50"
    assert "1F51 1I51 >1U50< 1T50 1F52" in message
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == ["stage 0", "stage 1", "stage 2"]
    assert max(map(len, message.splitlines())) < 120


def test_foreign_actions_and_rows_are_refused():
    two = Schedule(2, range(1), 2, Phase.EVALUATE)
    assert is_marked(refusal(rows_of("F0", "F0")[::-1], two), "1F0")
    assert is_marked(refusal(rows_of("F0", "F0 F7"), two), "1F7")
    assert "1 rows of actions for 2 stages" in refusal(rows_of("F0"), two)


def test_a_circle_is_refused_and_its_actions_are_named():
    rows = rows_of("F0 T0 U0 F1 T1 U1", "F0 F1 T0 U0 T1 U1", "F0 T0 U0 F1 T1 U1")
    message = refusal(rows, simple(rows, in_flight=3))
    assert "wait in a circle" in message
    assert is_marked(message, "0T0")
    assert is_marked(message, "1F1")
    assert "0T0 waits to receive on the target link 1->0" in message
    assert "1F1 waits to receive on the activation link 0->1" in message
    with pytest.raises(ScheduleError, match="wait in a circle"):
        draw(rows)


def test_full_links_can_close_a_circle():
    """Stage 0 runs ahead and stage 1 does not: with one slot, both wait to send to the other."""
    eager = "F0 F1 F2 F3 T0 U0 T1 U1 T2 U2 T3 U3"
    careful = "F0 T0 U0 F1 T1 U1 F2 T2 U2 F3 T3 U3"
    rows = rows_of(eager, careful, careful, careful)
    schedule = simple(rows, in_flight=4)
    validate(rows, schedule)
    validate(rows, schedule, capacity=2)
    message = refusal(rows, schedule, capacity=1)
    assert "0F3 waits to send on the activation link 0->1" in message
    assert "1T1 waits to send on the target link 1->0" in message
    assert is_marked(message, "0F3")
    assert is_marked(message, "1T1")


def test_capacity_must_hold_a_message():
    with pytest.raises(ScheduleError, match="capacity is 0"):
        validate([], Schedule(2, range(3), 2), 0)


def calls_of(work: Callable[[], object]) -> int:
    """Return how many calls of functions, Python's and C's, some work makes, on any processor."""
    calls = 0

    def count(_frame: object, event: str, _what: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_validation_is_linear_in_the_number_of_actions():
    """For a run's thousands of minibatches it takes no time that anybody waits for."""
    few, many = (Schedule(8, range(count), 8) for count in (50, 500))
    calls = [calls_of(partial(validate, each.rows(), each)) for each in (few, many)]
    actions = [sum(map(len, each.rows())) for each in (few, many)]
    assert calls[1] <= 30 * actions[1]
    assert calls[1] / actions[1] == pytest.approx(calls[0] / actions[0], rel=0.05)


# The drawing


def test_the_drawing_in_the_docstring_is_what_draw_prints():
    one_wave = Schedule(4, range(3), 1, flow=ONE_WAVE)
    for schedule in (Schedule(3, range(4), 3), one_wave):
        assert f"\n\n{draw(schedule.rows())}" in inspect.getdoc(module)


def test_a_drawing_by_hand():
    assert draw(Schedule(2, range(1), 1).rows()).splitlines() == [
        "stage 0 | F0 I0 .  .  T0 U0",
        "stage 1 | .  F0 I0 T0 U0 .",
    ]
    assert draw(Schedule(2, range(3), 2, Phase.EVALUATE).rows()).splitlines() == [
        "stage 0 | F0 F1 F2 .",
        "stage 1 | .  F0 F1 F2",
    ]


def test_columns_are_aligned():
    lines = draw(Schedule(11, range(12), 4).rows()).splitlines()
    assert lines[0].startswith("stage  0 | F0  I0  F1 ")
    assert lines[10].startswith("stage 10 | .   .   . ")
    starts = {column for line in lines for column, c in enumerate(line) if c in "FITU."}
    assert {(column - len("stage 10 | ")) % 4 for column in starts} == {0}


@relaxed
@given(schedules(stages=(1, 6), minibatches=(1, 12), flows=FLOWS))
def test_a_drawing_starts_everything_as_early_as_it_can(schedule):
    cells = cells_of(draw(schedule.rows()))
    tick = {f"{s}{cell}": t for s, row in enumerate(cells) for t, cell in enumerate(row) if cell != "."}
    last = schedule.stages - 1
    for stage, row in enumerate(schedule.rows()):
        assert [cell for cell in cells[stage] if cell != "."] == text(row).split()
        free = 0
        for kind, _, k in row:
            arrival = 0
            if kind == "F" and stage > 0:
                arrival = tick[f"{stage - 1}F{k}"] + 1
            if kind == "T" and stage < last:
                arrival = tick[f"{stage + 1}T{k}"] + 1
            assert tick[f"{stage}{kind}{k}"] == max(free, arrival)
            free = tick[f"{stage}{kind}{k}"] + 1


@relaxed
@given(st.integers(1, 12))
def test_an_exact_step_is_one_forward_wave_and_one_target_wave(stages):
    """Updates are off the critical path, and of the inverse updates only the last stage's is on it."""
    assert len(cells_of(draw(Schedule(stages, range(1), 1, Phase.FORWARD).rows()))[0]) == 2 * stages + 1
    assert len(cells_of(draw(Schedule(stages, range(1), 1, Phase.BOTH).rows()))[0]) == 2 * stages + 2


@relaxed
@given(schedules(phases=TRAINING, flows=[TWO_WAVES, IN_UPDATE]))
def test_a_full_pipeline_keeps_its_last_stage_busy(schedule):
    deep = replace(schedule, in_flight=schedule.stages)
    last = cells_of(draw(deep.rows()))[-1]
    busy = len(deep.minibatches) * len(letters(deep))
    assert "." not in last[schedule.stages - 1 : schedule.stages - 1 + busy]


# The command line


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dtp_dist.schedule", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_the_command_prints_the_drawing():
    done = command("--stages", "4", "--minibatches", "6", "--in-flight", "4", "--phase", "forward")
    assert done.returncode == 0
    assert done.stdout == draw(Schedule(4, range(6), 4, Phase.FORWARD).rows()) + "\n"
    assert done.stderr == ""
    one_wave = command("--stages", "4", "--minibatches", "3", "--in-flight", "1", "--one-wave")
    assert one_wave.stdout.strip() in inspect.getdoc(module)
    default = command("--stages", "3", "--minibatches", "4", "--in-flight", "3")
    assert default.stdout.strip() in inspect.getdoc(module)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--stages 0 --minibatches 6 --in-flight 4", "stages is 0"),
        ("--stages 4 --minibatches 6 --in-flight 0", "in_flight is 0"),
        ("--stages 4 --minibatches -6 --in-flight 1", "minibatches is -6"),
        ("--stages 4 --minibatches six --in-flight 1", "'six'"),
        ("--stages 4 --minibatches 6 --in-flight 1 --phase later", "'later'"),
        ("--stages 4", "--minibatches"),
    ],
)
def test_the_command_refuses_bad_values_in_one_line(arguments, named, capsys):
    with pytest.raises(SystemExit) as ended:
        drawing.main(arguments.split())
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert named in printed.err


def test_the_process_ends_with_code_2():
    done = command("--stages", "0", "--minibatches", "6", "--in-flight", "4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["python -m dtp_dist.schedule: stages is 0; it must be at least 1"]
