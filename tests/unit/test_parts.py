"""A run's parts, from properties that hold for every configuration."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp_dist.config import Config
from dtp_dist.runtime.segment import Segment
from dtp_dist.schedule import Phase
from dtp_dist.training.parts import Part, evaluation, parts, total_steps
from runs import small_config

BASE = small_config()
BACKPROP = small_config("rule={name: backprop}")
FIXED = small_config("rule={name: fw_dtp}")
IN_UPDATE = small_config("rule={name: ccl}")
LEARNING = ("dtp", "ccl")  # rules whose inverses do


@st.composite
def configs(draw: st.DrawFn) -> Config:
    base = draw(st.sampled_from([BASE, BACKPROP, FIXED, IN_UPDATE]))
    train = replace(
        base.train,
        epochs=draw(st.integers(1, 5)),
        max_steps=draw(st.none() | st.integers(1, 40)),
        checkpoint_every=draw(st.none() | st.integers(1, 12)),
        evaluate_every=draw(st.integers(0, 3)),
    )
    update_order = draw(st.sampled_from(["minibatch", "epoch"]))
    return replace(base, train=train, rule=replace(base.rule, update_order=update_order))


PER_EPOCH = st.integers(1, 9)


def learning(part: Part) -> Segment:
    """Return the segment of a part that updates forward maps: its last."""
    return part.segments[-1]


@given(configs(), PER_EPOCH)
def test_every_minibatch_is_trained_once_in_order(config, per_epoch):
    trained = [number for part in parts(config, per_epoch) for number in learning(part).minibatches]
    assert trained == list(range(total_steps(config, per_epoch)))


@given(configs(), PER_EPOCH)
def test_the_total_is_cut_by_max_steps(config, per_epoch):
    total = total_steps(config, per_epoch)
    assert total == min(config.train.epochs * per_epoch, config.train.max_steps or 10**9)
    assert list(parts(config, per_epoch))[-1].end == total


@given(configs(), PER_EPOCH)
def test_every_segment_lies_in_its_epoch_at_its_place(config, per_epoch):
    for part in parts(config, per_epoch):
        for segment in part.segments:
            assert segment.split == "train"
            assert segment.count > 0
            for number in segment.minibatches:
                assert divmod(number, per_epoch) == (segment.epoch, segment.index(number))
        assert part.end == learning(part).first + learning(part).count
        assert part.ends_epoch == (part.end % per_epoch == 0)


@pytest.mark.slow
@given(configs(), PER_EPOCH)
def test_checkpoints_are_where_they_were_asked_for_and_at_the_end(config, per_epoch):
    total, every = total_steps(config, per_epoch), config.train.checkpoint_every
    found = [part.end for part in parts(config, per_epoch) if part.checkpoint]
    asked = set(range(every or per_epoch, total + 1, every or per_epoch))
    assert found == sorted(asked | {total})


@given(configs(), PER_EPOCH)
def test_evaluations_are_where_they_were_asked_for_and_at_the_end(config, per_epoch):
    total, every = total_steps(config, per_epoch), config.train.evaluate_every
    found = [part.end for part in parts(config, per_epoch) if part.evaluate]
    asked = set(range(every * per_epoch, total + 1, every * per_epoch)) if every else set()
    assert found == sorted(asked | {total})


@given(configs(), PER_EPOCH)
def test_nothing_else_drains_the_pipeline(config, per_epoch):
    """Parts end with an epoch, at a checkpoint or at the run's end."""
    total, every = total_steps(config, per_epoch), config.train.checkpoint_every
    for part in parts(config, per_epoch):
        at_checkpoint = every is not None and part.end % every == 0
        assert part.ends_epoch or at_checkpoint or part.end == total


@given(configs(), PER_EPOCH)
def test_phases_follow_the_alternation(config, per_epoch):
    phases = [segment.phase for part in parts(config, per_epoch) for segment in part.segments]
    if config.rule.update_order == "minibatch":
        assert set(phases) == {Phase.BOTH}
    elif config.rule.name not in LEARNING:
        assert set(phases) == {Phase.FORWARD}
    else:
        assert phases[0] is Phase.INVERSE
        assert all(Phase.FORWARD in pair for pair in pairwise(phases))


@given(configs(), PER_EPOCH)
def test_an_epoch_begins_with_inverse_updates_over_exactly_its_minibatches(config, per_epoch):
    if config.rule.update_order == "minibatch" or config.rule.name not in LEARNING:
        return
    total = total_steps(config, per_epoch)
    inverse = [
        list(segment.minibatches)
        for part in parts(config, per_epoch)
        for segment in part.segments
        if segment.phase is Phase.INVERSE
    ]
    every = list(range(total))
    assert inverse == [every[start : start + per_epoch] for start in range(0, total, per_epoch)]


@given(configs(), PER_EPOCH, st.data())
def test_a_run_that_starts_at_a_checkpoint_has_the_rest_of_the_parts(config, per_epoch, data):
    whole = list(parts(config, per_epoch))
    cut = data.draw(st.integers(0, len(whole) - 1))
    start = whole[cut - 1].end if cut else 0
    assert list(parts(config, per_epoch, start)) == whole[cut:]


def test_a_run_that_is_over_has_no_parts():
    assert list(parts(BASE, 30, start=30)) == []


def test_an_evaluation_is_all_of_a_split():
    segment = evaluation("test", 3, 7)
    assert (segment.phase, segment.split, segment.epoch) == (Phase.EVALUATE, "test", 3)
    assert list(segment.minibatches) == list(range(7))
    assert not segment.trains
