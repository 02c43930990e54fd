"""A run as a list of parts: the segments between two drains, and what happens at the drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from dtp_dist.config import Config
from dtp_dist.runtime.layout import layout_of
from dtp_dist.runtime.segment import Segment
from dtp_dist.schedule import Flow, Phase, Schedule, validate


@dataclass(frozen=True)
class Part:
    """Segments up to ``end`` minibatches done, and what comes at the drain."""

    segments: tuple[Segment, ...]
    end: int
    ends_epoch: bool
    checkpoint: bool
    evaluate: bool


def total_steps(config: Config, per_epoch: int) -> int:
    """Return the number of minibatches of a whole run."""
    steps = config.train.epochs * per_epoch
    return min(steps, config.train.max_steps or steps)


def parts(config: Config, per_epoch: int, start: int = 0) -> Iterator[Part]:
    """Yield the parts of a run from minibatch ``start`` on, ``per_epoch`` minibatches to the epoch.

    The last part always ends in a checkpoint and an evaluation. With ``rule.update_order=epoch``, or where
    the rule has passes of inverse updates of its own, an epoch begins with them, over all of its minibatches;
    a run that starts inside an epoch has them behind it.
    """
    train, total = config.train, total_steps(config, per_epoch)
    while start < total:
        epoch, offset = divmod(start, per_epoch)
        epoch_end = min((epoch + 1) * per_epoch, total)
        every = train.checkpoint_every
        end = epoch_end if every is None else min(epoch_end, (start // every + 1) * every)
        ends_epoch = end == (epoch + 1) * per_epoch
        done = end == total
        evaluated = train.evaluate_every and (epoch + 1) % train.evaluate_every == 0
        yield Part(
            segments=tuple(_segments(config, epoch, start, end, epoch_end, offset)),
            end=end,
            ends_epoch=ends_epoch,
            checkpoint=done or (ends_epoch if every is None else end % every == 0),
            evaluate=done or bool(ends_epoch and evaluated),
        )
        start = end


def _segments(
    config: Config, epoch: int, start: int, end: int, epoch_end: int, offset: int
) -> Iterator[Segment]:
    for repeat in range(_inverse_passes(config, epoch) if offset == 0 else 0):
        yield Segment(Phase.INVERSE, "train", epoch, start, epoch_end - start, 0, repeat=repeat)
    phase = Phase.BOTH if config.rule.update_order == "minibatch" else Phase.FORWARD
    yield Segment(phase, "train", epoch, start, end - start, offset)


def _inverse_passes(config: Config, epoch: int) -> int:
    """Return how many passes of inverse updates alone an epoch begins with."""
    rule = config.rule
    if not config.build_rule().learned_inverses():
        return 0
    further = int(rule.inverse_pass) if epoch else rule.inverse_passes_first
    return further + (rule.update_order == "epoch")


def check_schedules(config: Config, per_epoch: int, start: int) -> None:
    """Check the schedules of all that is left to run, before anybody waits: it takes seconds for many stages.

    Raises:
        ScheduleError: one breaks a rule.
    """
    layout = layout_of(config)
    for part in parts(config, per_epoch, start):
        for segment in part.segments:
            _check(layout.stages, layout.in_flight, segment.phase, layout.flow, segment.count)


@cache
def _check(stages: int, in_flight: int, phase: Phase, flow: Flow, count: int) -> None:
    """Check one; each of a run's few different ones is checked once."""
    schedule = Schedule(stages, range(count), in_flight, phase, flow)
    validate(schedule.rows(), schedule)


def evaluation(split: str, epoch: int, count: int, passes: int = 1) -> Segment:
    """Return the segment that evaluates a split of ``count`` minibatches, each ``passes`` times."""
    return Segment(Phase.EVALUATE, split, epoch, 0, count * passes, 0, passes)
