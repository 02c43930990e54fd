"""A run's folder: made once, never overwritten, opened again by later commands."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dtp_dist.config import Config, parse_config, read_config
from dtp_dist.config.source import code_in
from dtp_dist.data import GIVEN
from dtp_dist.errors import ConfigError, DataError, NonFiniteError, StorageError
from dtp_dist.storage.checkpoint import no_checkpoint_yet
from dtp_dist.storage.files import remedy, write_file
from dtp_dist.storage.lock import is_empty
from dtp_dist.storage.run_files import CONFIG as CONFIG
from dtp_dist.storage.run_files import METRICS as METRICS
from dtp_dist.storage.run_files import RESULT as RESULT
from dtp_dist.storage.run_files import TRACE as TRACE
from dtp_dist.system.paths import expanded
from dtp_dist.text.shell import typed


def make_run_dir(config: Config) -> Path:
    """Make the run's folder: ``run_dir``, or ``runs/NAME-TIME``.

    Raises:
        ConfigError: it exists and is not empty.
        StorageError: it can't be made.
    """
    if config.run_dir is None:
        return _stamped(Path("runs"), f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    path = Path(expanded("run_dir", config.run_dir))
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not is_empty(path):
            raise ConfigError(f"run_dir: {path} {_in_use(path)}")
    except OSError as error:
        raise _unmade(path, error) from None
    return path


@contextmanager
def new_run_dir(config: Config) -> Iterator[Path]:
    """Make the run's folder (``make_run_dir``); nothing of it stays if the data turn out to be bad at once.

    That is: the block raises a DataError, and there is no checkpoint yet. Folders that were there before
    stay, empty as they were.
    """
    wanted = Path("runs/run" if config.run_dir is None else expanded("run_dir", config.run_dir))
    made = [each for each in (wanted, *wanted.parents) if not each.exists()]
    path = make_run_dir(config)
    try:
        yield path
    except DataError:
        if no_checkpoint_yet(path):
            _emptied(path)
            for each in [path, *made] if config.run_dir is None else made:
                with suppress(OSError):  # it is not empty, or was removed meanwhile
                    each.rmdir()
        raise


def _emptied(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def _in_use(path: Path) -> str:
    """Return why no run is begun in a folder that is not empty, and what to do instead."""
    command = None if (path / RESULT).exists() else _how_to_resume(path)
    if command is None:
        return "exists and is not empty; a run is never overwritten: name another folder or remove it"
    return f"holds a run, and a run is never overwritten; resume it: {command}; or name another folder"


def _how_to_resume(path: Path) -> str | None:
    """Return what to type to resume the run in a folder, None if there is none that can be resumed."""
    for allow_code in (False, True):
        try:
            raw = read_config(path / CONFIG, trusted=allow_code)
        except ConfigError:
            continue
        virtual = (raw.get("parallel") or {}).get("virtual_costs") is not None
        return None if virtual else resume_command(path, allow_code=allow_code)
    return None


def resume_command(path: Path, *overrides: str, allow_code: bool = False) -> str:
    """Return what to type in a shell to resume a run."""
    options = ["--allow-code"] if allow_code else []
    return typed("dtp-dist", "resume", path, *overrides, *options)


def advice_at_end(config: Config, path: Path, error: BaseException) -> str:
    """Return how to resume a run that has ended early.

    What made a number infinite would do it again.
    """
    if isinstance(error, NonFiniteError):
        rate = getattr(config.optimizer.forward, "lr", None)
        lower = [f"optimizer.forward.lr={rate / 10:g}"] if isinstance(rate, float) else []
        return f"train it with other settings, e.g. {again_command(path, *lower)}"
    parts = ["modules=..."] if any(layer.kind == "instance" for layer in config.model.options) else []
    parts += ["data=..."] if config.data.name == GIVEN else []
    if parts:
        return f"resume it: dtp_dist.resume({', '.join([repr(str(path)), *parts])})"
    return f"resume it: {resume_command(path, allow_code=any(code_in(config)))}"


def again_command(path: Path, *overrides: str) -> str:
    """Return what to type in a shell to train what a run trains, in a folder of its own."""
    return typed("dtp-dist", "train", path / CONFIG, f"run_dir={path}-2", *overrides)


def _unmade(path: Path, error: OSError) -> StorageError:
    text = f"{remedy(error)}, or name another folder with run_dir"
    return StorageError(f"run_dir: {path} can't be made ({error.strerror}); {text}")


def _stamped(parent: Path, name: str) -> Path:
    for number in range(1000):
        path = parent / (f"{name}-{number}" if number else name)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise _unmade(path, error) from None
    raise StorageError(f"run_dir: {parent / name} is there a thousand times; name a folder with run_dir")


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
    config = parse_config(read_config(path / CONFIG, overrides, trusted=allow_code, of_run=True))
    if config.parallel.virtual:
        again = again_command(path, "parallel.virtual_costs=null")
        text = f"a virtual run has no weights to resume from; train it: {again}"
        raise ConfigError(f"{path}: parallel.virtual_costs is set: {text}")
    return config


def write_text(path: Path, text: str) -> None:
    """Write a file of the run, whole or not at all.

    Raises:
        StorageError: it can't be written.
    """
    write_file(path, text.encode())


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``.

    Raises:
        StorageError: it can't be written.
    """
    write_text(run_dir / RESULT, json.dumps(result, indent=1) + os.linesep)
