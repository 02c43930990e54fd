"""A narrow network with all the blocks of ResNet-18: same bits on any number of stages, in processes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtp_dist import load_config, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_stages")]

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WIDTHS = (2, 2, 4, 4)
"""Channels of the four groups."""
SHORT = (
    "data.name=synthetic",
    "data.options={examples: 60, shape: [3, 32, 32]}",
    "data.batch_size=12",
    "train.epochs=1",
    "train.max_steps=2",
    "monitor.tensorboard=false",
)


def narrow() -> tuple[str, ...]:
    """Return the overrides that give the stem and the two blocks of each group their few channels."""
    found = [f"model.layers.1.channels={WIDTHS[0]}"]
    for block in range(8):
        for conv in (1, 2):
            found.append(f"model.layers.{block + 2}.body.{conv}.channels={WIDTHS[block // 2]}")
    return tuple(found)


def trained(folder: Path, rule: str, stages: int, runtime: str = "inprocess") -> dict[str, Any]:
    pipeline = (f"parallel.stages={stages}", f"parallel.runtime={runtime}", "parallel.in_flight=1")
    config = "resnet18_cifar10_backprop.yaml"
    if rule != "backprop":
        config = "resnet18_cifar10.yaml"
        pipeline = (f"rule.name={rule}", "model.defaults.inverse.iterations=1", *pipeline)
    overrides = (*SHORT, *narrow(), *pipeline, f"run_dir={folder}")
    result = train(load_config(CONFIGS / config, overrides)).result
    assert (result["steps"], result["stages"], result["runtime"]) == (2, stages, runtime)
    return {name: result[name] for name in ("weights_sha256", "train_loss", "valid_error", "test_error")}


@pytest.mark.parametrize("rule", ["dtp", "ldrl", "backprop"])
def test_stages_and_processes_give_the_same_bits(tmp_path, rule):
    one = trained(tmp_path / "one", rule, 1)
    for stages in (2, 4):
        assert trained(tmp_path / f"inprocess {stages}", rule, stages) == one
    for stages in (2, 4) if rule == "ldrl" else (2,):
        assert trained(tmp_path / f"local {stages}", rule, stages, "local") == one


def test_the_rules_are_different_computations(tmp_path):
    rules = ("dtp", "ldrl", "backprop")
    assert len({trained(tmp_path / rule, rule, 1)["weights_sha256"] for rule in rules}) == len(rules)
