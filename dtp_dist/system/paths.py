"""Folders as a user writes them."""

from __future__ import annotations

import os

from dtp_dist.errors import ConfigError


def expanded(key: str, text: str | os.PathLike[str]) -> str:
    """Return the folder that a configuration's ``key`` names, with ``~`` and ``~user`` replaced.

    Raises:
        ConfigError: nobody of that name has a home here.
    """
    path = os.path.expanduser(os.fspath(text))
    if path.startswith("~"):
        user = path.partition(os.sep)[0]
        raise ConfigError(f"{key}: {path}: {user} is nobody's home here; write ./{path}, or the whole path")
    return path


def absolute(key: str, text: str | os.PathLike[str]) -> str:
    """Return the same as a path that means the same folder from everywhere.

    Raises:
        ConfigError: as ``expanded``.
    """
    return os.path.abspath(expanded(key, text))
