"""A search through Ray Tune: trials are ordinary runs, the worse are stopped, and the same call goes on."""

from __future__ import annotations

import csv
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from beside import MINE
from dtp_dist import load_config, train
from dtp_dist.storage.lock import locked
from runs import PATIENCE, command, read_result, run_cli, small, the_line, write_config

pytestmark = pytest.mark.slow
SPACE = "optimizer.forward.lr: {choice: [1.0e-3, 1.0e-5, 1.0e+38]}\n"
"""With seed 0: 1e-3, 1e-3, 1e38, 1e-5."""


def start(folder: Path, *call: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("tune", *call),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_interrupted_search_goes_on_where_it_was(tmp_path):
    """Its rule lies next to its configuration, away from the working directory."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine_here.py").write_text(MINE)
    write_config(tmp_path / "mine", small(train={"epochs": 3}, rule={"name": "mine_here:Mine"}))
    (tmp_path / "space.yaml").write_text(SPACE)
    options = ("--trials", "4", "--out", "search", "--asha", "--parallel", "1")
    call = ("mine/small.yaml", "--space", "space.yaml", *options)
    process = start(tmp_path, *call)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial_0001  epoch 1/3"):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, said) == (1, "interrupted; nothing is left running\n")
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []

    with locked(tmp_path / "search"):
        refused = run_cli("tune", *call, cwd=tmp_path)
    assert refused.returncode == 1
    assert the_line(refused).startswith("error: search: another process is at work in it")
    done = run_cli("tune", *call, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 of 4 trials to train" in done.stdout
    assert "trial_0000  epoch" not in done.stdout, "it was done"
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").open()))
    assert [(row["trial"][-1], row["state"]) for row in rows] == [
        *(("0", "done"), ("1", "done"), ("3", "stopped"), ("2", "failed")),
    ]
    assert "layer 5, minibatch" in rows[3]["message"]
    best = load_config(tmp_path / "search" / "best.yaml", [f"run_dir={tmp_path / 'best'}"])
    due = train(best).result["weights_sha256"]
    for trial in ("trial_0000", "trial_0001"):
        assert read_result(tmp_path / "search" / trial)["weights_sha256"] == due
    assert run_cli("tune", *call, cwd=tmp_path).returncode == 0, "nothing is left to do"


def test_a_search_that_can_not_start_is_one_line(tmp_path):
    write_config(tmp_path)
    (tmp_path / "space.yaml").write_text("optimizer.forward.rate: {uniform: [0, 1]}\n")
    done = run_cli("tune", "small.yaml", "--space", "space.yaml", "--trials", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "optimizer.forward.rate: unknown key" in the_line(done)
    assert not (tmp_path / "runs").exists()
