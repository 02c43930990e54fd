"""Monitors of the user's own: what they hear, how they end training, and what an error in one comes to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_resume import Paper, advised, typed

from dtp_dist import Epoch, Line, Monitor, Start, resume, train
from dtp_dist.config import Config
from dtp_dist.errors import CallbackError, ConfigError, StorageError
from dtp_dist.monitor.console import ConsoleMonitor
from runs import PATIENCE, newest, read_metrics, read_result, small_config, write_config

ROOT = Path(__file__).resolve().parents[2]


class Listener(Monitor):
    """Keeps what it is told, and asks to end training after an epoch."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.told, self.epochs, self.starts = last, list[str](), list[Epoch](), list[Start]()

    def begin(self, start: Start) -> None:
        self.starts.append(start)
        self.told.append("begin")

    def write(self, line: Line) -> None:
        self.told.append(line.event or "values")

    def end_epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        self.told.append("end_epoch")
        return epoch.number == self.last

    def close(self) -> None:
        self.told.append("close")


def config_for(run_dir: Path, *overrides: str) -> Config:
    return small_config(f"run_dir={run_dir}", "monitor.tensorboard=false", *overrides)


def test_a_monitor_is_told_of_each_epoch_with_its_measures_and_its_speed(tmp_path):
    listener = Listener()
    result = train(config_for(tmp_path / "run", "train.epochs=2"), monitors=[listener]).result
    assert listener.starts == [Start("small", tmp_path / "run", 60, 2)]
    epochs = [
        "values",
        "values",
        "values",
        "values",
        "end_epoch",
    ]  # every 10 minibatches, and the epoch's own
    assert [each for each in listener.told if each != "checkpoint"][:7] == ["begin", "started", *epochs]
    assert listener.told[-2:] == ["finished", "close"]
    assert [(epoch.number, epoch.step) for epoch in listener.epochs] == [(1, 30), (2, 60)]
    last = listener.epochs[-1].values
    assert last["train_loss_of_epoch"] == result["train_loss"]
    assert (last["valid_error"], last["test_error"]) == (result["valid_error"], result["test_error"])
    told = [line for line in read_metrics(tmp_path / "run") if "valid_error" in line]
    for epoch, line in zip(listener.epochs, told, strict=True):
        assert epoch.samples_per_second == pytest.approx(line["samples_per_second_of_epoch"], rel=1e-5)
        assert epoch.time > 0
    seconds = sum(1200 / epoch.samples_per_second for epoch in listener.epochs)
    assert 2400 / seconds == pytest.approx(result["samples_per_second"])


def test_an_epoch_that_is_not_evaluated_has_its_own_measures(tmp_path):
    listener = Listener()
    train(config_for(tmp_path / "run", "train.epochs=2", "train.evaluate_every=0"), monitors=[listener])
    first, last = (set(epoch.values) for epoch in listener.epochs)
    assert {"train_loss_of_epoch", "samples_per_second_of_epoch"} <= first
    assert "valid_error" in last - first


@pytest.mark.slow
@pytest.mark.parametrize("every", ["train.checkpoint_every=null", "train.checkpoint_every=20"])
@pytest.mark.parametrize("evaluated", ["train.evaluate_every=1", "train.evaluate_every=3"])
def test_a_monitor_ends_training_in_order(tmp_path, every, evaluated):
    """With a checkpoint and an evaluation of what was learned, wherever those would have been."""
    listener = Listener(last=2)
    config = config_for(tmp_path / "run", "train.epochs=4", every, evaluated, "train.keep_best=true")
    result = train(config, monitors=[listener]).result
    whole = train(config_for(tmp_path / "whole", "train.epochs=2", every)).result
    for name in ("steps", "weights_sha256", "valid_error", "test_error"):
        assert result[name] == whole[name]
    assert (result["stopped_early"], result["best_valid_error"]) == (True, result["valid_error"])
    assert newest(tmp_path / "run")[1].totals.errors["valid_error"] == result["valid_error"]
    [event] = [line for line in read_metrics(tmp_path / "run") if line.get("event") == "stopped early"]
    assert (event["step"], event["message"]) == (60, "asked for by Listener")
    more = resume(tmp_path / "run").result
    assert (more["steps"], more["stopped_early"]) == (120, False)


def test_to_end_with_the_last_epoch_is_not_early(tmp_path):
    result = train(config_for(tmp_path / "run", "train.epochs=2"), monitors=[Listener(last=2)]).result
    assert result["stopped_early"] is False


def test_a_resumed_run_says_where_it_begins(tmp_path):
    train(config_for(tmp_path / "run"))
    listener = Listener()
    resume(tmp_path / "run", ["train.epochs=2"], monitors=[listener])
    assert listener.starts == [Start("small", tmp_path / "run", 60, 2, step=30)]
    assert [epoch.number for epoch in listener.epochs] == [2]


def test_the_speed_of_an_epoch_is_of_all_of_it_also_after_a_restart(tmp_path):
    train(config_for(tmp_path / "run", "train.max_steps=20"))
    before = newest(tmp_path / "run")[1].totals
    assert (before.epoch_examples, before.epoch_seconds) == (800, before.seconds)
    listener = Listener()
    resume(tmp_path / "run", ["train.max_steps=null"], monitors=[listener])
    assert 1200 / listener.epochs[0].samples_per_second > before.seconds


class Broken(Listener):
    """Raises in one of its methods."""

    def __init__(self, method: str, error: Exception) -> None:
        super().__init__()
        self.method, self.error = method, error

    def begin(self, start: Start) -> None:
        super().begin(start)
        self._maybe("begin")

    def write(self, line: Line) -> None:
        super().write(line)
        if line.event is None or line.event == "failed":
            self._maybe("write")

    def end_epoch(self, epoch: Epoch) -> bool:
        self._maybe("end_epoch")
        return super().end_epoch(epoch)

    def close(self) -> None:
        super().close()
        self._maybe("close")

    def _maybe(self, method: str) -> None:
        if method == self.method:
            raise self.error


@pytest.mark.parametrize(
    ("method", "last"), [("begin", ""), ("write", "failed"), ("end_epoch", "failed"), ("close", "finished")]
)
def test_an_error_in_a_monitor_is_one_line_that_names_it(tmp_path, method, last):
    broken, other = Broken(method, KeyError("no\nsuch")), Listener()
    with pytest.raises(CallbackError) as caught:
        train(config_for(tmp_path / "run"), monitors=[broken, other])
    assert re.fullmatch(
        rf"monitors: Broken\.{method} \({re.escape(__file__)}, line \d+\) raised KeyError: 'no\\nsuch'",
        str(caught.value),
    )
    assert (caught.value.exit_code, broken.told[-1], other.told[-1]) == (1, "close", "close")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines[-1:]] == [last] * bool(last)


def test_what_had_been_trained_by_then_is_kept_and_the_advice_works(tmp_path):
    paper = Paper()
    watch = [lambda steps, epochs: ConsoleMonitor(paper, steps, epochs)]
    config = config_for(tmp_path / "run", "train.epochs=2")
    with pytest.raises(CallbackError):
        train(config, monitors=[Broken("end_epoch", OSError("full"))], watch=watch)
    assert newest(tmp_path / "run")[1].step == 30
    typed(advised(paper.export_text()))
    assert read_result(tmp_path / "run")["steps"] == 60


def test_an_error_while_a_run_fails_does_not_hide_why(tmp_path):
    """Neither the one of a monitor that hears of it, nor the one of a monitor that is closed."""

    class Late(Broken):
        def write(self, line: Line) -> None:
            if line.event == "failed":
                raise OSError("late")

    class First(Monitor):
        def write(self, line: Line) -> None:
            if line.event is None:
                raise StorageError("first")

    others = [Late("close", OSError("last")), Broken("close", OSError("last"))]
    with pytest.raises(CallbackError, match=r"First.write .* raised StorageError: first"):
        train(config_for(tmp_path / "run"), monitors=[First(), *others])


HANGING = """
import signal, sys, time
from dtp_dist import Monitor, load_config, train
from dtp_dist.system.interruption import take_signals

class Hanging(Monitor):
    def end_epoch(self, epoch):
        signal.raise_signal(signal.SIGINT)
        time.sleep(3600)

take_signals()
train(load_config(sys.argv[1], ["run_dir=run", "monitor.tensorboard=false"]), monitors=[Hanging()])
"""


@pytest.mark.slow
def test_a_monitor_that_hangs_can_be_interrupted(tmp_path):
    call = [sys.executable, "-c", HANGING, write_config(tmp_path)]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode != 0
    last = read_metrics(tmp_path / "run")[-1]
    assert (last["event"], last["step"]) == ("interrupted", 30)


@pytest.mark.parametrize(
    ("monitors", "line"),
    [
        ([Listener], "monitors: Listener is a class; write Listener()"),
        (
            [print],
            "monitors: builtin_function_or_method is no monitor; derive the class from dtp_dist.Monitor",
        ),
        (7, "monitors: 7 is no list; write monitors=[...]"),
    ],
)
def test_what_is_no_monitor_is_refused_before_anything_starts(tmp_path, monitors, line):
    with pytest.raises(ConfigError) as caught:
        train(config_for(tmp_path / "run"), monitors=monitors)
    assert str(caught.value) == line
    assert not (tmp_path / "run").exists()


def test_the_example_of_the_documents_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "callbacks.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    found: dict[str, object] = {}
    exec(compile(code, "callbacks.md", "exec"), found)
    said = capsys.readouterr().out.splitlines()
    epochs = [re.fullmatch(r"epoch (\d+): (\d+\.\d\d) %, [\d,]+ samples/s", line) for line in said]
    assert [int(match[1]) for match in epochs if match] == list(range(1, len(said) + 1))
    assert [float(match[2]) < 15 for match in epochs if match] == [False] * (len(said) - 1) + [True]
    assert found["result"]["stopped_early"]  # type: ignore[index]
