"""Same bits for every kind of layer, rule, optimizer and data set: whatever the partition, runtime and delay.

All are taken from the tables of the package, so that a new one takes part without a line here; a layer kind
takes part with its line in ``EVERY_KIND``, which ``tests/unit/test_tables.py`` asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtp_dist import load_config, resume, train
from dtp_dist.algorithm.optimizers.kinds import OPTIMIZERS
from dtp_dist.algorithm.rules import RULES
from dtp_dist.data import SOURCES, load
from runs import EVERY_KIND, small, without_contexts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_stages")]

SHORT = ("train.max_steps=12", "monitor.tensorboard=false", "train.evaluate_passes=2")
OF_RULE: dict[str, dict[str, Any]] = {"dtp": {"update_order": "epoch"}, "autoencoder": {"target_step": 1.0}}
"""Settings that let a rule do more than its defaults do."""

MEASURED = ("weights_sha256", "train_loss", "valid_error", "test_error")


def result(folder: Path, rule: str, *overrides: str) -> dict[str, Any]:
    """Return what a short run of the network with every kind of layer measured."""
    options = {"name": rule, **OF_RULE.get(rule, {})}
    one_wave = not RULES[rule]().build(1).flow().target_reads_forward
    raw = small(model=without_contexts(EVERY_KIND) if one_wave else EVERY_KIND, rule=options)
    return measured(raw, folder, *overrides)


def measured(raw: dict[str, Any], folder: Path, *overrides: str) -> dict[str, Any]:
    found = train(load_config(raw, [*SHORT, *overrides, f"run_dir={folder}"])).result
    return {name: found[name] for name in MEASURED}


@pytest.mark.parametrize("rule", RULES)
def test_the_partition_does_not_matter(tmp_path, rule):
    one = result(tmp_path / "1", rule)
    for stages in (2, 6):
        assert result(tmp_path / str(stages), rule, f"parallel.stages={stages}") == one


@pytest.mark.parametrize("name", [*OPTIMIZERS, "torch.optim:NAdam"])
def test_the_partition_does_not_matter_to_any_optimizer(tmp_path, name):
    raw = small(optimizer={side: {"name": name, "lr": 1e-3} for side in ("forward", "inverse")})
    one = measured(raw, tmp_path / "1")
    assert measured(raw, tmp_path / "5", "parallel.stages=5") == one


OF_A_USER = {"image_folder", "arrays", "table"}
"""``tests/unit/test_own_data_runs.py`` has the files for them."""


@pytest.mark.parametrize(
    "name", [name for name, each in SOURCES.items() if each.ensure is None and name not in OF_A_USER]
)
def test_a_data_set_is_the_same_in_every_process(tmp_path, name):
    """Those without files."""
    found = load(name, "", sketch=True)
    output = {"kind": "dense", "units": found.classes, "activation": "linear"}
    layers = [{"kind": "flatten"}, {"kind": "dense", "units": 8}, output]
    raw = small(model={"input": list(found.shape), "layers": layers}, data={"name": name})
    one = measured(raw, tmp_path / "1")
    assert measured(raw, tmp_path / "2", "parallel.stages=2", "parallel.runtime=local") == one


@pytest.mark.parametrize("rule", ["dtp", "ldrl", "backprop", "ccl", "dfa"])
def test_a_pipeline_of_processes_equals_the_reference(tmp_path, rule):
    pipeline = ("parallel.stages=3", "parallel.in_flight=3")
    reference = result(tmp_path / "reference", rule, *pipeline)
    assert result(tmp_path / "local", rule, *pipeline, "parallel.runtime=local") == reference
    assert reference != result(tmp_path / "exact", rule), "there was no delay"


@pytest.mark.parametrize("rule", ["ldrl", "fw_dtp", "ccl", "ddtp_linear"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path, rule):
    whole = result(tmp_path / "whole", rule, "train.checkpoint_every=6")
    cut = tmp_path / "cut"
    result(cut, rule, "train.checkpoint_every=6", "train.max_steps=6")
    found = resume(cut, ["train.max_steps=12", "parallel.stages=3"]).result
    assert found["weights_sha256"] == whole["weights_sha256"]
