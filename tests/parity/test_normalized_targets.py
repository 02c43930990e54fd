"""Same bits of FW-DTP with norms over the minibatch in f, g and targets: whatever partition and runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtp_dist import load_config, resume, train
from runs import small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_stages")]

FIXED = {"init": "uniform", "scale": 1e-3, "norm": "minibatch"}
MODEL = {
    "input": [64],
    "defaults": {"norm": "minibatch", "bias": False, "inverse": FIXED},
    "layers": [
        {"kind": "dense", "units": 32, "repeat": 3},
        {"kind": "dense", "units": 32, "input_transmission": "sign"},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ],
}


def result(folder: Path, *overrides: str) -> dict[str, Any]:
    """Return what a short run measured; layer 4 sees signs, and the target below it all numbers."""
    raw = small(
        model=MODEL,
        rule={"name": "fw_dtp", "normalize_targets": True, "target_step": 0.04},
        optimizer={"forward": {"name": "sgd", "lr": 0.5}},
    )
    settings = ["train.max_steps=12", "monitor.tensorboard=false", "data.eval_batch_size=64"]
    found = train(load_config(raw, [*settings, *overrides, f"run_dir={folder}"])).result
    return {name: found[name] for name in ("weights_sha256", "train_loss", "valid_error", "test_error")}


def test_neither_partition_nor_runtime_matters(tmp_path):
    one = result(tmp_path / "1")
    for stages in (2, 5):
        assert result(tmp_path / f"{stages}", f"parallel.stages={stages}") == one
    assert result(tmp_path / "local", "parallel.stages=5", "parallel.runtime=local") == one


def test_nor_does_the_runtime_of_a_pipeline(tmp_path):
    pipeline = ("parallel.stages=5", "parallel.in_flight=5")
    reference = result(tmp_path / "reference", *pipeline)
    assert result(tmp_path / "local", *pipeline, "parallel.runtime=local") == reference
    assert reference != result(tmp_path / "exact"), "there was no delay"


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path):
    whole = result(tmp_path / "whole", "train.checkpoint_every=6")
    result(tmp_path / "cut", "train.checkpoint_every=6", "train.max_steps=6")
    found = resume(tmp_path / "cut", ["train.max_steps=12", "parallel.stages=3"]).result
    assert found["weights_sha256"] == whole["weights_sha256"]
