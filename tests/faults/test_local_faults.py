"""Faults of the local runtime: the run ends within seconds, says where and why, and leaves nothing."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runs import (
    ENDLESS,
    LOCAL,
    PATIENCE,
    LiveRun,
    newest,
    read_metrics,
    run_cli,
    small,
    the_line,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.slow
PATIENT = ("parallel.failure_timeout=1000", "parallel.action_timeout=1000")
"""What is noticed at all is noticed by what it is, and not because some limit has passed."""
LAYERS = {0: r"stage 0 \(layers 1-3\)", 1: r"stage 1 \(layers 4-5\)"}

Start = Callable[..., LiveRun]


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(tmp_path: Path, temporary: Path) -> Iterator[Start]:
    started: list[LiveRun] = []

    def begin(*overrides: str, cold: bool = False, **env: str) -> LiveRun:
        asked = (*LOCAL, *PATIENT, "parallel.max_restarts=0", *overrides)
        started.append(LiveRun(tmp_path, temporary, *asked, env=env, cold=cold))
        return started[-1]

    yield begin
    for run in started:
        run.close()


def assert_ended(run: LiveRun, event: str) -> str:
    """Assert that the run ends by itself with all that is promised; return its line."""
    code, said = run.wait_for_end()
    run.wait_for_nothing_left()
    assert code == 1
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in said
    assert read_metrics(run.run_dir)[-1]["event"] == event
    return said


def assert_checkpoint_kept(run: LiveRun) -> None:
    _, manifest = newest(run.run_dir)
    assert manifest.step > 0
    assert manifest.step % 50 == 0 or manifest.step % 30 == 0


def process_of(run: LiveRun, stage: int) -> psutil.Process:
    run.wait_for_event("checkpoint")
    return psutil.Process(run.wait_for_event("started")["processes"][stage])


@pytest.mark.parametrize("stage", [0, 1])
def test_kill_9_of_a_stage_ends_the_run_and_names_the_place(start, stage):
    run = start(*ENDLESS)
    victim = process_of(run, stage)
    victim.kill()
    said = assert_ended(run, "failed")
    assert "SIGKILL" in said
    assert re.search(LAYERS[stage] + r", .+ minibatch \d+", said), said
    assert_checkpoint_kept(run)


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        (
            "stage=0 minibatch=70 action=I do=kill",
            r"stage 0 was lost: .*\(layers 1-3\), inverse, minibatch 70$",
        ),
        (
            "stage=1 minibatch=70 action=T do=raise",
            r"\(layers 4-5\), target, layer \d, minibatch 70: Runtime",
        ),
    ],
)
def test_a_fault_is_named_by_the_very_action_and_minibatch(start, fault, place):
    """Not by the last sign of life, which may be a second older."""
    run = start(*ENDLESS, "parallel.in_flight=2", DTP_DIST_FAULT=fault)
    code, said = run.wait_for_end()
    assert code == 1
    assert re.search(place, said.strip()), said
    run.wait_for_nothing_left()
    assert read_metrics(run.run_dir)[-1]["event"] == "failed"
    assert newest(run.run_dir)[1].step == 50


def test_a_frozen_stage_is_lost_after_failure_timeout(start):
    run = start(*ENDLESS, "parallel.failure_timeout=3")
    victim = process_of(run, 1)
    victim.suspend()
    said = assert_ended(run, "failed")
    assert "parallel.failure_timeout" in said
    assert re.search(LAYERS[1] + r", .+ minibatch \d+", said), said
    assert_checkpoint_kept(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_code_1_and_says_so(start, number):
    """typer made code 130 of Ctrl-C, which was dropped: an interrupted run ended with code 0, silently."""
    run = start(*ENDLESS)
    run.wait_for_event("checkpoint")
    run.process.send_signal(number)
    said = assert_ended(run, "interrupted")
    assert said.startswith("interrupted")
    assert_checkpoint_kept(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_one_stage_is_a_lost_stage_and_not_the_end(start, number):
    run = start(*ENDLESS, "parallel.max_restarts=1")
    process_of(run, 1).send_signal(number)
    assert number.name in run.wait_for_event("stage lost")["message"]
    run.wait_for_event("recovered")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait_for_end() == (1, "interrupted by signal SIGTERM; nothing is left running\n")
    run.wait_for_nothing_left()
    assert read_metrics(run.run_dir)[-1]["event"] == "interrupted"


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    [mask] = re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_signals_one_after_another_say_one_line_and_leave_nothing(start):
    """From the first imports to the start of the stages; each run gets its first signal a little later."""
    for number in range(6):
        run = start(*ENDLESS, cold=True)
        wait_until(lambda run=run: heeds(run.process.pid, signal.SIGTERM), PATIENCE, lambda: "a handler")
        time.sleep(0.5 * number)
        run.stages()
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            if run.process.poll() is None:
                run.process.send_signal(getattr(signal, name))
            time.sleep(0.02 * number)
        code, said = run.wait_for_end()
        assert code == 1
        assert re.fullmatch(r"interrupted( by signal SIG(TERM|HUP))?; nothing is left running\n", said), said
        run.wait_for_nothing_left()
        shutil.rmtree(run.run_dir, ignore_errors=True)


def test_a_run_that_ignores_sighup_trains_on(start):
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = start("train.epochs=100000", "train.max_steps=400", "parallel.virtual_costs=0.5")
    finally:
        signal.signal(signal.SIGHUP, before)
    run.wait_for_event("started")
    run.process.send_signal(signal.SIGHUP)
    assert run.wait_for_end() == (0, "")


def test_ctrl_c_while_the_stages_start_leaves_nothing(start):
    run = start(*ENDLESS)
    run.wait_for_stages(2)
    run.process.send_signal(signal.SIGINT)
    assert assert_ended(run, "interrupted").startswith("interrupted")


def test_kill_9_of_the_parent_ends_its_stages(start):
    run = start(*ENDLESS)
    run.wait_for_event("checkpoint")
    run.process.kill()
    run.wait_for_nothing_left()
    read_metrics(run.run_dir)
    assert_checkpoint_kept(run)


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02, 0.5])
def test_kill_9_of_the_parent_while_the_stages_start_ends_them(start, seconds):
    """Stages that had been told nothing yet left the folder of the sockets behind."""
    run = start(*ENDLESS)
    run.wait_for_stages(2)
    time.sleep(seconds)
    run.process.kill()
    run.wait_for_nothing_left()


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.5])
def test_kill_9_of_the_parent_ends_stages_that_were_stopped_while_they_started(start, seconds):
    """A stopped process acts on SIGKILL and SIGCONT alone.

    Between its fork and its own program a stage is a copy of the driver, which is stopped at most by whoever
    stops the driver: from the outside it can't have asked the kernel for anything yet.
    """
    run = start(*ENDLESS)
    run.wait_for_stages(2)
    run.wait_for_programs()
    time.sleep(seconds)
    for stage in run.stages():
        stage.suspend()
    run.process.kill()
    run.wait_for_nothing_left()


def test_kill_9_of_the_parent_ends_a_frozen_stage_too(start):
    run = start(*ENDLESS)
    victim = process_of(run, 0)
    victim.suspend()
    run.process.kill()
    run.wait_for_nothing_left()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint_before(start):
    """A checkpoint is whole at the latest when the next begins: that of step 20 is there at minibatch 45."""
    rate = "{schedule: step, start: 1.0e-3, factor: 1.0e+33, every: 45, unit: minibatch}"
    run = start(f"optimizer.forward.lr={rate}", "train.checkpoint_every=20", "train.epochs=2")
    code, said = run.wait_for_end()
    assert code == 1
    assert re.match(
        r"error: stage \d \(layers \d-\d\), layer \d, minibatch 4\d: the .* is (nan|inf)", said
    ), said
    assert len(said.splitlines()) == 1
    run.wait_for_nothing_left()
    assert read_metrics(run.run_dir)[-1]["event"] == "failed"
    assert newest(run.run_dir)[1].step in (20, 40)


CHILD_ONLY = """
import os, sys, time
from torch import nn

def layer(input_shape, deed):
    if "runtime.local import process" in " ".join(sys.orig_argv):
        if deed == "raise":
            raise OSError("no such device here")
        if deed == "exit":
            os._exit(7)
        from dtp_dist.runtime.stage.service import StageService

        StageService.connect = lambda *_: time.sleep(600)
    return nn.Linear(input_shape[0], 32), nn.Linear(32, input_shape[0])
"""


def write_child_only(folder: Path, deed: str) -> None:
    """Write a config with a layer that does something else where a stage's process builds it."""
    (folder / "child_only.py").write_text(CHILD_ONLY)
    layers = [
        {"kind": "dense", "units": 32},
        {"kind": "child_only:layer", "args": {"deed": deed}},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ]
    write_config(folder, small(model={"input": [64], "layers": layers}))


@pytest.mark.parametrize("stopped", [0, 1, 2])
def test_kill_9_of_the_parent_while_there_are_sockets_removes_them(start, tmp_path, temporary, stopped):
    """Though some or all of the stages are stopped."""
    write_child_only(tmp_path, "never connect")
    run = start()
    wait_until(lambda: any(temporary.glob("dtp-dist-*/*")), PATIENCE, lambda: "sockets")
    for stage in run.stages()[:stopped]:
        stage.suspend()
    run.process.kill()
    run.wait_for_nothing_left()


@pytest.mark.parametrize(("deed", "words"), [("raise", "no such device here"), ("exit", "exit code 7")])
def test_a_stage_that_can_not_start_ends_the_run(start, tmp_path, deed, words):
    write_child_only(tmp_path, deed)
    run = start()
    code, said = run.wait_for_end()
    assert code in (1, 2)
    assert words in said
    assert len(said.splitlines()) == 1
    run.wait_for_nothing_left()
    assert read_metrics(run.run_dir)[-1]["event"] == "failed"


def limit_files(size: int) -> Callable[[], None]:
    """Return what makes every write beyond ``size`` bytes of a file fail, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_under_a_checkpoint_is_one_line_and_the_one_before_stays(start):
    run = start(*ENDLESS)
    for stage in (0, 1):
        resource.prlimit(process_of(run, stage).pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    said = assert_ended(run, "failed")
    assert re.match(r"error: .*layer-00\d.safetensors: can't be written \(File too large\)", said), said
    assert_checkpoint_kept(run)


@pytest.mark.parametrize(("board", "named"), [("false", "metrics.jsonl"), ("true", "events.out.tfevents")])
def test_a_full_disk_under_the_metrics_is_one_line_that_names_the_file(tmp_path, board, named):
    """TensorBoard's own writer printed a traceback from its thread, and the line named no file."""
    run_dir = tmp_path / "run"
    overrides = ("monitor.every=1", f"monitor.tensorboard={board}", f"run_dir={run_dir}")
    done = run_cli(
        *("train", write_config(tmp_path), *overrides), cwd=tmp_path, preexec_fn=limit_files(10_000)
    )
    assert done.returncode == 1
    line = the_line(done)
    assert named in line
    assert "can't be written (File too large)" in line
    assert read_metrics(run_dir)[0]["event"] == "started"
    assert os.path.getsize(run_dir / "metrics.jsonl") <= 10_000
