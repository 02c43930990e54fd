"""Settings that are allowed and hardly meant."""

from __future__ import annotations

import pytest

from dtp_dist.config.batches import ensured
from dtp_dist.profiling.resolve import resolve
from dtp_dist.training.doubts import doubts
from runs import small_config


def found(*overrides: str) -> list[str]:
    config = resolve(small_config(*overrides))
    return doubts(config, ensured(config))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parallel.stages=2"], "parallel.runtime=inprocess: the 2 stages take turns in one process"),
        (
            ["parallel.stages=3", "parallel.partition=[1,2,2]"],
            "parallel.runtime=inprocess: the 3 stages take turns",
        ),
        (
            ["parallel.in_flight=2"],
            "parallel.in_flight=2: more than there are stages adds nothing; 1 will be",
        ),
        (
            ["parallel.runtime=local", "parallel.stages=2", "parallel.in_flight=3"],
            "parallel.in_flight=3: more than there are stages adds nothing; 2 will be",
        ),
        (["data.batch_size=1201"], "data.batch_size=1201: more than the 1200 training examples"),
    ],
)
def test_each_is_one_line_that_names_the_key(overrides, words):
    [line] = found(*overrides)
    assert line.startswith(words)
    assert "\n" not in line


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["parallel.runtime=local", "parallel.stages=2", "parallel.in_flight=2"],
        ["data.batch_size=1200"],
        ["parallel.stages=2", "parallel.virtual_costs={F: 1}"],
    ],
)
def test_what_is_meant_is_not_doubted(overrides):
    assert found(*overrides) == []
