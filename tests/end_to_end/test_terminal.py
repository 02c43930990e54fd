"""What a person sees on a real terminal, and what it is like when they press Ctrl-C; and ``--quiet``."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runs import LOCAL, PATIENCE, command, read_result, run_cli, the_line, write_config
from screen import shown

pytestmark = pytest.mark.slow
COLUMNS, ROWS = 80, 24
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


class Terminal:
    """A command on a pseudo-terminal of its own, which is what Ctrl-C needs to reach it."""

    def __init__(self, arguments: Sequence[str | Path], cwd: Path) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.seen = b""
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env={**environment, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=_take_terminal,
        )
        self.slave = slave

    def read_until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.seen.decode(errors="replace")
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)

    def wait_for_end(self) -> int:
        self.read_until(lambda: self.process.poll() is not None)
        self.read_until(lambda: not select.select([self.master], [], [], 0.1)[0])
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def screen(self) -> list[str]:
        """Return the lines that are left on it, and above."""
        return shown(self.seen.decode(), COLUMNS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def _take_terminal() -> None:
    """Make standard input the controlling terminal of a new session, and heed Ctrl-C."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_run_leaves_its_last_view_and_its_result_on_the_terminal(tmp_path):
    config = write_config(tmp_path)
    terminal = Terminal(["train", config, "run_dir=run", "parallel.stages=2", "train.epochs=2"], tmp_path)
    try:
        assert terminal.wait_for_end() == 0
        lines = terminal.screen()
    finally:
        terminal.close()
    assert terminal.seen.count(HIDE) == 1
    assert terminal.seen.rindex(SHOW) > terminal.seen.index(HIDE)
    [head] = [number for number, line in enumerate(lines) if line.startswith("stage  layers")]
    assert lines[0].startswith("warning: parallel.runtime=inprocess: the 2 stages take turns")
    [whole] = [number for number, line in enumerate(lines) if line.startswith("epoch 1/2")]
    assert whole < head, "whole epochs stay above the view"
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["0", "1"]
    assert re.fullmatch(r"epoch 2/2 +━+ +step 60/60 +0:00:00 left", lines[head + 3])
    assert re.fullmatch(
        r"train loss \S+, error % train \S+ valid \S+ test \S+, [\d,]+ samples/s", lines[head + 4]
    )
    assert lines[head + 5].startswith("valid error")
    assert not [line for line in lines if "\\n" in line], (
        "a line that is broken in two is no line break in text"
    )


def test_ctrl_c_leaves_a_terminal_as_it_was(tmp_path):
    config = write_config(tmp_path)
    endless = ("train.epochs=100000", "parallel.virtual_costs=1", *LOCAL)
    terminal = Terminal(["train", config, "run_dir=run", *endless], tmp_path)
    try:
        terminal.read_until(lambda: b"left" in terminal.seen)
        os.write(terminal.master, b"\x03")
        assert terminal.wait_for_end() == 1
        lines = terminal.screen()
    finally:
        terminal.close()
    assert terminal.seen.rindex(SHOW) > terminal.seen.rindex(HIDE)
    assert [line for line in lines if line.startswith("interrupted at step")]
    assert [line for line in lines if line.startswith("virtual epoch")]
    assert lines[-2:] == ["interrupted; nothing is left running", ""]


def test_a_terminal_that_goes_away_in_the_middle_of_the_table_does_not_end_the_run(tmp_path):
    """Without SIGHUP, as to a process that was disowned: this one has it ignored, as nohup does."""
    config = write_config(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminal = Terminal(["train", config, "run_dir=run", "train.epochs=10", "monitor.every=1"], tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    terminal.read_until(lambda: b"left" in terminal.seen)
    os.close(terminal.slave)
    os.close(terminal.master)
    assert terminal.process.wait(PATIENCE) == 0
    assert read_result(tmp_path / "run")["steps"] == 10 * 30


def in_bash(line: str, cwd: Path) -> tuple[int, str]:
    """Return the exit code of a line of shell and what it said on stderr."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "rest",
    [
        "| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}",
        "| cat >/dev/full 2>/dev/null; exit ${PIPESTATUS[0]}",
        ">/dev/full",
        ">&- 2>&- <&-",
    ],
)
def test_an_output_that_takes_no_more_does_not_end_the_run(tmp_path, rest):
    line = shlex.join(command("train", write_config(tmp_path), "run_dir=run", "monitor.every=1"))
    assert in_bash(f"{line} {rest}", tmp_path) == (0, "")
    assert read_result(tmp_path / "run")["steps"] == 30


@pytest.mark.parametrize("arguments", ["config --explain", "config --explain --markdown", "runs . --json"])
def test_a_listing_ends_quietly_when_its_reader_has_enough_and_fails_when_it_has_no_room(tmp_path, arguments):
    line = f"{shlex.join(command())} {arguments}"
    assert in_bash(f"{line} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", tmp_path) == (0, "")
    full = (1, "error: standard output: No space left on device\n")
    assert in_bash(f"{line} >/dev/full", tmp_path) == full


def test_quiet_runs_print_nothing_but_errors(tmp_path):
    config = write_config(tmp_path)
    done = run_cli(
        "train", config, "--quiet", f"run_dir={tmp_path / 'run'}", "train.max_steps=3", cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert read_result(tmp_path / "run")["steps"] == 3
    over = run_cli("resume", tmp_path / "run", "-q", cwd=tmp_path)
    assert (over.returncode, over.stdout) == (2, "")
    assert "is trained to its end" in the_line(over)


def test_a_virtual_run_says_so_in_every_line_of_its_result(tmp_path):
    config = write_config(tmp_path)
    costs = ("parallel.virtual_costs={F: 900}", "train.max_steps=6", "monitor.every=1")
    done = run_cli("train", config, f"run_dir={tmp_path / 'run'}", *costs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *progress, reached, speed, where = done.stdout.splitlines()
    assert progress
    assert all(line.startswith("virtual epoch 1/1") for line in progress)
    assert "virtual run, nothing learned" in reached
    assert speed.startswith("virtual: ")
    assert "sha256" not in done.stdout
    assert where.startswith("run in ")
    assert read_result(tmp_path / "run")["virtual"] is True
