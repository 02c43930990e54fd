"""What a configuration may name is what the tables hold; every kind of layer is in the parity tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dtp_dist import load_config
from dtp_dist.algorithm.layers import KINDS
from dtp_dist.algorithm.optimizers.kinds import OPTIMIZERS
from dtp_dist.algorithm.rules import RULES
from dtp_dist.data import SOURCES
from dtp_dist.errors import ConfigError
from dtp_dist.loggers.table import LOGGERS
from dtp_dist.runtime.registry import RUNTIMES
from dtp_dist.transport.table import TRANSPORTS
from runs import EVERY_KIND, small


@pytest.mark.parametrize(
    ("override", "table"),
    [
        ("parallel.runtime=nonsense", RUNTIMES),
        ("parallel.transport=nonsense", {"auto": None, **TRANSPORTS}),
        ("data.name=nonsense", SOURCES),
        ("monitor.loggers=[nonsense]", LOGGERS),
        ("rule={name: nonsense}", RULES),
        ("optimizer.forward={name: nonsense, lr: 1}", OPTIMIZERS),
        ("model.layers=[{kind: nonsense}]", KINDS),
    ],
)
def test_a_name_is_refused_with_all_that_there_are(override: str, table: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(small(), [override])
    assert f"one of {', '.join(table)}" in str(caught.value)


def test_every_layer_kind_is_in_the_network_of_the_parity_tests() -> None:
    """A new kind takes part in tests/parity with its line in ``EVERY_KIND``."""
    assert {layer["kind"] for layer in EVERY_KIND["layers"]} == KINDS.keys() - {"instance"}
