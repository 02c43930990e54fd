"""What only looks like a fault: a driver that was away, a run that was stopped, slow starts and disks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

import dtp_dist
from dtp_dist import load_config
from dtp_dist.errors import StageLostError, StartError
from dtp_dist.training import driver
from runs import LOCAL, SMALL, LiveRun, read_metrics, read_result, write_config

pytestmark = pytest.mark.slow
LIMIT = ("parallel.failure_timeout=2", "train.checkpoint_every=20", "train.epochs=4")

SLOW_LAYER = """
import ctypes
from torch import nn

ctypes.PyDLL(None).sleep(5)  # holds the interpreter, as a cold import does


def pair(input_shape):
    return nn.Linear(input_shape[0], 12), nn.Linear(12, input_shape[0])
"""


def train(folder: Path, name: str, *overrides: str, raw: Any = SMALL) -> dict[str, Any]:
    path = write_config(folder, raw)
    dtp_dist.train(load_config(path, [f"run_dir={folder / name}", *LOCAL, *LIMIT, *overrides]))
    return read_result(folder / name)


def alarms(run_dir: Path) -> list[str]:
    return [line["message"] for line in read_metrics(run_dir) if line.get("event") == "stage lost"]


def test_a_driver_that_is_stopped_and_a_run_that_is_stopped_as_a_whole_lose_no_stage(tmp_path):
    due = train(tmp_path, "due")["weights_sha256"]
    held = {"DTP_DIST_FAULT": "stage=1 minibatch=119 action=U do=sleep"}
    run = LiveRun(tmp_path, tmp_path, *LOCAL, *LIMIT, "parallel.max_restarts=0", env=held)
    try:
        run.wait_for_event("checkpoint")
        process = psutil.Process(run.process.pid)
        for who in ([process], [process, *run.stages()], [*run.stages(), process]):
            for each in who:
                each.suspend()
            time.sleep(4.0)
            for each in who:
                each.resume()
            time.sleep(2.5)  # longer than failure_timeout: what was wrongly counted would show now
            assert run.process.poll() is None, run.process.communicate()[1]
    finally:
        run.close()
    assert alarms(run.run_dir) == []
    result = dtp_dist.resume(run.run_dir, ["parallel.runtime=inprocess"]).result
    assert result["weights_sha256"] == due


def test_a_disk_that_is_slower_than_failure_timeout_loses_no_stage(tmp_path, monkeypatch):
    """The driver wrote checkpoints in the loop that listens, and judged before it had read."""
    due = train(tmp_path, "due")["weights_sha256"]
    write = driver.complete_checkpoint

    def slowly(*arguments: Any, **options: Any) -> None:
        time.sleep(3.0)
        write(*arguments, **options)

    monkeypatch.setattr(driver, "complete_checkpoint", slowly)
    result = train(tmp_path, "slow", "train.checkpoint_every=60")
    assert (result["restarts"], result["weights_sha256"]) == (0, due)


def test_a_stage_that_imports_for_longer_than_failure_timeout_is_not_lost(tmp_path, monkeypatch):
    """The limit on silence counted while a process held the interpreter to import: the run never started."""
    (tmp_path / "slow_layer.py").write_text(SLOW_LAYER)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {"input": [64], "layers": [{"kind": "slow_layer:pair"}, {"kind": "dense", "units": 10}]}
    result = train(tmp_path, "run", "train.epochs=1", raw={**SMALL, "model": model})
    assert result["restarts"] == 0
    assert alarms(tmp_path / "run") == []


def test_a_restart_that_fails_is_tried_again(tmp_path, monkeypatch):
    """No room in time, once, when a lost stage was to be replaced: the run ended."""
    due, start = train(tmp_path, "due")["weights_sha256"], driver.start_runtime
    troubles = [StageLostError("stage 1 was lost"), StartError("no room"), StartError("no answer"), None]

    def troubled(*arguments: Any) -> Any:
        trouble = troubles.pop(0)
        if trouble is not None:
            raise trouble
        return start(*arguments)

    monkeypatch.setattr(driver, "start_runtime", troubled)
    result = train(tmp_path, "run")
    assert (result["restarts"], result["weights_sha256"]) == (3, due)
    assert alarms(tmp_path / "run") == ["stage 1 was lost", "no room", "no answer"]


def test_a_first_start_that_fails_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "start_runtime", Mock(side_effect=StartError("no room")))
    with pytest.raises(StartError, match="no room"):
        train(tmp_path, "run")
    assert alarms(tmp_path / "run") == []
