"""Training that ends early, because validation does not improve: in order, and after a restart the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_resume import Ending, Paper, advised, typed

from dtp_dist import resume, train
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError
from dtp_dist.monitor.console import ConsoleMonitor
from runs import read_metrics, read_result, small_config

RISING = "optimizer.forward.lr={schedule: step, start: 0.003, factor: 100, every: 3}"
"""Three epochs in which the network learns, and then ones that undo it: the third is the best of six."""

RUN = (RISING, "train.epochs=6", "monitor.tensorboard=false", "monitor.trace_minibatches=0")


def config_for(run_dir: Path, *overrides: str) -> Config:
    return small_config(f"run_dir={run_dir}", *RUN, *overrides)


def stops(run_dir: Path) -> list[tuple[int, int, str]]:
    """Return step, epoch and message of each event that says that training ends early."""
    events = [line for line in read_metrics(run_dir) if line.get("event") == "stopped early"]
    return [(line["step"], line["epoch"], line["message"]) for line in events]


def errors_of(run_dir: Path | str) -> list[float]:
    """Return the validation error after each epoch that has one."""
    return [line["valid_error"] for line in read_metrics(Path(run_dir)) if "valid_error" in line]


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a restart may not change."""
    kept = ("steps", "stopped_early", "train_loss", "valid_error", "test_error", "weights_sha256")
    return {name: result[name] for name in kept}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(config_for(tmp_path_factory.mktemp("impatient") / "run", "train.patience=2")).result


@pytest.mark.slow
def test_training_ends_after_so_many_epochs_without_a_lower_error(impatient, tmp_path):
    assert (impatient["steps"], impatient["stopped_early"]) == (150, True)
    errors = errors_of(impatient["run_dir"])
    assert len(errors) == 5
    assert min(errors) == errors[2]
    whole = train(config_for(tmp_path / "run", "train.epochs=5")).result
    assert outcome(impatient) == {**outcome(whole), "stopped_early": True}


@pytest.mark.slow
def test_it_says_why_in_the_file_and_on_the_terminal(impatient, tmp_path):
    [(step, epoch, message)] = stops(Path(impatient["run_dir"]))
    assert (step, epoch) == (150, 5)
    lowest = errors_of(impatient["run_dir"])[2]
    assert message == f"the validation error is not below {lowest:.2f} % since epoch 3 (train.patience=2)"
    last = read_metrics(Path(impatient["run_dir"]))[-1]
    assert (last["event"], last["epoch"]) == ("finished", 5)
    paper = Paper()
    watch = [lambda steps, epochs: ConsoleMonitor(paper, steps, epochs)]
    train(config_for(tmp_path / "run", "train.patience=2"), watch=watch)
    assert f"stopped early at step 150: {message}\n" in paper.export_text()


@pytest.mark.slow
@pytest.mark.parametrize("step", [20, 100, 145])
def test_a_run_that_is_resumed_ends_in_the_same_epoch_with_the_same_bits(impatient, tmp_path, step):
    """Also from within an epoch, when the one before it has not been better."""
    often = ("train.patience=2", "train.checkpoint_every=20")
    with pytest.raises(KeyboardInterrupt):
        train(config_for(tmp_path / "run", *often), watch=[lambda *_: Ending(step)])
    assert stops(tmp_path / "run") == []
    assert outcome(resume(tmp_path / "run").result) == outcome(impatient)


@pytest.mark.slow
def test_a_run_that_was_killed_once_it_had_ended_trains_no_more(impatient, tmp_path):
    train(config_for(tmp_path / "run", "train.patience=2"))
    (tmp_path / "run" / "result.json").unlink()
    assert outcome(resume(tmp_path / "run").result) == outcome(impatient)
    assert [step for step, _, _ in stops(tmp_path / "run")] == [150, 150]


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("train.min_delta=0.1",)])
def test_a_run_that_ended_early_says_how_it_is_trained_for_longer_and_that_works(tmp_path, more):
    train(config_for(tmp_path / "run", "train.patience=2", *more))
    with pytest.raises(ConfigError, match="is trained to its end, step 150; train for longer: ") as caught:
        resume(tmp_path / "run")
    typed(advised(str(caught.value)))
    result = read_result(tmp_path / "run")
    assert (result["steps"], result["stopped_early"]) == (180, False)


@pytest.mark.slow
def test_more_patience_lets_it_go_on(tmp_path):
    train(config_for(tmp_path / "run", "train.patience=1"))
    assert read_result(tmp_path / "run")["steps"] == 120
    assert resume(tmp_path / "run", ["train.patience=2"]).result["steps"] == 150


@pytest.mark.slow
def test_patience_that_begins_with_resume_counts_from_there(tmp_path):
    train(config_for(tmp_path / "run", "train.patience=2"))
    resume(tmp_path / "run", ["train.patience=null"])
    result = resume(tmp_path / "run", ["train.patience=1", "train.epochs=9"]).result
    assert result["steps"] > 210, "the first evaluation after it can't be worse than none"


@pytest.mark.slow
def test_the_last_epoch_is_no_early_end(tmp_path):
    result = train(config_for(tmp_path / "run", "train.patience=2", "train.epochs=5")).result
    assert (result["steps"], result["stopped_early"]) == (150, False)
    assert stops(tmp_path / "run") == []


@pytest.mark.slow
def test_an_improvement_may_be_asked_to_be_large(tmp_path):
    """From about 40 to 26 percent is none of 20 points; from 40 to 14, two epochs after it, is one."""
    hasty = train(config_for(tmp_path / "hasty", "train.patience=1", "train.min_delta=20")).result
    assert hasty["steps"] == 60
    [(_, _, message)] = stops(tmp_path / "hasty")
    first = errors_of(tmp_path / "hasty")[0]
    assert f"is not below {first:.2f} % by more than 20 since epoch 1" in message
    calm = train(config_for(tmp_path / "calm", "train.patience=2", "train.min_delta=20")).result
    assert calm["steps"] == 150


@pytest.mark.slow
def test_epochs_are_counted_where_not_all_are_evaluated(tmp_path):
    seldom = ("train.patience=1", "train.evaluate_every=2")
    result = train(config_for(tmp_path / "run", *seldom)).result
    assert result["steps"] == 120, "the error after epoch 4 is above that after epoch 2"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["train.patience=3", "train.evaluate_every=0"],
            "train.patience: compares evaluations, but with train.evaluate_every=0 there is one alone, "
            "at the end; write train.evaluate_every=1",
        ),
        (["train.patience=0"], "train.patience: 0 is not allowed; it must be at least 1"),
        (
            ["train.min_delta=0.5"],
            "train.min_delta: belongs to train.patience; write that as well, e.g. 10",
        ),
        (
            ["train.patience=3", "data.valid_examples=0"],
            "train.patience: is by validation, and digits has no validation split here; "
            "write data.valid_examples=140",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path, overrides, line):
    with pytest.raises(ConfigError) as caught:
        train(config_for(tmp_path / "run", *overrides))
    assert str(caught.value) == line
    assert not (tmp_path / "run").exists()
