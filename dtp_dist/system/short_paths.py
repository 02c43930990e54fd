"""Folders for socket files, whose whole paths may have no more than 107 bytes on Linux (103 elsewhere).

A batch system's TMPDIR may be too long for them; then a folder in the system's own place for temporary files
takes its stead, for this user alone.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import tempfile

from dtp_dist.errors import ConfigError

LIMIT = 107 if sys.platform == "linux" else 103
LINK_BYTES = len("/dtp-dist-0123456789abcdef/100-activation-1000")
RAY_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
OTHERS = ("/tmp", "/var/tmp")
"""Where there is room when TMPDIR is too long."""


def link_folder() -> str:
    """Return a new name for a folder of the links' sockets, which its user makes (mode 0700) and removes.

    Raises:
        ConfigError: no place is short enough.
    """
    return os.path.join(short_place(LINK_BYTES), f"dtp-dist-{secrets.token_hex(8)}")


def short_place(room: int) -> str:
    """Return TMPDIR's folder, or another one where paths that are ``room`` bytes longer are still allowed.

    Raises:
        ConfigError: there is none that can be written to.
    """
    usual = tempfile.gettempdir()
    for place in (usual, *OTHERS):
        if len(os.fsencode(place)) + room <= LIMIT and os.access(place, os.W_OK | os.X_OK):
            return place
    text = f"is too long for the names of socket files, and {OTHERS[0]} can't be written to"
    raise ConfigError(f"TMPDIR: {usual} {text}; set it to a folder of at most {LIMIT - room} bytes")


def ray_folder() -> str | None:
    """Return where a private Ray is to put its files; None where its own choice is short enough.

    Raises:
        ConfigError: there is no place, or somebody else made the folder that belongs there.
    """
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(usual)) + RAY_BYTES <= LIMIT:
        return None
    name = f"dtp-dist-ray-{os.getuid()}"
    folder = os.path.join(short_place(RAY_BYTES + len(name) + 1), name)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        text = "is not a folder of yours alone; remove it, or set TMPDIR to a shorter folder"
        raise ConfigError(f"{folder}: {text}")
    return folder
