"""Standard output whose reader goes away, has no room, stops reading, or was never there."""

from __future__ import annotations

import errno
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from dtp_dist.system.output import HALTED_SECONDS, Output

HEAD = "import os, sys; from dtp_dist.system.output import take_output; take_output(); "


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


@pytest.mark.parametrize("optional", [False, True])
def test_text_arrives_at_once_and_whole(pipe, optional):
    output = Output(pipe[1], optional=optional)
    assert output.write("é\n") == 2
    assert os.read(pipe[0], 100) == "é\n".encode()
    text = "x" * 50_000
    output.write(text)
    assert os.read(pipe[0], 60_000) == text.encode()
    Output(pipe[1], "ascii", optional=optional).write("é━\n")
    assert os.read(pipe[0], 100) == b"??\n"


@pytest.mark.parametrize("optional", [False, True])
def test_it_is_silent_once_nobody_reads_a_pipe(pipe, optional):
    output = Output(pipe[1], optional=optional)
    os.close(pipe[0])
    for _ in range(2):
        assert output.write("nobody\n") == 7


@pytest.mark.parametrize("optional", [False, True])
def test_it_is_silent_once_its_terminal_is_closed(optional):
    master, slave = pty.openpty()
    output = Output(slave, optional=optional)
    assert output.isatty()
    os.close(master)
    assert output.write("gone\n") == 5
    os.close(slave)


def test_a_full_disk_is_an_error_unless_the_text_is_optional():
    with open("/dev/full", "w") as full:
        with pytest.raises(OSError, match="standard output") as caught:
            Output(full.fileno()).write("x")
        assert caught.value.errno == errno.ENOSPC
        output = Output(full.fileno(), optional=True)
        assert [output.write("x"), output.write("y")] == [1, 1]


def test_what_is_optional_waits_for_a_halted_pipe_once_and_goes_on_when_it_is_read(pipe, monkeypatch):
    output, in_vain, look = Output(pipe[1], optional=True), [], select.select

    def counted(*ends: Any) -> Any:
        found = look(*ends)
        if ends[3] and not found[1]:
            in_vain.append(ends[3])
        return found

    monkeypatch.setattr(select, "select", counted)
    for _ in range(100):
        output.write("x" * 5000)
    assert in_vain == [HALTED_SECONDS], "not one a line"
    assert len(os.read(pipe[0], 1_000_000)) <= 65536
    output.write("again\n")
    assert os.read(pipe[0], 100) == b"again\n"


def test_what_is_optional_waits_for_a_halted_terminal_once():
    """Ctrl-S halts it."""
    master, slave = pty.openpty()
    output = Output(slave, optional=True)
    termios.tcflow(slave, termios.TCOOFF)
    output.write("halted")
    output.write("lost")
    termios.tcflow(slave, termios.TCOON)
    output.write("seen")
    assert os.read(master, 100) == b"seen"
    os.close(master)
    os.close(slave)


def test_closed_descriptors_are_not_given_to_the_next_file(tmp_path):
    code = HEAD + "f = open(sys.argv[1], 'w'); print('x'); print('y', file=sys.stderr); f.write('data')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        check=False,
        preexec_fn=lambda: os.closerange(0, 3),
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "data"


@pytest.mark.parametrize("place", ["sys.stdout", "sys.stderr"])
def test_nothing_is_left_to_fail_when_python_ends(place):
    code = HEAD + f"sys.stdout.optional = True; print('x', file={place})"
    with open("/dev/full", "w") as full:
        other = {"stdout": full, "stderr": subprocess.PIPE} if place == "sys.stdout" else {"stderr": full}
        done = subprocess.run([sys.executable, "-c", code], check=False, **other)
    assert done.returncode == 0
    assert not done.stderr
