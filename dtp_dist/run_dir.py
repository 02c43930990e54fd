"""A run's folder: made once, never overwritten, opened again by later commands."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dtp_dist.checkpoint import write_file
from dtp_dist.config import Config, parse_config, read_config
from dtp_dist.errors import CheckpointError, ConfigError
from dtp_dist.run_files import CONFIG as CONFIG
from dtp_dist.run_files import METRICS as METRICS
from dtp_dist.run_files import RESULT as RESULT
from dtp_dist.run_files import TRACE as TRACE


def make_run_dir(config: Config) -> Path:
    """Make the run's folder: ``run_dir``, or ``runs/NAME-TIME``.

    Raises:
        ConfigError: it exists and is not empty.
        CheckpointError: it can't be made.
    """
    if config.run_dir is None:
        return _stamped(Path("runs"), f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    path = Path(config.run_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            text = "exists and is not empty; a run is never overwritten"
            raise ConfigError(f"run_dir: {path} {text}: name another folder or remove it")
    except OSError as error:
        raise CheckpointError(f"run_dir: {path} can't be made ({error.strerror})") from None
    return path


def _stamped(parent: Path, name: str) -> Path:
    for number in range(1000):
        path = parent / (f"{name}-{number}" if number else name)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise CheckpointError(f"run_dir: {path} can't be made ({error.strerror})") from None
    raise CheckpointError(f"run_dir: {parent / name} exists a thousand times over; name another")


def open_run_dir(path: Path, overrides: Sequence[str] = (), *, allow_code: bool) -> Config:
    """Return the configuration of an earlier run whose weights are wanted, with overrides.

    Another number of stages takes the place of the partition that was worked out for the old one.

    Raises:
        ConfigError: the folder holds no run, or a virtual one, which has no weights; or its configuration
            imports code and ``allow_code`` is not set.
    """
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{path}: holds no {CONFIG}, so it is not a run; name the folder of a run")
    keys = [text.partition("=")[0] for text in overrides]
    if "parallel.stages" in keys and "parallel.partition" not in keys:
        overrides = ["parallel.partition=null", *overrides]
    raw = read_config(path / CONFIG, overrides)
    if not allow_code:
        _refuse_code(path / CONFIG, raw.get("model"))
    config = parse_config(raw)
    if config.parallel.virtual:
        text = "a virtual run has no weights to go on from; train in a run of its own"
        raise ConfigError(f"{path}: parallel.virtual_costs is set: {text}")
    return config


def _refuse_code(path: Path, value: Any) -> None:
    """Refuse every import path anywhere in the model section, whose interpolations are resolved."""
    if isinstance(value, dict):
        kind = value.get("kind")
        if isinstance(kind, str) and ":" in kind:
            raise ConfigError(f"{path}: would import {kind!r}; add --allow-code if you trust this run")
        value = list(value.values())
    for item in value if isinstance(value, list) else []:
        _refuse_code(path, item)


def write_text(path: Path, text: str) -> None:
    """Write a file of the run, whole or not at all.

    Raises:
        CheckpointError: it can't be written.
    """
    write_file(path, text.encode())


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``.

    Raises:
        CheckpointError: it can't be written.
    """
    write_text(run_dir / RESULT, json.dumps(result, indent=1) + os.linesep)
