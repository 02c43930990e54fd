"""What ends a private Ray after its driver: whatever carries the mark, frozen or not, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from dtp_dist.runtime.ray import reaper
from dtp_dist.runtime.ray.reaper import MARK
from runs import PATIENCE, wait_until

DRIVER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-I", {reaper.__file__!r}, "this", str(__import__("os").getpid())])
print("started", flush=True)
time.sleep(600)
"""


def sleeper(mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; print(0, flush=True); time.sleep(600)"],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
    )


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_what_is_marked_ends_after_the_driver_and_nothing_else_does():
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE)
    started = [driver, frozen := sleeper("this"), other := sleeper("other")]
    try:
        for each in started:
            each.stdout.readline()
        (ending,) = psutil.Process(driver.pid).children()
        os.kill(frozen.pid, signal.SIGSTOP)
        assert reaper.marked("this") == [frozen.pid]
        driver.kill()
        driver.wait()
        wait_until(lambda: frozen.poll() is not None, PATIENCE, lambda: "a frozen process is left")
        assert frozen.returncode == -signal.SIGKILL
        wait_until(lambda: gone(ending), PATIENCE, lambda: "reaper")
        assert other.poll() is None
    finally:
        for each in started:
            each.kill()
            each.wait()
            each.stdout.close()
