"""Whole runs whose labels are numbers: what they measure, refuse, keep and show."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from closeness import tolerance
from torch import Tensor
from torch.nn.functional import cross_entropy

from dtp_dist import load_config, resume, train
from dtp_dist.config import Config
from dtp_dist.config.batches import check_data, check_labels, label_columns, load_batches
from dtp_dist.data import Splits, load
from dtp_dist.errors import ConfigError, DataError
from dtp_dist.planning.predict import predict
from dtp_dist.profiling.costs import pipeline_of
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.stage.service import largest_message
from dtp_dist.storage.export_file import export
from dtp_dist.training.evaluate import evaluate
from dtp_dist.training.totals import Totals
from dtp_dist.transport.messages import HEADER_BYTES
from dtp_dist.trials.trial import in_words, metric_of
from runs import read_metrics, read_result, small

K = 3
QUIET = ("monitor.tensorboard=false", "monitor.trace_minibatches=0")
NUMBERS = ("model.loss=mse", "data.options.targets=numbers")
LABELS = ("model.loss=binary_cross_entropy", "data.options.targets=labels")


def of_numbers(*overrides: str) -> Config:
    """Synthetic data, 64-24-24-K: 280 examples make 7 minibatches an epoch."""
    hidden = {"kind": "dense", "units": 24, "repeat": 2}
    layers = [hidden, {"kind": "dense", "units": K, "activation": "linear"}]
    model = {"input": [64], "defaults": {"inverse": {"sigma": 0.2}}, "layers": layers}
    data = {"name": "synthetic", "options": {"shape": [1, 8, 8], "classes": K, "examples": 400}}
    return load_config(small(model=model, data={**data, "batch_size": 40}), [*QUIET, *overrides])


def outputs_and_labels(network: torch.nn.Module, config: Config, split: str) -> tuple[Tensor, Tensor]:
    batches = load_batches(config)[split]
    x, labels = batches.minibatch(0, 0)
    assert batches.count == 1
    return network(x).detach().double(), labels


@pytest.mark.slow
def test_numbers_are_learned_and_measured_as_their_definitions_say(tmp_path):
    config = of_numbers(
        *NUMBERS, "train.epochs=30", "optimizer.forward.lr=0.01", f"run_dir={tmp_path / 'run'}"
    )
    result, network = train(config)
    for split in ("valid", "test"):
        found, labels = outputs_and_labels(network, config, split)
        residual = (found - labels).square()
        spread = (labels.double() - labels.double().mean(0)).square().sum(0)
        due = {
            "loss": residual.sum(1).mean(),
            "mean_absolute_error": (found - labels).abs().mean(),
            "r2_score": (1 - residual.sum(0) / spread).mean(),
        }
        for name, value in due.items():
            assert result[f"{split}_{name}"] == pytest.approx(value.item(), rel=tolerance(terms=10_000))
    assert result["test_r2_score"] > 0.5
    assert result["train_loss"] < 0.5
    assert [result[f"{split}_error"] for split in ("train", "valid", "test")] == [None] * 3
    assert "train_r2_score" not in result
    assert read_result(tmp_path / "run") == json.loads(json.dumps(result))
    last = [line for line in read_metrics(tmp_path / "run") if "test_r2_score" in line][-1]
    told = last["train_mean_absolute_error_of_epoch"]
    assert told == pytest.approx(result["train_mean_absolute_error"], rel=1e-5)
    for split in ("valid", "test"):
        means, step = evaluate(tmp_path / "run", split)
        assert {f"{split}_{name}": value for name, value in means.items()}.items() <= result.items()
        assert step == 210


@pytest.mark.slow
def test_several_labels_are_learned(tmp_path):
    config = of_numbers(
        *LABELS, "train.epochs=30", "optimizer.forward.lr=0.01", f"run_dir={tmp_path / 'run'}"
    )
    result, network = train(config)
    found, labels = outputs_and_labels(network, config, "test")
    right = (found > 0) == (labels > 0.5)
    assert result["test_hamming_distance"] == pytest.approx(1 - right.double().mean().item())
    assert result["test_exact_match"] == pytest.approx(right.all(1).double().mean().item())
    assert result["test_hamming_distance"] < 0.25
    assert result["test_error"] is None


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_classes_are_learned_as_one_hot_numbers(tmp_path, loss):
    """And measured by errors."""
    config = of_numbers(f"model.loss={loss}", "train.epochs=20", f"run_dir={tmp_path / 'run'}")
    result = train(config).result
    assert result["test_error"] < 10
    assert "test_mean_absolute_error" not in result
    assert "test_top_5_error" not in result, "there are no more than five"


def test_label_smoothing_is_torchs(tmp_path):
    config = of_numbers("model.label_smoothing=0.2", f"run_dir={tmp_path / 'run'}")
    result, network = train(config)
    found, labels = outputs_and_labels(network, config, "test")
    expected = cross_entropy(found, labels, label_smoothing=0.2).item()
    assert result["test_loss"] == pytest.approx(expected, rel=tolerance())
    plain = train(of_numbers(f"run_dir={tmp_path / 'plain'}")).result
    assert plain["weights_sha256"] != result["weights_sha256"]


def test_a_run_that_ended_before_its_result_has_what_it_had_evaluated(tmp_path):
    whole = train(of_numbers(*NUMBERS, "train.epochs=2", f"run_dir={tmp_path / 'run'}")).result
    (tmp_path / "run" / "result.json").unlink()
    again = resume(tmp_path / "run").result
    same = [name for name in whole if name.startswith(("train_", "valid_", "test_", "weights"))]
    assert {name: again[name] for name in same} == {name: whole[name] for name in same}
    assert "test_r2_score" in same


def test_totals_of_an_earlier_version_named_errors_by_their_split():
    state = replace(Totals().state(), errors={"valid": 3.0, "test": 4.0})
    assert Totals.from_state(state, 1, 0).evaluated == {"valid_error": 3.0, "test_error": 4.0}


def test_evaluation_judges_the_mean_of_several_passes(tmp_path):
    """Without sampled layers all passes are alike."""
    one, three = (
        train(of_numbers(*NUMBERS, f"train.evaluate_passes={passes}", f"run_dir={tmp_path}/{passes}")).result
        for passes in (1, 3)
    )
    for name in ("test_loss", "test_mean_absolute_error", "test_r2_score"):
        assert three[name] == pytest.approx(one[name], rel=tolerance())


# What is refused


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["data.options.targets=numbers"],
            "model.loss: cross_entropy takes classes, but synthetic labels an example with 3 numbers; "
            "write mse, or binary_cross_entropy for labels of 0 and 1",
        ),
        (
            [*NUMBERS, "data.options.classes=2"],
            "model.layers.3.units: the last layer has 3 outputs, but synthetic has 2 numbers for each "
            "example; write 2",
        ),
        (
            ["model.loss=mse", "data.options.classes=2"],
            "model.layers.3.units: the last layer has 3 outputs, but synthetic has 2 classes; write 2",
        ),
        (
            ["data.options.targets=number"],
            "data.options.targets: 'number' is not allowed; it must be one of classes, numbers, labels",
        ),
    ],
)
def test_labels_that_do_not_fit_the_network_are_refused_at_once(tmp_path, overrides, text):
    for check in (check_data, train):
        with pytest.raises(ConfigError) as caught:
            check(of_numbers(*overrides, f"run_dir={tmp_path / 'run'}"))
        assert str(caught.value) == text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "model.loss=hinge",
            "model.loss: 'hinge' is not allowed; it must be one of cross_entropy, mse, binary_",
        ),
        (
            "model.label_smoothing=1",
            "model.label_smoothing: 1 is not allowed; it must be at least 0 and below 1",
        ),
        (
            "model={loss: mse, label_smoothing: 0.1}",
            "model.label_smoothing: 0.1 belongs to loss=cross_entropy",
        ),
        ("model.los=mse", "model.los: unknown key; did you mean loss"),
    ],
)
def test_a_loss_that_there_is_not_is_refused(override, text):
    with pytest.raises(ConfigError) as caught:
        of_numbers(override)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("loss", "value", "text"),
    [
        ("mse", float("nan"), "is labelled nan (column 1), but model.loss=mse takes numbers that are finite"),
        (
            "binary_cross_entropy",
            1.5,
            "is labelled 1.5 (column 1), but model.loss=binary_cross_entropy takes numbers from 0 to 1",
        ),
    ],
)
def test_a_label_that_the_loss_can_not_take_is_named(loss, value, text):
    config = of_numbers(f"model.loss={loss}", "data.options.targets=labels")
    found = load("synthetic", "", **config.data.options)
    assert found.valid is not None
    check_labels(config, found)
    found.valid.labels[4, 1] = value
    with pytest.raises(DataError) as caught:
        check_labels(config, found)
    assert str(caught.value).startswith(f"synthetic: validation example 4 {text}")


# What travels, and what is planned


def test_labels_of_numbers_are_counted_in_plans_and_in_what_a_link_may_carry(tmp_path):
    config = resolve(of_numbers(*NUMBERS, "parallel.stages=3", "train.evaluate_every=0"))
    assert label_columns(config) == K
    pipeline = pipeline_of(config, (), measured=False)
    found = predict(pipeline, config.parallel.partition, 1)
    config = replace(config, run_dir=str(tmp_path / "run"))
    shortest = replace(config, train=replace(config.train, max_steps=7, epochs=1))
    result = train(shortest).result
    evaluation = 2 * 2 * HEADER_BYTES + (40 + 80) * 2 * (24 + K) * 4
    assert result["messages_bytes"] == 7 * sum(found.sent) + evaluation
    classes = of_numbers("model.loss=mse")
    assert label_columns(classes) is None
    assert largest_message(of_numbers(*NUMBERS)) - largest_message(of_numbers()) == 1000 * (4 * K - 8)


def test_data_that_can_not_be_read_are_taken_for_numbers(tmp_path):
    config = load_config(small(), ["data.name=mnist", f"data.root={tmp_path / 'file'}", "model.loss=mse"])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        load_batches(config, sketch=True)
    assert label_columns(config) == 10


def test_virtual_stages_send_numbers_in_place_of_numbers(tmp_path):
    sent = {}
    for name, overrides in {"virtual": ("parallel.virtual_costs=0",), "real": ()}.items():
        config = of_numbers(*NUMBERS, "parallel.stages=2", "train.evaluate_every=0", *overrides)
        sent[name] = train(replace(config, run_dir=str(tmp_path / name))).result
    evaluation = 2 * HEADER_BYTES + (40 + 80) * (24 + K) * 4
    assert sent["real"]["messages_bytes"] - sent["virtual"]["messages_bytes"] == evaluation
    assert sent["virtual"]["test_error"] is None


def test_a_search_compares_numbers_by_their_loss():
    assert metric_of(of_numbers(*NUMBERS)) == "valid_loss"
    assert metric_of(of_numbers("model.loss=mse")) == metric_of(of_numbers()) == "valid_error"
    assert in_words("valid_loss", 0.25) == "valid loss 0.25"
    assert in_words("valid_loss", None) == "no valid loss"
    assert in_words("valid_error", 2.0) == "valid error 2.00 %"


def test_alignment_and_pictures_take_the_losss_own_gradient(tmp_path):
    """Of backpropagation as a rule every angle to backpropagation is 0."""
    run_dir = tmp_path / "run"
    train(
        of_numbers(
            *NUMBERS,
            "rule={name: backprop}",
            "parallel.stages=2",
            "monitor.alignment_every=1",
            "monitor.tensorboard=true",
            "monitor.every=7",
            "monitor.pictures_every=1",
            "monitor.histograms_every=1",
            f"run_dir={run_dir}",
        )
    )
    lines = [line for line in read_metrics(run_dir) if "layer/1/update_angle" in line]
    assert lines
    for line in lines:
        for layer in (1, 2, 3):
            for name in ("update_angle", "target_angle"):
                assert line[f"layer/{layer}/{name}"] == pytest.approx(0.0, abs=0.1)
    warnings = [line["message"] for line in read_metrics(run_dir) if line.get("event") == "warning"]
    assert all(text.startswith("parallel.runtime=inprocess") for text in warnings), "a picture failed"


# The data


@pytest.mark.parametrize("targets", ["numbers", "labels"])
def test_synthetic_numbers_are_the_same_every_time_and_sketched_alike(targets):
    options: dict[str, Any] = {"shape": [1, 4, 4], "classes": 5, "examples": 50, "targets": targets}
    one, two, sketch = (load("synthetic", "", sketch=each, **options) for each in (False, False, True))
    assert torch.equal(one.train.labels, two.train.labels)
    assert torch.equal(one.test.rows.all(), two.test.rows.all())
    assert one.train.labels.dtype == torch.float32
    for splits in (one, sketch):
        assert (splits.classes, splits.outputs) == (None, 5)
        assert [_sizes(splits)[name] for name in ("train", "valid", "test")] == [(35, 5), (5, 5), (10, 5)]
    values = one.train.labels.unique()
    assert (values.tolist() == [0.0, 1.0]) == (targets == "labels")
    assert values.min() >= -1
    assert values.max() <= 1


def _sizes(splits: Splits) -> dict[str, tuple[int, ...]]:
    assert splits.valid is not None
    parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return {name: tuple(part.labels.shape) for name, part in parts.items()}


# The exported network


@pytest.mark.parametrize(
    ("loss", "lines"),
    [
        ("cross_entropy", ["# logits = network(x)  # x: float32 [B, 64], pixels in [0, 1]"]),
        (
            "mse",
            [
                "# numbers = network(x)  # x: float32 [B, 64], pixels in [0, 1]",
                "# numbers: in the labels' own units; of classes, the largest is the class",
            ],
        ),
        (
            "binary_cross_entropy",
            [
                "# logits = network(x)  # x: float32 [B, 64], pixels in [0, 1]",
                "# sigmoid(logits): the probability of each label",
            ],
        ),
    ],
)
def test_an_exported_network_says_what_it_gives(tmp_path, loss, lines):
    train(of_numbers(f"model.loss={loss}", "train.max_steps=2", f"run_dir={tmp_path / 'run'}"))
    said = export(tmp_path / "run", tmp_path / "network.safetensors")
    assert said[-len(lines) :] == lines
    assert not said[-len(lines) - 1].startswith("#")
