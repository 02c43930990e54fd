"""A folder of several runs: made once, and opened again for the same ones alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dtp_dist.errors import ConfigError
from dtp_dist.storage.files import write_file
from dtp_dist.storage.lock import is_empty
from dtp_dist.text.dotted import flat
from dtp_dist.text.foreign import TEXT_BYTES, is_regular, parse_yaml, read_file

UNTOLD = ("name", "run_dir", "code_dir", "compare")
"""Sections of a configuration that may differ when a folder is opened again."""


def open_folder(folder: Path, file: str, asked: dict[str, Any], *, option: str, what: str) -> None:
    """Make a folder whose ``file`` says what is asked for, or open one in which it says the same.

    What one of the two says nothing of, on its uppermost level, is no difference: the file then says both.

    Args:
        folder: where.
        file: its name.
        asked: plain data; ``config`` is the configuration's.
        option: the command's, which names the folder.
        what: what the folder holds, ``search``.

    Raises:
        ConfigError: it is for something else.
        StorageError: it can't be written.
    """
    known = _known(folder, file, option, what)
    before, now = (flat({key: each[key] for key in asked if key in known}) for each in (known, asked))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            values = f"{key.removeprefix('config.')} was {before.get(key)!r}, now {now.get(key)!r}"
            raise ConfigError(f"{option}: {folder} holds another {what}: {values}; name another folder")
    if asked.keys() - known.keys():
        write_file(folder / file, yaml.safe_dump({**known, **asked}, sort_keys=False).encode())


def _known(folder: Path, file: str, option: str, what: str) -> dict[str, Any]:
    """Return what the file says, nothing where the folder is new."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_regular(folder / file):
            known = parse_yaml(read_file(folder / file, TEXT_BYTES))
        else:
            known = {} if is_empty(folder) else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: {folder} can't be used ({error}); name another folder") from None
    if not isinstance(known, dict):
        raise ConfigError(f"{option}: {folder} exists and holds no {what}; name another folder")
    return known
