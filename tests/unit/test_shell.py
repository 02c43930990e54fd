"""Commands as they can be typed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dtp_dist.text.shell import typed


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a virtual environment's folder of programs, which is not on the path and below where we are."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "dtp-dist"):
        (folder / name).write_text('#!/bin/sh\necho "$0|$1|$2"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.usefixtures("environment")
def test_a_program_that_the_shell_does_not_find_goes_by_its_path_from_here():
    line = typed("dtp-dist", "resume", Path("runs/it's a run"))
    assert shlex.split(line) == ["my env/bin/dtp-dist", "resume", "runs/it's a run"]
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "my env/bin/dtp-dist|resume|runs/it's a run\n"


def test_from_elsewhere_it_goes_by_its_whole_path(environment, monkeypatch):
    monkeypatch.chdir("/usr")
    assert shlex.split(typed("dtp-dist")) == [str(environment / "dtp-dist")]


def test_one_that_the_shell_finds_goes_by_its_name(environment, monkeypatch):
    monkeypatch.setenv("PATH", f"{environment}:/bin")
    assert typed("dtp-dist", "runs") == "dtp-dist runs"


@pytest.mark.usefixtures("environment")
def test_another_installation_s_is_not_meant(monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "dtp-dist").write_text("")
    (other / "dtp-dist").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:/bin")
    assert shlex.split(typed("dtp-dist"))[0] == "my env/bin/dtp-dist"


def test_without_a_script_python_runs_the_package(environment):
    (environment / "dtp-dist").unlink()
    assert shlex.split(typed("dtp-dist", "runs")) == ["my env/bin/python", "-m", "dtp_dist", "runs"]
    assert typed("tensorboard", "--logdir", "x") == "tensorboard --logdir x"
