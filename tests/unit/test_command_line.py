"""What the command line says of itself, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtp_dist.system.named import names
from dtp_dist.version import VERSION
from runs import run_cli, write_config


def test_the_version(tmp_path):
    done = run_cli("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"dtp-dist {VERSION}\n")


def completed(folder: Path, *words: str, shell: str = "bash") -> list[str]:
    """Return what a shell offers for the last of the words."""
    asked = {
        "_DTP_DIST_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(["dtp-dist", *words]),
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": " ".join(["dtp-dist", *words]),
    }
    done = run_cli(cwd=folder, env=asked)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_commands_and_options_are_completed(tmp_path):
    assert completed(tmp_path, "re") == ["resume", "report"]
    assert "--allow-code" in completed(tmp_path, "eval", "--")


@pytest.mark.slow
def test_names_and_files_of_configurations_are_completed(tmp_path):
    write_config(tmp_path, name="mnist_mine.yaml")
    assert completed(tmp_path, "train", "mnist") == ["mnist_backprop", "mnist_dtp_adam", "mnist_mine.yaml"]
    assert set(names()) < set(completed(tmp_path, "config", ""))
    assert completed(tmp_path, "tune", "digits_dtp", "--space", "") == ["mnist_dtp", "mnist_mine.yaml"]
    assert completed(tmp_path, "train", "some/where/") == [], "the shell completes names of files"


@pytest.mark.slow
def test_keys_are_completed(tmp_path):
    found = completed(tmp_path, "train", "digits_dtp", "train.ev")
    assert found == ["train.evaluate_every=", "train.evaluate_passes="]
    found = completed(tmp_path, "train", "digits_dtp", "train.epochs=3", "optimizer.forward.mom")
    assert found == ["optimizer.forward.momentum="]
    assert "rule.target_step=" in completed(tmp_path, "train", "digits_dtp", "rule.")
    with_help = completed(tmp_path, "train", "digits_dtp", "train.ep", shell="zsh")
    assert "passes over the training set" in " ".join(with_help)


@pytest.mark.slow
def test_folders_of_runs_are_completed(tmp_path):
    for age, name in enumerate(("new", "old")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
        os.utime(run, (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "none").mkdir()
    assert completed(tmp_path, "resume", "") == ["runs/new", "runs/old"]
    assert completed(tmp_path, "eval", "runs/o") == ["runs/old"]


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_for_shells_name_the_command(tmp_path, shell):
    done = run_cli(cwd=tmp_path, env={"_DTP_DIST_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0
    assert f"_DTP_DIST_COMPLETE=complete_{shell}" in done.stdout


def test_bash_completes_by_the_script(tmp_path):
    """As it is typed: the script is taken in, and its function asked for the words of a line."""
    program = tmp_path / "dtp-dist"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dtp_dist "$@"\n')
    program.chmod(0o755)
    script = run_cli(cwd=tmp_path, env={"_DTP_DIST_COMPLETE": "source_bash"}).stdout
    ask = "COMP_WORDS=(dtp-dist train digits_d); COMP_CWORD=2; _dtp_dist_completion dtp-dist"
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{script}\n{ask}; echo "${{COMPREPLY[@]}}"'],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "digits_dtp\n"
