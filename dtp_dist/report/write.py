"""Which runs a report is about, and the file that it becomes: none that is there is lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.report.listing import find_runs
from dtp_dist.report.page import page
from dtp_dist.report.read import Run, read_run


def runs_of(folders: Sequence[Path]) -> list[Run]:
    """Return the run in each folder, or all runs below one that is none itself; each run once.

    A folder without any is returned as a run in the state "no run".
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        run = read_run(folder)
        below = find_runs(folder, trace=True) if run.state == "no run" and folder.is_dir() else []
        for each in below or [run]:
            found.setdefault(each.path.resolve(), each)
    return list(found.values())


def check_any(runs: Sequence[Run]) -> None:
    """Refuse to report on nothing.

    Raises:
        ConfigError: no folder holds a run.
    """
    if all(run.state == "no run" for run in runs):
        said = "; ".join(f"{run.path} {run.reason}" for run in runs)
        raise ConfigError(f"RUN_DIR: no folder holds a run: {said}; name folders of runs")


def free_name(path: Path) -> Path:
    """Return a path at which nothing is: itself, or with a number, ``report-2.html``."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return path if not os.path.lexists(path) else next(each for each in numbered if not os.path.lexists(each))


def check_free(paths: Iterable[Path], option: str, *, replace: bool) -> None:
    """Refuse to write where something is that may not be replaced.

    Raises:
        ConfigError: there is a file, without ``replace``, or something that is no file.
    """
    for path in paths:
        if os.path.lexists(path) and not path.is_file():
            raise ConfigError(f"{path}: is no file that a report can replace; name another with {option}")
        if os.path.lexists(path) and not replace:
            raise ConfigError(f"{path}: exists; name another with {option}, or add --force to replace it")


def write_report(runs: Sequence[Run], path: Path, *, replace: bool = False) -> None:
    """Write the report of all runs to a new file, whole or not at all.

    Args:
        replace: take the place of a file that is there.

    Raises:
        ConfigError: no folder holds a run, or there is something at ``path`` already.
        DtpDistError: the file can't be written.
    """
    check_any(runs)
    check_free([path], "--out", replace=replace)
    write_new(path, page(runs).encode("utf-8", errors="replace"), "--out", replace=replace)


def write_new(path: Path, data: bytes, option: str, *, replace: bool) -> None:
    """Write a file that was found free (``check_free``), whole or not at all.

    Raises:
        ConfigError: there is something at ``path`` by now.
        DtpDistError: it can't be written.
    """
    try:
        _write(path, data, replace=replace)
    except FileExistsError:
        raise ConfigError(f"{path}: exists by now; name another with {option}") from None
    except OSError as error:
        text = f"can't be written ({error.strerror}); name another with {option}"
        raise DtpDistError(f"{path}: {text}") from None


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a new file, or one next to it that then takes its place; nothing half-written is left."""
    if replace:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.chmod(name, path.stat().st_mode & 0o777 if path.is_file() else 0o644)
        place, file = Path(name), os.fdopen(number, "wb")
    else:
        place, file = path, path.open("xb")
    try:
        with file:
            file.write(data)
        if replace:
            place.replace(path)
    except BaseException:
        with suppress(OSError):
            place.unlink()
        raise
