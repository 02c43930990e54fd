"""Real trackers, MLflow with a store in a file and W&B offline: they hold of a run what the run measured."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_resume import Ending

from dtp_dist import resume, train
from dtp_dist.config import Config
from dtp_dist.monitor import tracking
from runs import PATIENCE, read_metrics, read_result, run_cli, small_config, write_config

pytestmark = pytest.mark.slow  # they take seconds to import
NAMES = ("train_loss", "valid_error", "layer/2/inverse_loss")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Whatever else this machine does, the trackers get everything."""
    monkeypatch.setattr(tracking, "LIMIT", PATIENCE)


def config_for(run_dir: Path, logger: str) -> Config:
    quiet = ("monitor.tensorboard=false", "train.checkpoint_every=20", "train.epochs=2")
    return small_config(f"run_dir={run_dir}", f"monitor.loggers=[{logger}]", *quiet)


def interrupted(run_dir: Path, logger: str) -> None:
    """Train until minibatch 50; the newest checkpoint is then of 40."""
    with pytest.raises(KeyboardInterrupt):
        train(config_for(run_dir, logger), watch=[lambda *_: Ending(50)])


def measured(run_dir: Path, name: str) -> list[tuple[int, Any]]:
    """Return (step, value) as metrics.jsonl has them, also what was measured twice."""
    lines = [line for line in read_metrics(run_dir) if name in line]
    return [(line["step"], pytest.approx(line[name], rel=1e-5)) for line in lines]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_mlflow_has_one_run_of_a_run_that_was_resumed(tmp_path, monkeypatch):
    store, run_dir = f"sqlite:///{tmp_path / 'store.db'}", tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    interrupted(run_dir, "mlflow")
    from mlflow import MlflowClient

    client, name = MlflowClient(store), (run_dir / "mlflow.id").read_text()
    assert client.get_run(name).info.status == "KILLED"
    result = resume(run_dir, ["train.epochs=3"]).result
    [found] = client.search_runs([client.get_experiment_by_name("dtp_dist").experiment_id])
    assert (found.info.run_id, found.info.status, found.info.run_name) == (name, "FINISHED", "run")
    params, tags = found.data.params, found.data.tags
    assert (params["model.layers.4.units"], params["rule.name"], params["train.epochs"]) == ("32", "dtp", "2")
    assert tags["resumed.train.epochs"] == "3", "what MLflow calls a parameter can't change"
    assert tags["weights_sha256"] == result["weights_sha256"]
    assert tags["dtp_dist.run_dir"] == str(run_dir)
    for metric in NAMES:
        history = [(each.step, each.value) for each in client.get_metric_history(name, metric)]
        due = measured(run_dir, metric)
        assert sorted(history) == sorted(due, key=lambda each: (each[0], each[1].expected))
    (run_dir / "mlflow.id").write_text("0" * 32)
    resume(run_dir, ["train.epochs=4"])
    [said] = [line["message"] for line in read_metrics(run_dir) if line.get("event") == "warning"]
    other = (run_dir / "mlflow.id").read_text()
    assert said == f"mlflow: there is no run {'0' * 32} any more; a new one is begun: {other}"
    assert client.get_run(other).data.params["train.epochs"] == "4"


def test_a_server_of_mlflow_s_that_is_away_is_a_warning(tmp_path):
    """To the end of the process."""
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    call = ("monitor.loggers=[mlflow]", "monitor.tensorboard=false", f"run_dir={tmp_path / 'run'}")
    done = run_cli("train", write_config(tmp_path), *call, cwd=tmp_path, env=away)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: mlflow: MlflowException: API request to " in done.stdout
    assert read_result(tmp_path / "run")["steps"] == 30


def records(path: Path) -> Iterator[Any]:
    """Yield the records of W&B's file: LevelDB's log, in blocks of 32 KiB, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def is_run(record: Any) -> bool:
    return bool(record.HasField("run"))


def test_wandb_offline_has_what_was_measured_under_one_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_dir = tmp_path / "run"
    interrupted(run_dir, "wandb")
    result = resume(run_dir, ["train.epochs=3"]).result
    name = (run_dir / "wandb.id").read_text()
    files = [list(records(path)) for path in (run_dir / "wandb").glob(f"offline-run-*/run-{name}.wandb")]
    assert len(files) == 2, "one for each process; wandb sync puts them together by their id"
    files.sort(
        key=lambda each: min(record.run.start_time.ToNanoseconds() for record in each if is_run(record))
    )
    found = [record for each in files for record in each]
    runs = [record.run for record in found if is_run(record)]
    settings = {item.key: json.loads(item.value_json) for run in runs for item in run.config.update}
    assert (settings["train.epochs"], settings["model.layers.4.units"]) == (3, 32)
    histories = [record.history.item for record in found if record.HasField("history")]
    rows = [{item.nested_key[0]: json.loads(item.value_json) for item in items} for items in histories]
    for metric in NAMES:
        assert [(row["step"], row[metric]) for row in rows if metric in row] == measured(run_dir, metric)
    ends = [record.exit.exit_code for record in found if record.HasField("exit")]
    assert ends == [1, 0], "it was interrupted, and then finished"
    summary = [str(record.summary) for record in found if record.HasField("summary")]
    assert result["weights_sha256"] in "".join(summary)


def test_wandb_without_a_key_is_a_warning_and_asks_nobody(tmp_path):
    nobody = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(tmp_path)}
    nobody["NETRC"] = str(tmp_path / "none")
    call = ("monitor.loggers=[wandb]", "monitor.tensorboard=false", f"run_dir={tmp_path / 'run'}")
    done = run_cli("train", write_config(tmp_path), *call, cwd=tmp_path, env=nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: wandb: UsageError: No API key configured" in done.stdout
