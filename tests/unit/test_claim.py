"""Folders that one process at a time writes to."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading

import pytest

from dtp_dist.claim import claimed
from dtp_dist.errors import CheckpointError


def test_a_folder_is_held_until_the_block_ends_and_nothing_is_left(tmp_path):
    with claimed(tmp_path):
        with (
            pytest.raises(CheckpointError, match="another process is at work in it; wait"),
            claimed(tmp_path),
        ):
            pass
        with pytest.raises(CheckpointError), claimed(tmp_path):  # the refusal has not let go of it
            pass
        assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), claimed(tmp_path):
        raise KeyError
    with claimed(tmp_path):
        pass


def test_another_thread_is_refused_too(tmp_path):
    said = []

    def try_it() -> None:
        try:
            with claimed(tmp_path):
                said.append("held")
        except CheckpointError as error:
            said.append(str(error))

    with claimed(tmp_path):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert "at work" in said[0]


def test_a_child_does_not_hold_it_on(tmp_path):
    with claimed(tmp_path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with claimed(tmp_path):
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path), claimed(tmp_path):
        pass


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="can't be opened"), claimed(tmp_path / "none"):
        pass
