"""``compare`` as it is typed: processes that train, what a kill leaves, and how the same command goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from beside import MINE
from dtp_dist import load_config, train
from runs import (
    PATIENCE,
    WarmProcess,
    read_metrics,
    read_result,
    run_cli,
    small,
    the_line,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.slow
CALL = ("compare", "small.yaml", "--seeds", "0-1", "--dir", "both", "--jobs", "2")
QUIET = "monitor.tensorboard=false"
LONG = ("data.train_examples=600", "train.epochs=12", "train.checkpoint_every=10", QUIET)
NAMES = ("dtp-seed0", "backprop-seed0", "dtp-seed1", "backprop-seed1")


@contextmanager
def started(folder: Path, *more: str) -> Iterator[WarmProcess]:
    """The command under way, ended at the end."""
    process = WarmProcess([*CALL, *more], folder, {**os.environ, "COLUMNS": "300"})
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


def checkpoints(folder: Path, name: str) -> list[Path]:
    return list((folder / "both" / name).glob("checkpoints/*/manifest.json"))


def workers(process: WarmProcess) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def due(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes that the runs are to end with."""
    folder, found = tmp_path_factory.mktemp("due"), {}
    for rule, name in (({"name": "dtp"}, "dtp"), ({"name": "backprop"}, "backprop")):
        for seed in (0, 1):
            place = f"{name}-seed{seed}"
            config = load_config(small(rule=rule), [*LONG, f"seed={seed}", f"run_dir={folder / place}"])
            found[place] = train(config).result["weights_sha256"]
    return found


def hashes(folder: Path) -> dict[str, str]:
    return {name: read_result(folder / "both" / name)["weights_sha256"] for name in NAMES}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_comparison_that_was_ended_goes_on_to_the_same_bits(tmp_path, due, number):
    write_config(tmp_path)
    with started(tmp_path, *LONG) as process:
        wait_until(
            lambda: process.poll() is None and all(checkpoints(tmp_path, name) for name in NAMES[:2]),
            PATIENCE,
            lambda: f"two checkpoints: {process.poll()}",
        )
        children = workers(process)
        assert len(children) == 2
        process.send_signal(number)
        process.wait(PATIENCE)
        said = process.communicate()
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == [], "no worker outlives the command"
    if number == signal.SIGINT:
        assert process.returncode == 1
        assert "the same command continues from here" in said[0]
        assert said[1] == "interrupted; nothing is left running\n"
        assert "not yet" in (tmp_path / "both" / "table.md").read_text()
    ended = {name for name in NAMES if (tmp_path / "both" / name / "result.json").exists()}
    done = run_cli(*CALL, *LONG, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert hashes(tmp_path) == due
    for name in {*NAMES[:2]} - ended:
        events = [line.get("event") for line in read_metrics(tmp_path / "both" / name)]
        assert "resumed" in events
    if number == signal.SIGKILL:
        return  # what follows is the same
    names = {path.name for path in (tmp_path / "both").iterdir() if path.is_file()}
    assert names - {".lock"} == {
        *("compare.yaml", "workers.log", "table.md", "table.csv", "curves.csv"),
        *("error.png", "error.pdf", "loss.png", "loss.pdf"),
    }
    before = (tmp_path / "both" / "table.md").read_text()
    idle = run_cli(*CALL, *LONG, cwd=tmp_path)
    assert idle.returncode == 0
    assert "to train" not in idle.stdout
    assert (tmp_path / "both" / "table.md").read_text() == before
    report = run_cli("report", "both", cwd=tmp_path)
    assert report.returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "dtp (2 seeds)" in page
    assert "backprop (2 seeds)" in page
    assert '<polygon class="band"' in page


def test_a_worker_that_is_killed_fails_its_run_alone_which_the_same_command_resumes(tmp_path, due):
    write_config(tmp_path)
    with started(tmp_path, *LONG) as process:
        wait_until(
            lambda: process.poll() is None and bool(checkpoints(tmp_path, "dtp-seed0")),
            PATIENCE,
            lambda: f"a checkpoint: {process.poll()}",
        )
        victim = next(each for each in workers(process) if str(tmp_path) == each.cwd())
        victim.kill()
        process.wait(PATIENCE)
        out, said = process.communicate()
    assert process.returncode == 1
    assert said.startswith("error: both: 1 of 4 runs failed: ")
    assert "its process was killed by SIGKILL; the same command resumes it" in said
    assert len(said.splitlines()) == 1
    assert "failed" in out
    assert "failed" in (tmp_path / "both" / "table.md").read_text()
    done = run_cli(*CALL, *LONG, cwd=tmp_path)
    assert done.returncode == 0
    assert "1 of 4 runs to train" in done.stdout
    assert hashes(tmp_path) == due


def test_a_run_that_diverges_fails_and_the_others_are_compared(tmp_path):
    write_config(tmp_path, small(compare={"backprop": {"optimizer.forward": {"name": "sgd", "lr": 1e38}}}))
    done = run_cli(*CALL, QUIET, cwd=tmp_path)
    assert done.returncode == 1
    assert "both: 2 of 4 runs failed: backprop-seed0: stage 0" in the_line(done)
    assert "tries again" not in done.stderr, "it would fail again"
    assert "2 of 2" in done.stdout
    assert "0 of 2" in done.stdout


def test_a_rule_next_to_the_configuration_is_compared_from_elsewhere(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine_here.py").write_text(MINE + "\nprint('imported')\n")
    write_config(tmp_path / "mine", small(compare={"mine_here:Mine": {"optimizer.forward.lr": 0.002}}))
    call = ("compare", "mine/small.yaml", "--seeds", "3", "--with", "mine_here:Mine", "--with", "tp")
    done = run_cli(*call, QUIET, "train.max_steps=4", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "runs" / "small-compare"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        *("dtp-seed3", "mine_here-Mine-seed3", "tp-seed3"),
    }
    assert "imported" in (folder / "workers.log").read_text()
    report = run_cli("report", "runs", cwd=tmp_path)
    assert report.returncode == 0


def test_stages_of_a_compared_run_may_be_processes_too(tmp_path):
    write_config(tmp_path)
    parallel = ("parallel.runtime=local", "parallel.stages=2", "train.max_steps=4")
    done = run_cli("compare", "small.yaml", "--seeds", "0", "--dir", "both", *parallel, QUIET, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(read_result(tmp_path / "both" / name)["runtime"] == "local" for name in NAMES[:2])


def test_what_can_t_be_compared_is_one_line_and_leaves_nothing(tmp_path):
    write_config(tmp_path)
    for words, told in [
        (("--with", "bckprop"), "did you mean backprop?"),
        (("--seeds", "x"), "write seeds or ranges of them"),
        (
            ("compare.backprop.optimizer.forward.rate=1",),
            "compare.backprop.optimizer.forward.rate: unknown key",
        ),
    ]:
        done = run_cli("compare", "small.yaml", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert told in the_line(done)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]
