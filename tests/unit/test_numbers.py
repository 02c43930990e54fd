"""Numbers that change over time: their formulas, their clocks and their error messages."""

import math

import pytest

from dtp_dist.algorithm.numbers import SCHEDULES, check_number, parse_number
from dtp_dist.algorithm.optimizers import SGDOptions
from dtp_dist.algorithm.options import RangeError


def at(value, epochs, minibatch: int = 0) -> list[float]:
    number = parse_number("x", value)
    return [number(epoch, minibatch) for epoch in epochs]


@pytest.mark.parametrize("value", [0.25, 3, {"schedule": "constant", "start": 0.25}])
def test_constant(value):
    expected = value["start"] if isinstance(value, dict) else float(value)
    assert at(value, [0, 1, 1000]) == [expected] * 3


def test_inverse_time_is_the_papers_decay_with_epochs_from_one():
    found = at({"schedule": "inverse_time", "start": 0.5, "half": 50}, range(500))
    assert found == pytest.approx([0.5 / (1 + epoch / 50) for epoch in range(1, 501)], rel=1e-14)
    assert found[49] == 0.25


def test_step():
    found = at({"schedule": "step", "start": 0.8, "factor": 0.5, "every": 3}, range(10))
    assert found == pytest.approx([0.8] * 3 + [0.4] * 3 + [0.2] * 3 + [0.1])


def test_cosine():
    found = at({"schedule": "cosine", "start": 0.3, "end": 0.1, "length": 8}, range(12))
    expected = [0.1 + 0.2 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)] + [0.1] * 3
    assert found == pytest.approx(expected, abs=1e-15)
    assert found[0] == 0.3
    assert found[4] == pytest.approx(0.2)
    assert at({"schedule": "cosine", "start": 1.0, "length": 2}, [2, 9]) == pytest.approx(
        [0.0, 0.0], abs=1e-15
    )


def test_warmup_multiplies_the_schedule():
    found = at({"schedule": "step", "start": 1.0, "factor": 0.5, "every": 3, "warmup": 4}, range(6))
    assert found == pytest.approx([0.25, 0.5, 0.75, 0.5, 0.5, 0.5])
    assert at({"schedule": "constant", "start": 2.0, "warmup": 1}, range(3)) == [2.0] * 3
    assert at({"schedule": "constant", "start": 2.0, "warmup": 0}, range(3)) == [2.0] * 3


@pytest.mark.parametrize("unit", ["epoch", "minibatch"])
def test_units(unit):
    value = {"schedule": "step", "start": 1.0, "factor": 0.1, "every": 5, "unit": unit, "warmup": 2}
    number = parse_number("x", value)
    assert number(5, 0) == pytest.approx(0.1 if unit == "epoch" else 0.5)
    assert number(0, 5) == pytest.approx(0.5 if unit == "epoch" else 0.1)


def test_epochs_are_the_default_unit_and_the_mapping_is_left_alone():
    value = {"schedule": "inverse_time", "start": 1.0, "half": 1, "unit": "epoch", "warmup": 3}
    kept = dict(value)
    parse_number("x", value)
    assert value == kept
    del value["unit"]
    assert at(value, range(4)) == at(kept, range(4))


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [
        ({"schedule": "cosin", "start": 1.0}, "sigma.schedule", "constant, inverse_time, step, cosine"),
        ({"start": 1.0}, "sigma.schedule", "None is not allowed"),
        ({"schedule": "constant", "start": 1.0, "unit": "hour"}, "sigma.unit", "epoch, minibatch"),
        ({"schedule": "constant", "start": 1.0, "warmup": -1}, "sigma.warmup", "whole number of epochs"),
        ({"schedule": "constant", "start": 1.0, "warmup": 0.5}, "sigma.warmup", "whole number"),
        ({"schedule": "step", "start": 1.0, "gamma": 2.0}, "sigma.gamma", "start, factor, every"),
        ({"schedule": "step", "start": 1.0, "factor": 0.5}, "sigma", "needs every as well"),
        ({"schedule": "cosine", "end": 1.0}, "sigma", "needs start"),
        ({"schedule": "step", "start": "x", "factor": 0.5, "every": 1}, "sigma.start", "must be a number"),
        ({"schedule": "constant", "start": True}, "sigma.start", "must be a number"),
        ({"schedule": "step", "start": 1.0, "factor": 0.5, "every": 0}, "sigma.every", "at least 1"),
        ({"schedule": "inverse_time", "start": 1.0, "half": 0}, "sigma.half", "above 0"),
    ],
)
def test_errors_name_the_key_and_what_is_allowed(value, key, says):
    with pytest.raises(RangeError) as error:
        parse_number("sigma", value)
    assert error.value.key == key
    assert says in str(error.value)


def test_a_missing_option_with_a_default_is_not_asked_for():
    with pytest.raises(RangeError) as error:
        parse_number("lr", {"schedule": "cosine", "start": 1.0})
    assert str(error.value) == "needs length as well"


@pytest.mark.parametrize("value", [-0.1, {"schedule": "constant", "start": -1.0}])
def test_check_refuses_what_no_rate_or_deviation_can_be(value):
    with pytest.raises(RangeError, match="at least 0") as error:
        check_number("lr", value)
    assert error.value.key == "lr"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_rate_is_finite_and_the_error_says_so(value):
    with pytest.raises(RangeError, match=r"is not allowed; it must be \w") as error:
        SGDOptions(lr=value)
    assert error.value.key == "lr"


def test_check_takes_every_schedule():
    more = {"inverse_time": {"half": 2}, "step": {"factor": 0.5, "every": 2}, "cosine": {"length": 3}}
    for name in SCHEDULES:
        check_number("lr", {"schedule": name, "start": 0.1, **more.get(name, {})})
