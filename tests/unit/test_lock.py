"""Folders that one process at a time writes to."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading

import pytest

from dtp_dist.errors import StorageError
from dtp_dist.storage.lock import LOCK, is_empty, locked


def test_a_folder_is_held_until_the_block_ends_and_counts_as_empty_after_it(tmp_path):
    with locked(tmp_path):
        with (
            pytest.raises(StorageError, match="another process is at work in it; wait"),
            locked(tmp_path),
        ):
            pass
        with pytest.raises(StorageError), locked(tmp_path):  # the refusal has not let go of it
            pass
        assert is_empty(tmp_path)
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_another_thread_is_refused_too(tmp_path):
    said = []

    def try_it() -> None:
        try:
            with locked(tmp_path):
                said.append("held")
        except StorageError as error:
            said.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert "at work" in said[0]


def test_a_child_does_not_hold_it_on(tmp_path):
    with locked(tmp_path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with locked(tmp_path):
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(StorageError, match="can't be held"), locked(tmp_path / "none"):
        pass


def test_what_is_locked_is_open_for_writing_as_network_file_systems_ask(tmp_path, monkeypatch):
    """NFS turns flock into a lock of bytes, which an exclusive holder must be able to write."""
    modes = []
    flock = fcntl.flock

    def noted(descriptor: int, operation: int) -> None:
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", noted)
    with locked(tmp_path):
        pass
    assert modes == [os.O_RDWR]


def test_a_planted_link_is_not_followed_and_a_pipe_does_not_hang(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / LOCK).symlink_to(elsewhere)
    with pytest.raises(StorageError, match="can't be held"), locked(tmp_path / "a"):
        pass
    assert not elsewhere.exists()
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / LOCK)
    with locked(tmp_path / "b"):
        pass
