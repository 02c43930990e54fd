"""Experiment trackers as a run sees them: never waited for, reported once, and told of everything."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dtp_dist import load_config, resume, train
from dtp_dist.errors import ConfigError
from dtp_dist.loggers.base import Logger, Point, State, Tracked
from dtp_dist.loggers.parameters import CONCEALED, parameters_of
from dtp_dist.loggers.table import LOGGERS, check_loggers
from dtp_dist.monitor import tracking
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.tracking import Tracking, read_id
from runs import read_metrics, small, small_config

LIMIT = 30.0


class Recorder(Logger):
    """Keeps what it is given, after ``refused`` errors, as soon as ``free`` is set."""

    made: list[Recorder] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.refused, self.free = 0, threading.Event()
        self.free.set()
        self.opened: list[tuple[Tracked, str | None]] = []
        self.points: list[Point] = []
        self.ended: list[tuple[State, Mapping[str, str]]] = []
        self.keeps = True
        self.made.append(self)

    def open(self, run: Tracked, kept: str | None) -> str:
        self._maybe()
        self.opened.append((run, kept))
        return kept if kept and self.keeps else f"id-{len(self.made)}"

    def log(self, points: Sequence[Point]) -> None:
        self._maybe()
        self.points += points

    def end(self, state: State, facts: Mapping[str, str]) -> None:
        self._maybe()
        self.ended.append((state, facts))

    def _maybe(self) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert self.free.wait(LIMIT)
        if self.refused:
            self.refused -= 1
            raise ConnectionError("no\nserver")


@pytest.fixture(autouse=True)
def recorders(monkeypatch) -> Iterator[list[Recorder]]:
    """What stands in place of MLflow, and what was made of it."""
    monkeypatch.setitem(LOGGERS, "mlflow", "test_tracking:Recorder")
    monkeypatch.setattr(tracking, "PAUSES", (0.01,))
    Recorder.made.clear()
    yield Recorder.made
    for each in Recorder.made:
        each.free.set()


class Watched:
    """A tracker by itself, and its warnings."""

    def __init__(self, folder: Path) -> None:
        self.logger, self.warnings = Recorder(), queue.SimpleQueue[str]()
        self.logger.free.clear()
        run = Tracked("exp", folder, {"a": 1})
        self.waits: list[str] = []
        self.monitor = Tracking("mlflow", self.logger, run, self.warnings.put, self.waits.append)

    def said(self) -> list[str]:
        return [self.warnings.get() for _ in range(self.warnings.qsize())]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.logger.free.set()
    made.monitor.close()


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def line(step: int, **values: float) -> Line:
    return Line(step, 1, 0.0, values or {"train_loss": float(step)})


def test_no_line_waits_for_a_tracker_and_all_get_there_in_order(watched):
    for step in range(1000):
        watched.monitor.write(line(step))
    assert watched.logger.points == []
    watched.logger.free.set()
    watched.monitor.close()
    assert [(point.step, point.values) for point in watched.logger.points] == [
        (step, {"train_loss": float(step)}) for step in range(1000)
    ]
    assert abs(time.time() - watched.logger.points[0].time) < 600
    assert watched.said() == []


def test_a_tracker_that_can_not_be_reached_is_reported_once_and_tried_again(watched):
    watched.logger.refused = 5
    watched.logger.free.set()
    for step in range(20):
        watched.monitor.write(line(step))
    wait_for(lambda: len(watched.logger.points) == 20)
    watched.monitor.close()
    assert [point.step for point in watched.logger.points] == [*range(20)]
    assert watched.said() == [
        "mlflow: ConnectionError: no server; training continues, and mlflow is tried again"
    ]
    assert len(watched.logger.ended) == 1


def test_what_never_got_there_is_said_in_the_end(watched):
    watched.logger.refused = 10**9
    watched.logger.free.set()
    for step in range(3):
        watched.monitor.write(line(step))
    watched.monitor.close()
    watched.monitor.close()
    first, last = watched.said()
    assert first.startswith("mlflow: ConnectionError: no server")
    assert last == "mlflow: 3 lines did not get there; metrics.jsonl has everything"


def test_a_run_waits_for_a_tracker_that_hangs_for_a_limited_time(watched, monkeypatch):
    monkeypatch.setattr(tracking, "LIMIT", 0.05)
    monkeypatch.setattr(tracking, "UNSAID", 0.01)
    watched.monitor.close()
    assert watched.said() == ["mlflow: the end of the run did not get there; metrics.jsonl has everything"]
    assert watched.waits == ["waiting for mlflow to take what is left, 0 s at most"]


def test_a_tracker_that_does_not_answer_is_reported_while_it_hangs(watched, monkeypatch):
    monkeypatch.setattr(tracking, "SILENCE", 0.0)
    watched.monitor.write(line(1))

    def reported() -> bool:
        watched.monitor.write(line(2))
        return watched.warnings.qsize() > 0

    wait_for(reported)
    for step in range(5):
        watched.monitor.write(line(step))
    watched.logger.free.set()
    watched.monitor.close()
    assert watched.said() == [
        "mlflow: has not answered for 0 s; training continues, and mlflow is tried again"
    ]


def test_what_waits_is_limited(watched, monkeypatch):
    monkeypatch.setattr(tracking, "MOST", 10)
    for step in range(50):
        watched.monitor.write(line(step))
    watched.logger.free.set()
    watched.monitor.close()
    assert [point.step for point in watched.logger.points] == [*range(10)]
    assert watched.said() == ["mlflow: 40 lines did not get there; metrics.jsonl has everything"]


def test_a_pass_of_inverse_updates_has_names_and_steps_of_its_own(watched):
    values = {"layer/2/inverse_loss": 1.0, "samples_per_second": 9.0}
    watched.monitor.write(Line(0, 1, 0.0, values, None, {"minibatch": 10, "phase": "inverse"}))
    watched.logger.free.set()
    watched.monitor.close()
    [(step, _, found)] = watched.logger.points
    assert (step, found) == (10, {"layer/2/inverse_loss": 1.0, "inverse_pass/samples_per_second": 9.0})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"ab-12_C\n", "ab-12_C"),
        (b"", None),
        (b"../x", None),
        (b"a b", None),
        (b"a" * 300, None),
        (b"\xff", None),
    ],
)
def test_an_id_in_a_run_s_folder_is_one_or_nothing(tmp_path, content, found):
    (tmp_path / "mlflow.id").write_bytes(content)
    assert read_id(tmp_path / "mlflow.id") == found
    assert read_id(tmp_path / "nothing.id") is None


def train_with(run_dir: Path, *overrides: str):
    logged = ("monitor.loggers=[mlflow]", "monitor.tensorboard=false", f"run_dir={run_dir}")
    return train(small_config(*logged, *overrides)).result


def test_a_run_hands_on_its_parameters_its_values_and_its_end(tmp_path, recorders):
    result = train_with(tmp_path / "run")
    [made] = recorders
    [(run, kept)] = made.opened
    assert (run.experiment, run.run_dir, kept) == ("small", tmp_path / "run", None)
    assert run.parameters["train.epochs"] == 1
    assert run.parameters["model.layers.4.units"] == 32
    assert "train.max_steps" not in run.parameters, "it is not set"
    lines = [each for each in read_metrics(tmp_path / "run") if "idle" in each]
    points = [point for point in made.points if "idle" in point.values]
    assert [point.step for point in points] == [each["step"] for each in lines] == [10, 20, 30]
    for point, each in zip(points, lines, strict=True):
        assert point.values["samples_per_second"] == pytest.approx(each["samples_per_second"], rel=1e-5)
    assert made.points[-1].values["valid_error"] == result["valid_error"]
    facts = {"run_dir": str(tmp_path / "run"), "weights_sha256": result["weights_sha256"]}
    assert made.ended == [(State.FINISHED, facts)]
    assert read_id(tmp_path / "run" / "mlflow.id") == "id-1"


def test_a_resumed_run_continues_the_tracker_s(tmp_path, recorders):
    train_with(tmp_path / "run")
    resume(tmp_path / "run", ["train.epochs=2"])
    assert [kept for each in recorders for _, kept in each.opened] == [None, "id-1"]
    assert [point.step for point in recorders[1].points] == [40, 50, 60, 60]
    assert recorders[1].opened[0][0].parameters["train.epochs"] == 2
    assert read_id(tmp_path / "run" / "mlflow.id") == "id-1"


def test_a_run_that_the_tracker_has_no_more_is_begun_anew(tmp_path, monkeypatch):
    train_with(tmp_path / "run")
    monkeypatch.setattr(Recorder, "open", lambda self, run, kept: "other")
    resume(tmp_path / "run", ["train.epochs=2"])
    assert read_id(tmp_path / "run" / "mlflow.id") == "other"
    [said] = [each["message"] for each in read_metrics(tmp_path / "run") if each.get("event") == "warning"]
    assert said == "mlflow: there is no run id-1 any more; a new one is begun: other"


def test_a_run_that_fails_fails_there_and_one_without_a_tracker_ends_as_well(tmp_path, recorders):
    with pytest.raises(Exception, match="train"):
        train_with(tmp_path / "run", "optimizer.forward={name: sgd, lr: 1e30}", "rule.target_step=1e30")
    assert [state for state, _ in recorders[0].ended] == [State.FAILED]


def test_a_server_that_is_away_costs_a_run_nothing_but_two_warnings(tmp_path, monkeypatch):
    plain = train(small_config(f"run_dir={tmp_path / 'plain'}", "monitor.tensorboard=false")).result

    def refuse(*_: object) -> str:
        raise ConnectionError("refused")

    monkeypatch.setattr(Recorder, "open", refuse)
    result = train_with(tmp_path / "run")
    assert result["weights_sha256"] == plain["weights_sha256"]
    said = [each["message"] for each in read_metrics(tmp_path / "run") if each.get("event") == "warning"]
    assert said == [
        "mlflow: ConnectionError: refused; training continues, and mlflow is tried again",
        "mlflow: 4 lines did not get there; metrics.jsonl has everything",
    ]
    assert not (tmp_path / "run" / "mlflow.id").exists()


def test_a_package_that_is_not_there_is_refused_before_anything_starts(tmp_path, monkeypatch):
    """Also where a folder has its name, as trackers leave them."""
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("no_such_tracker", "nor_this_one"):
        with pytest.raises(ConfigError) as caught:
            check_loggers(["json", name])
        assert str(caught.value) == (
            f"monitor.loggers: {name} is not installed; "
            f"install it: pip install 'dtp-dist[{name}]', or leave it out"
        )
    monkeypatch.setattr("dtp_dist.loggers.table.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"monitor.loggers: mlflow is not installed"):
        train_with(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("[mlflow,mlflow]", "mlflow, mlflow: one is there twice; leave it out once"),
        ("[wandbb]", "['wandbb'] is not allowed; it must be one of mlflow, wandb"),
        ("mlflow", "'mlflow' is not allowed; it must be a list such as [mlflow]"),
    ],
)
def test_a_list_that_is_none_is_one_line(value, line):
    with pytest.raises(ConfigError) as caught:
        small_config(f"monitor.loggers={value}")
    assert str(caught.value) == f"monitor.loggers: {line}"


def test_secrets_stay_here():
    config = {
        "data": {
            "root": "https://me:mine@host/data",
            "options": {"token": "abc", "api_key": 7, "max_tokens": 9, "note": "say s3cr3ts please"},
        },
        "run_dir": "runs/x",
        "seed": 0,
        "train": {"max_steps": None, "keep_best": True},
    }
    environment = {"HUB_TOKEN": "s3cr3ts", "HOME": "runs/x", "SHORT_KEY": "x"}
    found = parameters_of(config, environment, lambda text: text.replace("please", "(gone)"))
    assert found == {
        "data.root": f"https://{CONCEALED}@host/data",
        "data.options.token": CONCEALED,
        "data.options.api_key": CONCEALED,
        "data.options.max_tokens": 9,
        "data.options.note": "say ${HUB_TOKEN} (gone)",
        "run_dir": "runs/x",
        "seed": 0,
        "train.keep_best": True,
    }


def test_what_came_from_the_environment_is_shown_as_it_was_written(tmp_path, monkeypatch, recorders):
    monkeypatch.setenv("OF_MINE", "only-mine")
    raw = small(name="${oc.env:OF_MINE}", monitor={"loggers": ["mlflow"], "tensorboard": False})
    train(load_config(raw, [f"run_dir={tmp_path / 'run'}", "train.max_steps=2"]))
    assert recorders[0].opened[0][0].parameters["name"] == "${oc.env:OF_MINE}"


def test_long_values_are_cut():
    found = parameters_of({"x": "a" * 1000}, {}, str)
    assert found == {"x": "a" * 499 + "…"}
