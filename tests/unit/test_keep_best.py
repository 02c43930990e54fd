"""The best checkpoint by validation: kept, named, taken by ``--best``, and the same after a restart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from test_resume import Ending
from typer.testing import CliRunner

from dtp_dist import predict, resume, train
from dtp_dist.cli.commands import app
from dtp_dist.config import Config, load_config
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError, StorageError
from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import LayerFile, complete_checkpoint, new_checkpoint
from dtp_dist.storage.manifest import Manifest, Mark
from dtp_dist.training.evaluate import evaluate
from dtp_dist.training.totals import Totals
from runs import read_metrics, read_result, small, small_config, write_config

RISING = "optimizer.forward.lr={schedule: step, start: 0.003, factor: 100, every: 3}"
"""Three epochs in which the network learns, and then ones that undo it."""

RUN = (RISING, "train.epochs=6", "train.keep_checkpoints=1", "monitor.tensorboard=false")
BEST = "train.keep_best=true"


def config_for(run_dir: Path, *overrides: str) -> Config:
    return small_config(f"run_dir={run_dir}", *RUN, *overrides)


def checkpoints(run_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").iterdir())


def evaluations(run_dir: Path) -> dict[int, float]:
    """Return the validation error by step."""
    return {line["step"]: line["valid_error"] for line in read_metrics(run_dir) if "valid_error" in line}


def best_of(result: dict[str, Any]) -> tuple[int, int, float]:
    return result["best_step"], result["best_epoch"], result["best_valid_error"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best epoch is long over when it ends; nothing may change in its folder."""
    run_dir = tmp_path_factory.mktemp("kept") / "run"
    train(config_for(run_dir, BEST))
    return run_dir


@pytest.mark.slow
def test_the_best_checkpoint_stays_next_to_the_newest(kept):
    result, found = read_result(kept), evaluations(kept)
    step, epoch, error = best_of(result)
    assert (step, epoch) == (min(found, key=lambda each: found[each]), step // 30)
    assert step < 180, "the run got worse"
    assert error == pytest.approx(found[step], abs=1e-4)
    assert checkpoints(kept) == [step, 180]
    assert result["valid_error"] == pytest.approx(found[180], abs=1e-4)


def test_each_checkpoint_that_was_best_says_so(kept):
    lowest, due = 101.0, []
    for step, error in evaluations(kept).items():
        if error < lowest:
            lowest = error
            due.append(step)
    events = [line for line in read_metrics(kept) if line.get("event") == "checkpoint"]
    assert [line["step"] for line in events if line.get("best")] == due
    assert len(events) == 6


def test_eval_and_export_take_it(kept, tmp_path):
    step, _, error = best_of(read_result(kept))
    means, at = evaluate(kept, "valid", best=True)
    assert (at, means["error"]) == (step, error)
    assert evaluate(kept, "valid")[1] == 180
    typed = CliRunner().invoke(app, ["eval", str(kept), "--split", "valid", "--best"])
    assert typed.output.startswith(f"valid error {error:.2f} %, ")
    assert typed.output.endswith(f", step {step}\n")
    target = tmp_path / "best.safetensors"
    typed = CliRunner().invoke(app, ["export", str(kept), str(target), "--best"])
    assert typed.output.startswith(f"# step {step} of ")
    weight = safetensors.torch.load_file(target)["0.weight"]
    folder = kept / "checkpoints" / f"step-{step:09d}"
    assert torch.equal(weight, LayerFile(folder, 1)["forward.weight"])


def test_predict_takes_it(kept):
    split = load_batches(small_config())["valid"].examples
    error = best_of(read_result(kept))[2]
    for best, due in ((True, error), (False, read_result(kept)["valid_error"])):
        found = predict(kept, split.seen(split.rows.all()), best=best)
        wrong = sum(
            int(each.label) != label for each, label in zip(found, split.labels.tolist(), strict=True)
        )
        assert 100 * wrong / len(found) == pytest.approx(due, abs=1e-4)


def test_the_command_line_says_which_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    call = ["train", "small.yaml", "run_dir=run", BEST, "monitor.tensorboard=false"]
    said = CliRunner().invoke(app, call).output
    error = read_result(tmp_path / "run")["best_valid_error"]
    assert f"best valid error {error:.2f} % in epoch 1, step 30; eval and export take it with --best" in said


@pytest.mark.slow
@pytest.mark.parametrize("every", ["null", "20"])
def test_the_bits_are_those_of_a_run_that_keeps_none(tmp_path, every):
    """An epoch's end drains the pipeline anyway; there a checkpoint is added."""
    deep = ("parallel.stages=2", "parallel.in_flight=2", f"train.checkpoint_every={every}", "train.epochs=3")
    plain = train(config_for(tmp_path / "plain", *deep)).result
    best = train(config_for(tmp_path / "best", *deep, BEST)).result
    assert best["weights_sha256"] == plain["weights_sha256"]
    assert best["best_step"] % 30 == 0
    assert "best_step" not in plain
    assert checkpoints(tmp_path / "best") == sorted({best["best_step"], 90})


@pytest.mark.slow
@pytest.mark.parametrize("step", [40, 100, 170])
def test_a_run_that_is_resumed_knows_its_best(kept, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        train(
            config_for(tmp_path / "run", BEST, "train.checkpoint_every=20"), watch=[lambda *_: Ending(step)]
        )
    again = resume(tmp_path / "run").result
    assert best_of(again) == best_of(read_result(kept))
    assert again["weights_sha256"] == read_result(kept)["weights_sha256"]
    assert checkpoints(tmp_path / "run") == checkpoints(kept)


@pytest.mark.slow
def test_switched_on_by_resume_it_begins_there(tmp_path):
    train(config_for(tmp_path / "run", "train.epochs=3"))
    with pytest.raises(StorageError, match=r"no best checkpoint was kept; train with train.keep_best=true"):
        evaluate(tmp_path / "run", "valid", best=True)
    result = resume(tmp_path / "run", ["train.epochs=7", BEST]).result
    later = {step: error for step, error in evaluations(tmp_path / "run").items() if step > 90}
    assert result["best_step"] == min(later, key=later.__getitem__), "90 was better, and is gone"
    assert checkpoints(tmp_path / "run") == sorted({result["best_step"], 210})
    off = resume(tmp_path / "run", ["train.epochs=8", "train.keep_best=false"]).result
    assert "best_step" not in off
    assert checkpoints(tmp_path / "run") == [240]
    with pytest.raises(StorageError, match="no best checkpoint was kept"):
        evaluate(tmp_path / "run", "valid", best=True)
    on = resume(tmp_path / "run", ["train.epochs=9", BEST]).result
    assert on["best_step"] == 270, "what was best before is gone"


def test_a_damaged_best_checkpoint_is_named(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / f"step-{read_result(kept)['best_step']:09d}"
    (folder / "layer-002.safetensors").write_bytes(b"short")
    with pytest.raises(StorageError) as caught:
        evaluate(tmp_path / "run", "valid", best=True)
    assert str(caught.value).startswith(f"{folder / 'layer-002.safetensors'}: has 5 bytes instead of ")
    assert str(caught.value).endswith("; it is the best one: take the newest, without --best")
    assert evaluate(tmp_path / "run", "valid")[1] == 180


def test_without_a_validation_split_it_is_refused_before_anything_starts(tmp_path):
    none = config_for(tmp_path / "run", BEST, "data.valid_examples=0")
    with pytest.raises(ConfigError) as caught:
        train(none)
    assert str(caught.value) == (
        "train.keep_best: is by validation, and digits has no validation split here; "
        "write data.valid_examples=140"
    )
    assert not (tmp_path / "run").exists()
    train(config_for(tmp_path / "run", BEST, "data.valid_examples=140", "train.max_steps=2"))


def test_one_evaluation_alone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train.keep_best: .*; write train.evaluate_every=1"):
        config_for(tmp_path / "run", BEST, "train.evaluate_every=0")


def test_numbers_are_compared_by_their_mean_absolute_error(tmp_path):
    layers = [{"kind": "dense", "units": 9}, {"kind": "dense", "units": 3, "activation": "linear"}]
    options = {"shape": [1, 8, 8], "classes": 3, "examples": 200, "targets": "numbers"}
    raw = small(
        model={"input": [64], "loss": "mse", "layers": layers},
        data={"name": "synthetic", "batch_size": 40, "options": options},
    )
    result = train(load_config(raw, [f"run_dir={tmp_path / 'run'}", BEST, "train.epochs=2"])).result
    name = "valid_mean_absolute_error"
    found = [line[name] for line in read_metrics(tmp_path / "run") if name in line]
    assert result[f"best_{name}"] == pytest.approx(min(found), rel=1e-4)


def completed(run_dir: Path, step: int, best: int, keep: int) -> None:
    """Write a checkpoint without layers whose run's best one is of another step."""
    totals = Totals(best=Mark(best, 0, 1.0)).state()
    manifest = Manifest(step, 0, Phase.BOTH, 0, "ab" * 32, (), totals)
    complete_checkpoint(new_checkpoint(run_dir, step), manifest, keep, keep_best=True)


def test_whichever_checkpoint_a_run_goes_back_to_its_best_is_there(tmp_path):
    for step, best in ((10, 10), (20, 20), (30, 20), (40, 40)):
        completed(tmp_path, step, best, keep=2)
    assert checkpoints(tmp_path) == [20, 30, 40], "30 may be gone back to"
    completed(tmp_path, 50, 40, keep=2)
    assert checkpoints(tmp_path) == [40, 50]
    completed(tmp_path, 60, 40, keep=2)
    assert checkpoints(tmp_path) == [40, 50, 60]
