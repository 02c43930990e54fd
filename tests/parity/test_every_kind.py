"""Same bits for every kind of layer and every rule: whatever the partition, the runtime and the delay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtp_dist import load_config, resume, train
from runs import EVERY_KIND, small

pytestmark = pytest.mark.slow

SHORT = ("train.max_steps=12", "monitor.tensorboard=false", "train.evaluate_passes=2")
RULES: dict[str, dict[str, Any]] = {
    "dtp": {"name": "dtp", "alternate": "epoch"},
    "tp": {"name": "tp"},
    "ldrl": {"name": "ldrl"},
    "fw_dtp": {"name": "fw_dtp"},
    "autoencoder": {"name": "autoencoder", "output_step": 1.0},
    "backprop": {"name": "backprop"},
}
MEASURED = ("weights_sha256", "train_loss", "valid_error", "test_error")


def result(folder: Path, rule: str, *overrides: str) -> dict[str, Any]:
    """Return what a short run of the network with every kind of layer measured."""
    raw = small(model=EVERY_KIND, rule=RULES[rule])
    found = train(load_config(raw, [*SHORT, *overrides, f"run_dir={folder}"])).result
    return {name: found[name] for name in MEASURED}


@pytest.mark.parametrize("rule", RULES)
def test_the_partition_does_not_matter(tmp_path, rule):
    one = result(tmp_path / "1", rule)
    for stages in (2, 6):
        assert result(tmp_path / str(stages), rule, f"parallel.stages={stages}") == one


@pytest.mark.parametrize("rule", ["dtp", "ldrl", "backprop"])
def test_a_pipeline_of_processes_equals_the_reference(tmp_path, rule):
    pipeline = ("parallel.stages=3", "parallel.in_flight=3")
    reference = result(tmp_path / "reference", rule, *pipeline)
    assert result(tmp_path / "local", rule, *pipeline, "parallel.runtime=local") == reference
    assert reference != result(tmp_path / "exact", rule), "there was no delay"


@pytest.mark.parametrize("rule", ["ldrl", "fw_dtp"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path, rule):
    whole = result(tmp_path / "whole", rule, "train.checkpoint_every=6")
    cut = tmp_path / "cut"
    result(cut, rule, "train.checkpoint_every=6", "train.max_steps=6")
    found = resume(cut, ["train.max_steps=12", "parallel.stages=3"]).result
    assert found["weights_sha256"] == whole["weights_sha256"]
