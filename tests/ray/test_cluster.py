"""A Ray cluster of three nodes: the same bits whatever is lost of it, and one line where there is no room."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dtp_dist import load_config, resume, train
from runs import PATIENCE, LiveRun, read_metrics, read_result, run_cli, the_line, wait_until, write_config

pytestmark = pytest.mark.slow
START = 600.0
RUN = ("train.epochs=3", "train.checkpoint_every=20", "parallel.in_flight=2")
LIMITS = ("parallel.failure_timeout=6", "parallel.start_timeout=600")
RAY = ("parallel.runtime=ray", "parallel.placement=spread", *LIMITS)


class Nodes:
    """Three nodes of three CPUs in processes of their own; ``env`` lets a run connect to them."""

    def __init__(self, folder: Path) -> None:
        self._said = folder / "said"
        self.logs = folder / "ray" / "session_latest" / "logs"
        private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "TMPDIR": str(folder)}
        with self._said.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("nodes.py")],
                env={**os.environ, **private, "RAY_USAGE_STATS_ENABLED": "0"},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=out,
                text=True,
            )
        self.env = {**private, "RAY_ADDRESS": self._line(0)}

    def _line(self, number: int) -> str:
        wait_until(lambda: len(self._lines()) > number, START, lambda: f"said {self._lines()}")
        return self._lines()[number]

    def _lines(self) -> list[str]:
        assert self.process.poll() is None
        return self._said.read_text().splitlines()

    def remove_node_of(self, pid: int) -> None:
        assert self._ask(str(pid)) == "removed"

    def _ask(self, text: str) -> str:
        before = len(self._lines())
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        return self._line(before)

    @contextmanager
    def broken_gpu(self) -> Iterator[None]:
        """Let a node be there whose GPU torch can't use."""
        assert self._ask("gpu") == "joined"
        try:
            yield
        finally:
            assert self._ask("no gpu") == "left"

    def close(self) -> None:
        everything = psutil.Process(self.process.pid).children(recursive=True)
        try:
            self.process.communicate(timeout=PATIENCE)
        finally:
            for each in (self.process, *everything):
                if each.poll() is None if isinstance(each, subprocess.Popen) else each.is_running():
                    each.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    started = Nodes(folder)
    yield started
    started.close()
    shutil.rmtree(folder)


def undisturbed(folder: Path, *overrides: str) -> str:
    """Return the hash that a run in one process ends with."""
    config = load_config(write_config(folder), [f"run_dir={folder / 'whole'}", *overrides])
    weights: str = train(config).result["weights_sha256"]
    return weights


def events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run_dir) if line.get("event") == name]


def test_a_run_for_which_there_is_no_room_ends_with_what_was_asked_and_what_there_is(tmp_path, nodes):
    big = ("parallel.stages=3", "parallel.threads=10", "parallel.placement_timeout=2")
    done = run_cli(
        *("train", write_config(tmp_path), *RAY, *big, f"run_dir={tmp_path / 'run'}"),
        cwd=tmp_path,
        env=nodes.env,
    )
    assert done.returncode == 1
    asked, _, there = the_line(done).partition("; the cluster has ")
    assert asked == "error: 3 stages of 10 CPU each were not placed within 2 s (parallel.placement_timeout)"
    assert there.partition(" CPU")[0] in ("3", "6", "9")


@pytest.mark.parametrize(
    ("token", "due"),
    [({}, "Token authentication is enabled but no"), ({"RAY_AUTH_TOKEN": "another"}, "Failed to connect")],
)
def test_who_has_not_the_clusters_token_is_told_so_in_one_line(tmp_path, nodes, token, due):
    config = write_config(tmp_path)
    address = nodes.env["RAY_ADDRESS"]
    stranger = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path), **token}
    refused = run_cli("train", config, *RAY, f"run_dir={tmp_path / 'run'}", cwd=tmp_path, env=stranger)
    assert refused.returncode == 1
    assert the_line(refused).startswith(f"error: RAY_ADDRESS={address}: the cluster can't be joined: {due}")
    assert ("(InvalidAuthToken: " in the_line(refused)) == bool(token)
    assert "or the token (RAY_AUTH_TOKEN)" in the_line(refused)
    assert not (tmp_path / "run").exists()


def test_devices_are_the_clusters_and_a_gpu_that_can_not_be_used_is_an_error(tmp_path, nodes):
    config = write_config(tmp_path)

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        where = ("parallel.runtime=ray", f"run_dir={tmp_path / 'run'}")
        return run_cli("train", config, *where, *overrides, cwd=tmp_path, env=nodes.env)

    refused = run("parallel.device=cuda")
    assert refused.returncode == 2
    assert the_line(refused).startswith(
        "error: parallel.device: cuda is not available: the Ray cluster has no"
    )
    assert not (tmp_path / "run").exists()
    with nodes.broken_gpu():
        failed = run("parallel.stages=auto")
        assert failed.returncode == 1
        assert the_line(failed).startswith("error: stage 0 (layers 1-5) on ")
        assert "): torch can't use its GPU, cuda:0 (" in the_line(failed)
        assert the_line(failed).endswith("or write parallel.device=cpu")
        shutil.rmtree(tmp_path / "run")
        done = run("parallel.device=cpu", "train.max_steps=2")  # what was advised
    assert done.returncode == 0, done.stderr
    (started,) = events(tmp_path / "run", "started")
    assert started["devices"] == ["cpu"]
    assert f"stage 0 (layers 1-5) on {started['nodes'][0]}, cpu" in done.stdout.splitlines()


def test_each_stage_in_turn_may_be_killed_and_checkpoints_pass_through_the_driver(tmp_path, nodes):
    """The run's folder is one that only the driver can see, as on a node without shared storage."""
    two = (*RUN, "parallel.stages=2")
    due = undisturbed(tmp_path, *two)
    faults = "stage=0 minibatch=45 action=F do=kill;generation=1 stage=1 minibatch=70 action=U do=kill"
    done = run_cli(
        *("train", tmp_path / "small.yaml", *RAY, *two, "run_dir=/proc/self/cwd/run"),
        cwd=tmp_path,
        env={**nodes.env, "DTP_DIST_FAULT": faults},
    )
    assert done.returncode == 0, done.stderr
    assert "(raylet)" not in done.stdout, "a loss is told in one line"
    assert read_result(tmp_path / "run")["weights_sha256"] == due
    lost = [line["message"] for line in events(tmp_path / "run", "stage lost")]
    assert [text.partition(" was lost: its actor ended")[0] for text in lost] == ["stage 0", "stage 1"]
    assert all(line["step"] >= 20 for line in events(tmp_path / "run", "recovered"))


class Disturbed:
    """A run of three stages, each of whose generations is held until something is taken from it."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def stages(self, generation: int) -> list[psutil.Process]:
        """Return the stages' processes, when all have been linked and the run has gone on for a while."""
        wait_until(lambda: len(self._started()) > generation, START, lambda: f"start {generation}")
        started = self._started()[generation]
        wait_until(lambda: self._step() >= started["step"] + 20, START, lambda: "a checkpoint")
        return [psutil.Process(pid) for pid in started["processes"]]

    def _started(self) -> list[dict[str, Any]]:
        assert self._run.process.poll() is None, self._run.process.communicate()[1]
        return self._run.events("started")

    def _step(self) -> int:
        return max((line["step"] for line in self._run.events("checkpoint")), default=0)


def linked_by_tcp(one: psutil.Process, other: psutil.Process) -> bool:
    here = {each.laddr for each in one.net_connections("tcp")}
    return any(each.raddr in here for each in other.net_connections("tcp") if each.raddr)


def test_a_node_is_removed_then_one_is_cut_off_then_the_driver_is_killed(tmp_path, nodes):
    three = (*RUN, "parallel.stages=3")
    due = undisturbed(tmp_path, *three)
    held = ";".join(
        f"generation={number} stage=2 minibatch={number * 20 + 25} action=U do=sleep" for number in range(3)
    )
    run = LiveRun(tmp_path, tmp_path, *RAY, *three, env={**nodes.env, "DTP_DIST_FAULT": held})
    disturbed, frozen = Disturbed(run), []
    try:
        stages = disturbed.stages(0)
        assert linked_by_tcp(stages[0], stages[1])
        assert linked_by_tcp(stages[1], stages[2])
        log = next(nodes.logs.glob(f"worker-*-{stages[1].pid}.err")).read_text()
        assert ":actor_name:dtp stage 1: layer 3 of small (" in log
        raylets = sorted((each.parent() for each in stages), key=lambda each: each.create_time())
        assert len(set(raylets)) == 3
        _, removed, cut = raylets  # the first is the head's
        nodes.remove_node_of(next(each.pid for each in stages if each.parent() == removed))

        stages = disturbed.stages(1)
        assert cut in [each.parent() for each in stages]
        frozen = [cut, *cut.children(recursive=True)]
        for each in frozen:
            each.suspend()

        stages = disturbed.stages(2)
        assert cut not in [each.parent() for each in stages]
        run.process.kill()
        wait_until(lambda: not any(each.is_running() for each in stages), PATIENCE, lambda: f"left: {stages}")
    finally:
        for each in frozen:
            each.kill()
        run.close()
    assert [line["step"] for line in events(run.run_dir, "recovered")] == [20, 40]
    assert "no sign of life" in events(run.run_dir, "stage lost")[1]["message"]
    resumed = resume(run.run_dir, ["parallel.runtime=inprocess"])
    assert resumed.result["weights_sha256"] == due
