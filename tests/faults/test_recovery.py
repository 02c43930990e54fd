"""A disturbed run ends as if it had not been: recovery by itself, and ``resume``."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

import dtp_dist
from dtp_dist import load_config
from dtp_dist.errors import StorageError
from runs import LOCAL, LiveRun, newest, read_metrics, read_result, run_cli, the_line, write_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_stages")]
RUN = ("train.epochs=4", "train.checkpoint_every=20", "parallel.in_flight=2")
SAME = ("steps", "train_loss", "train_error", "valid_error", "test_error", "weights_sha256")


def train(folder: Path, name: str, *overrides: str) -> None:
    """From this process, which need not import everything first."""
    dtp_dist.train(load_config(write_config(folder), [f"run_dir={folder / name}", *LOCAL, *RUN, *overrides]))


def typed(folder: Path, name: str, *overrides: str, **env: str) -> Any:
    config = write_config(folder)
    return run_cli("train", config, f"run_dir={folder / name}", *LOCAL, *RUN, *overrides, cwd=folder, env=env)


def outcome(folder: Path, name: str) -> dict[str, Any]:
    result = read_result(folder / name)
    return {key: result[key] for key in SAME}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, "run")
    return outcome(folder, "run")


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        ("stage=0 minibatch=67 action=T do=kill", "SIGKILL"),
        ("stage=1 minibatch=50 action=U do=kill", "SIGKILL"),
        ("stage=1 minibatch=33 action=F do=freeze", "no sign of life"),
        ("stage=0 minibatch=3 action=I do=kill", "SIGKILL"),
        ("stage=0 minibatch=50 action=F do=drop", "1 message(s) before it were lost"),
    ],
)
def test_a_lost_stage_is_replaced_and_the_bits_stay(tmp_path, monkeypatch, undisturbed, fault, lost):
    monkeypatch.setenv("DTP_DIST_FAULT", fault)
    train(tmp_path, "run", "parallel.failure_timeout=4")
    assert outcome(tmp_path, "run") == undisturbed
    assert read_result(tmp_path / "run")["restarts"] == 1
    events = [
        line for line in read_metrics(tmp_path / "run") if line.get("event") in ("stage lost", "recovered")
    ]
    assert [line["event"] for line in events] == ["stage lost", "recovered"]
    assert lost in events[0]["message"]
    assert events[1]["step"] % 20 == 0


@pytest.mark.parametrize("transport", ["shm", "ipc", "tcp"])
def test_a_cut_link_is_noticed_and_the_bits_stay(tmp_path, monkeypatch, undisturbed, transport):
    monkeypatch.setenv("DTP_DIST_FAULT", "stage=1 minibatch=50 action=T do=cut")
    train(tmp_path, "run", f"parallel.transport={transport}", "parallel.failure_timeout=3")
    assert outcome(tmp_path, "run") == undisturbed
    assert read_result(tmp_path / "run")["restarts"] == 1
    [lost] = [line for line in read_metrics(tmp_path / "run") if line.get("event") == "stage lost"]
    assert "a message was lost: all stages wait for one: stage 0" in lost["message"]


def test_a_dropped_message_that_none_follows_is_noticed_and_the_bits_stay(tmp_path, monkeypatch):
    """With D = 1 there is no next message whose number would tell."""
    exact = ("parallel.in_flight=1", "train.epochs=3", "parallel.failure_timeout=3")
    whole = load_config(write_config(tmp_path), [f"run_dir={tmp_path / 'whole'}", *RUN, *exact])
    dtp_dist.train(whole)
    monkeypatch.setenv("DTP_DIST_FAULT", "stage=1 minibatch=50 action=T do=drop")
    train(tmp_path, "run", *exact)
    assert outcome(tmp_path, "run") == outcome(tmp_path, "whole")
    [lost] = [line for line in read_metrics(tmp_path / "run") if line.get("event") == "stage lost"]
    assert "a message was lost: all stages wait for one: stage 0" in lost["message"]


def test_a_run_that_loses_stages_too_often_ends(tmp_path):
    faults = [f"generation={number} stage=1 minibatch=30 action=U do=kill" for number in range(3)]
    done = typed(tmp_path, "run", "parallel.max_restarts=1", DTP_DIST_FAULT=";".join(faults))
    assert done.returncode == 1
    assert "stage 1 was lost" in the_line(done)
    assert re.search(rf"; resume it: \S*dtp-dist resume {tmp_path / 'run'}\n", done.stdout)
    assert [line.get("event") for line in read_metrics(tmp_path / "run")].count("stage lost") == 1


def test_what_would_come_back_is_not_retried(tmp_path):
    done = typed(tmp_path, "run", DTP_DIST_FAULT="stage=1 minibatch=50 action=U do=raise")
    assert done.returncode == 1
    assert "minibatch 50: RuntimeError: injected fault" in the_line(done)
    assert "stage lost" not in [line.get("event") for line in read_metrics(tmp_path / "run")]


def test_a_run_that_failed_is_resumed_to_the_same_bits(tmp_path, undisturbed):
    """From the checkpoint before the newest: the one of step 60 may not be whole yet, those before it are."""
    assert typed(tmp_path, "run", DTP_DIST_FAULT="stage=1 minibatch=65 action=U do=raise").returncode == 1
    folder, manifest = newest(tmp_path / "run")
    (folder / "layer-002.safetensors").write_bytes(b"truncated")
    done = run_cli("resume", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert manifest.step in (40, 60)
    passed_over = f"resumed at step {manifest.step - 20}: checkpoint passed over, an older one taken: "
    assert passed_over in done.stdout
    assert "layer-002.safetensors: has 9 bytes instead of" in done.stdout
    assert outcome(tmp_path, "run") == undisturbed


def test_a_killed_driver_is_resumed_to_the_same_bits(tmp_path, undisturbed):
    write_config(tmp_path)
    slow = {"DTP_DIST_FAULT": "stage=1 minibatch=90 action=F do=sleep"}
    run = LiveRun(tmp_path, tmp_path, *LOCAL, *RUN, env=slow)
    try:
        run.wait_for_event("checkpoint")
        with pytest.raises(StorageError, match="another process is at work in it"):
            dtp_dist.resume(run.run_dir)
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        run.wait_for_nothing_left()
    finally:
        run.close()
    assert run_cli("resume", run.run_dir, cwd=tmp_path).returncode == 0
    assert outcome(tmp_path, "run") == undisturbed


def test_an_exact_run_is_resumed_on_other_stages_and_runtimes_and_for_longer(tmp_path):
    exact = ("parallel.in_flight=1", "train.checkpoint_every=null")
    train(tmp_path, "whole", *exact, "train.epochs=5")
    train(tmp_path, "part", *exact, "train.epochs=3")
    more = ("train.epochs=5", "parallel.stages=3", "parallel.runtime=inprocess")
    done = run_cli("resume", tmp_path / "part", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "changed" not in done.stdout, "nothing ends the guarantee where D = 1"
    assert outcome(tmp_path, "part") == outcome(tmp_path, "whole")


def test_resume_says_what_ends_the_guarantee_and_refuses_another_experiment(tmp_path):
    train(tmp_path, "run", "train.epochs=1")
    folder = tmp_path / "run"
    done = run_cli("resume", folder, cwd=tmp_path)
    assert done.returncode == 2
    assert "is trained to its end" in the_line(done)
    other = run_cli("resume", folder, "train.epochs=2", "optimizer.forward.lr=0.5", cwd=tmp_path)
    assert other.returncode == 2
    assert "optimizer.forward.lr: was 0.001, now 0.5: that is another experiment" in the_line(other)
    more = run_cli("resume", folder, "train.epochs=2", "parallel.stages=3", cwd=tmp_path)
    assert more.returncode == 0
    assert "parallel.stages changed with more than one minibatch in flight" in more.stdout
    resumed = [line for line in read_metrics(folder) if line.get("event") == "resumed"]
    assert resumed[0]["overrides"] == ["train.epochs=2", "parallel.stages=3"]
    assert json.loads((folder / "result.json").read_text())["stages"] == 3


def test_encrypted_links_end_with_the_same_bits(tmp_path, undisturbed):
    train(tmp_path, "run", "parallel.transport=tcp")
    assert outcome(tmp_path, "run") == undisturbed


def test_a_killed_stage_changes_neither_the_best_checkpoint_nor_the_early_end(tmp_path, monkeypatch):
    rising = "optimizer.forward.lr={schedule: step, start: 0.003, factor: 30, every: 3}"
    judged = (
        rising,
        "train.keep_best=true",
        "train.patience=2",
        "train.keep_checkpoints=1",
        "train.epochs=6",
    )
    train(tmp_path, "whole", *judged)
    monkeypatch.setenv("DTP_DIST_FAULT", "stage=0 minibatch=130 action=T do=kill")
    train(tmp_path, "run", *judged)
    whole, result = (read_result(tmp_path / name) for name in ("whole", "run"))
    kept = (*SAME, "stopped_early", "best_step", "best_epoch", "best_valid_error")
    assert {key: result[key] for key in kept} == {key: whole[key] for key in kept}
    assert (result["restarts"], result["stopped_early"]) == (1, True)
    folders = [
        sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("whole", "run")
    ]
    assert folders[0] == folders[1]
