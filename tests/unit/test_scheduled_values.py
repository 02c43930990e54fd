"""Numbers that change over time: their formulas, their clocks and their error messages."""

import math

import pytest
import torch

from dtp_dist.algorithm.layers import InverseOptions
from dtp_dist.algorithm.optimizers.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    InverseTime,
    Number,
    Step,
    scheduled,
)
from dtp_dist.config.parse import parse_options
from dtp_dist.errors import ConfigError

MORE = {"inverse_time": {"half": 2.0}, "step": {"factor": 0.5, "every": 2}, "cosine": {"length": 9}}
"""What schedules need besides their start."""


def at(number: Number, epochs, minibatch: int = 0) -> list[float]:
    return [scheduled(number)(epoch, minibatch) for epoch in epochs]


def parsed(value) -> Number:
    return parse_options(InverseOptions, {"sigma": value}).sigma


@pytest.mark.parametrize("number", [0.25, 3, Constant(start=0.25)])
def test_constant(number):
    expected = number.start if isinstance(number, Constant) else float(number)
    assert at(number, [0, 1, 1000]) == [expected] * 3


def test_inverse_time_is_the_papers_decay_with_epochs_from_one():
    found = at(InverseTime(start=0.5, half=50), range(500))
    assert found == pytest.approx([0.5 / (1 + epoch / 50) for epoch in range(1, 501)], rel=1e-14)
    assert found[49] == 0.25


def test_step():
    found = at(Step(start=0.8, factor=0.5, every=3), range(10))
    assert found == pytest.approx([0.8] * 3 + [0.4] * 3 + [0.2] * 3 + [0.1])


def test_cosine():
    found = at(Cosine(start=0.3, end=0.1, length=8), range(12))
    expected = [0.1 + 0.2 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)] + [0.1] * 3
    assert found == pytest.approx(expected, abs=1e-15)
    assert found[0] == 0.3
    assert found[4] == pytest.approx(0.2)
    assert at(Cosine(start=1.0, length=2), [2, 9]) == pytest.approx([0.0, 0.0], abs=1e-15)


def test_a_periodic_cosine_is_torchs_after_its_length_too():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=85, eta_min=1e-5)
    expected = []
    for _ in range(300):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    number = parsed({"schedule": "cosine", "start": 0.05, "end": 1e-5, "length": 85, "periodic": True})
    assert at(number, range(300)) == pytest.approx(expected, rel=1e-9)
    assert expected[89] > 28 * expected[85], "four epochs after its lowest the rate has risen again"


def test_warmup_multiplies_the_schedule():
    found = at(Step(start=1.0, factor=0.5, every=3, warmup=4), range(6))
    assert found == pytest.approx([0.25, 0.5, 0.75, 0.5, 0.5, 0.5])
    assert at(Constant(start=2.0, warmup=1), range(3)) == [2.0] * 3
    assert at(Constant(start=2.0, warmup=0), range(3)) == [2.0] * 3


def torchs(length: int, start: float, steps: int) -> list[float]:
    """Return the rates of torch's LinearLR under a rate of 2."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=length)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("length", "start"), [(1, 0.1), (4, 0.1), (5, 0.5)])
def test_a_warmup_that_has_a_start_is_torchs(length, start):
    number = parsed({"schedule": "constant", "start": 2, "warmup": {"epochs": length, "start": start}})
    assert at(number, range(8), minibatch=3) == pytest.approx(torchs(length, start, 8), rel=1e-14)
    number = parsed({"schedule": "constant", "start": 2, "warmup": {"minibatches": length, "start": start}})
    found = [scheduled(number)(7, minibatch) for minibatch in range(8)]
    assert found == pytest.approx(torchs(length, start, 8), rel=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_in_minibatches_goes_with_every_schedule_of_epochs(schedule):
    raw = {"schedule": schedule, "start": 0.8, **MORE.get(schedule, {})}
    plain, warm = parsed(raw), parsed({**raw, "warmup": {"minibatches": 50, "start": 0.2}})
    for epoch, minibatch, factor in [(0, 0, 0.2), (1, 25, 0.6), (2, 50, 1.0), (3, 99, 1.0)]:
        assert warm(epoch, minibatch) == pytest.approx(factor * plain(epoch, minibatch), rel=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_that_is_a_number_and_one_in_epochs_without_a_start_are_the_same(schedule):
    raw = {"schedule": schedule, "start": 0.8, **MORE.get(schedule, {})}
    number, section = parsed({**raw, "warmup": 4}), parsed({**raw, "warmup": {"epochs": 4}})
    assert at(number, range(9)) == at(section, range(9))


@pytest.mark.parametrize("unit", ["epoch", "minibatch"])
def test_units(unit):
    number = Step(start=1.0, factor=0.1, every=5, unit=unit, warmup=2)
    assert number(5, 0) == pytest.approx(0.1 if unit == "epoch" else 0.5)
    assert number(0, 5) == pytest.approx(0.5 if unit == "epoch" else 0.1)


def test_epochs_are_the_default_unit():
    value = {"schedule": "inverse_time", "start": 1.0, "half": 1, "warmup": 3}
    assert parsed(value) == parsed({**value, "unit": "epoch"}) == InverseTime(start=1.0, half=1.0, warmup=3)


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [
        ({"schedule": "cosin", "start": 1.0}, "sigma.schedule", "constant, inverse_time, step, cosine"),
        ({"start": 1.0}, "sigma.schedule", "None is not allowed"),
        ({"schedule": "constant", "start": 1.0, "unit": "hour"}, "sigma.unit", "epoch, minibatch"),
        ({"schedule": "constant", "start": 1.0, "warmup": -1}, "sigma.warmup", "at least 0"),
        ({"schedule": "constant", "start": 1.0, "warmup": 0.5}, "sigma.warmup", "whole number"),
        ({"schedule": "step", "start": 1.0, "gamma": 2.0}, "sigma.gamma", "start, factor, every"),
        ({"schedule": "step", "start": 1.0, "factor": 0.5}, "sigma.every", "is missing; units between two"),
        ({"schedule": "cosine", "end": 1.0}, "sigma", "needs start"),
        ({"schedule": "step", "start": "x", "factor": 0.5, "every": 1}, "sigma.start", "must be a number"),
        ({"schedule": "constant", "start": True}, "sigma.start", "must be a number"),
        ({"schedule": "step", "start": 1.0, "factor": 0.5, "every": 0}, "sigma.every", "at least 1"),
        ({"schedule": "inverse_time", "start": 1.0, "half": 0}, "sigma.half", "above 0"),
    ],
)
def test_errors_name_the_key_and_what_is_allowed(value, key, says):
    with pytest.raises(ConfigError) as error:
        parsed(value)
    assert str(error.value).startswith(f"{key}: ")
    assert says in str(error.value)


def test_a_missing_option_with_a_default_is_not_asked_for():
    with pytest.raises(ConfigError, match=r"^sigma\.length: is missing"):
        parsed({"schedule": "cosine", "start": 1.0})


@pytest.mark.parametrize(
    ("value", "key"), [(-0.1, "sigma"), ({"schedule": "constant", "start": -1.0}, "sigma.start")]
)
def test_what_no_rate_or_deviation_can_be_is_refused(value, key):
    with pytest.raises(ConfigError, match=f"^{key}: -.* must be at least 0"):
        parsed(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_rate_is_finite_and_the_error_says_so(value):
    with pytest.raises(
        ConfigError, match=r"^sigma: .* is not allowed; it must be a finite number, at least 0"
    ):
        parsed(value)


def test_every_schedule_has_its_name():
    for name, cls in SCHEDULES.items():
        given = {"start": 0.1, **MORE.get(name, {})}
        assert parsed({"schedule": name, **given}) == cls(**given)
