"""Run directories for the benchmarks that train: made once, gone on with where they were cut off, read back.

Scripts use it by ``from helpers.resumable import run``; it needs nothing but the package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dtp_dist import load_config
from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.config import Config
from dtp_dist.config.schema import MonitorConfig
from dtp_dist.errors import DtpDistError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.layout import layout_of

Result = dict[str, Any]


def run(
    config_path: str | Path, folder: str | Path, overrides: Sequence[str], python: str = sys.executable
) -> Result | None:
    """Train a config with dotted overrides into ``folder`` unless that is done; return its result.

    A folder with a ``result.json`` is read, one with a checkpoint is gone on with (``dtp-dist resume``),
    any other is begun afresh. Only the newest checkpoint is kept. All output goes to ``FOLDER.log``.

    Returns:
        the content of ``result.json``; None where the run failed, or where the folder holds a run of
        other settings (which is left as it is), after saying so in a line.
    """
    folder = Path(folder)
    overrides = ["train.keep_checkpoints=1", "monitor.tensorboard=false", *overrides]
    if (folder / "config.yaml").exists() and not same_run(config_path, folder, overrides):
        print(f"{folder}: was run with other settings; remove it to run it again", flush=True)
        return None
    if not (folder / "result.json").exists():
        failed = _train(config_path, folder, overrides, python)
        if failed:
            print(f"{folder}: failed: {failed}", flush=True)
            return None
    return dict(json.loads((folder / "result.json").read_text()))


def same_run(config_path: str | Path, folder: Path, overrides: Sequence[str]) -> bool:
    """Return whether a folder's run computes what the config with these overrides says."""
    try:
        old = load_config(folder / "config.yaml")
    except DtpDistError:
        return False
    return _numerics(old) == _numerics(load_config(config_path, overrides))


def _numerics(config: Config) -> Config:
    """Return the resolved configuration without what only says where the run lies and what it tells.

    Remedies for delay do nothing where there is none.
    """
    resolved = resolve(config)
    optimizer = config.optimizer
    if not any(map(layout_of(resolved).delay, range(layout_of(resolved).stages))):
        optimizer = replace(optimizer, **asdict(DelayOptions()))
    return replace(
        resolved,
        optimizer=optimizer,
        name="",
        run_dir=None,
        compare={},
        data=replace(config.data, root=""),
        monitor=MonitorConfig(),
        train=replace(config.train, keep_checkpoints=1),
    )


def _train(config_path: str | Path, folder: Path, overrides: Sequence[str], python: str) -> str:
    """Train, or go on with training; return the last line of the log if that failed, else nothing."""
    command = [python, "-m", "dtp_dist"]
    if any(folder.glob("checkpoints/*/manifest.json")):
        roots = [text for text in overrides if text.startswith("data.root=")]
        command += ["resume", str(folder), *roots]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        command += ["train", str(config_path), f"run_dir={folder}", *overrides]
    log = Path(f"{folder}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 0:
        return ""
    return (log.read_text().strip() or "nothing was said").splitlines()[-1]
