"""Signals that ask a process to end; each test's process has handlers of its own and is made to be odd."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

HEAD = """
import os, signal, sys, time
from dtp_dist.system import interruption as i
i.take_signals()
def send(name): os.kill(os.getpid(), getattr(signal, name))
"""


def run(code: str, before: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    text = HEAD + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=before,
    )


def printed(code: str, before: Callable[[], object] | None = None) -> str:
    done = run(code, before)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "words"), [("SIGINT", ""), ("SIGTERM", "signal SIGTERM"), ("SIGHUP", "signal SIGHUP")]
)
def test_the_first_signal_is_raised_where_the_main_thread_is(name, words):
    code = f"""
    try:
        send({name!r})
    except KeyboardInterrupt as error:
        print(repr(str(error)), i.asked().name)
    """
    assert printed(code) == f"{words!r} {name}"


def test_no_later_signal_raises_anything():
    code = """
    try:
        send("SIGTERM")
    except KeyboardInterrupt:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            send(name)
        print("closed", i.asked().name)
    """
    assert printed(code) == "closed SIGTERM"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_the_caller_ignores_stays_ignored(name):
    """As nohup does with SIGHUP, and a shell with SIGINT of a job in the background."""
    number = getattr(signal, name)
    code = f"""
    send({name!r})
    print(i.asked(), signal.getsignal({int(number)}).name)
    """
    assert printed(code, lambda: signal.signal(number, signal.SIG_IGN)) == "None SIG_IGN"


DROPPED = {
    "a finalizer": """
    class Odd:
        def __del__(self):
            send("SIGTERM")
            for _ in range(1000): pass
    """,
    "a callback": """
    import weakref
    class Odd: pass
    gone = []
    def drop(reference):
        send("SIGTERM")
        for _ in range(1000): pass
    _make = Odd
    def Odd():
        odd = _make()
        gone.append(weakref.ref(odd, drop))
        return odd
    """,
}


@pytest.mark.parametrize("place", DROPPED)
def test_one_that_was_dropped_on_its_way_is_raised_again_and_nothing_is_printed(place):
    code = (
        DROPPED[place]
        + """
    try:
        Odd()
        print("dropped", i.asked().name)
        end = time.monotonic() + 30
        while time.monotonic() < end: pass
    except KeyboardInterrupt:
        print("raised")
    """
    )
    assert printed(code).split() == ["dropped", "SIGTERM", "raised"]


def test_one_that_an_except_clause_has_eaten_is_found_by_those_who_wait():
    code = """
    try:
        send("SIGHUP")
    except BaseException:
        pass
    try:
        i.check()
    except KeyboardInterrupt as error:
        print(error)
    """
    assert printed(code) == "signal SIGHUP"
    assert printed("i.check(); print('none')") == "none"


def test_what_is_done_as_a_whole_is_done_before_it_is_raised():
    code = """
    @i.held()
    def close():
        with i.held():
            send("SIGTERM")
            print("one")
        send("SIGINT")
        print("two")
    try:
        close()
        print("three")
    except KeyboardInterrupt as error:
        print(error)
    """
    assert printed(code).splitlines() == ["one", "two", "signal SIGTERM"]


def test_a_process_that_ends_by_itself_takes_no_signal_any_more():
    """Python puts the default of each handler back while it ends: a signal then killed it."""
    code = """
    import atexit
    @atexit.register
    def late():
        send("SIGTERM")
    class Late:
        def __del__(self, send=send, signals=("SIGTERM", "SIGINT", "SIGHUP")):
            for name in signals: send(name)
    sys.late = Late()
    i.finish()
    send("SIGINT")
    print("done")
    """
    assert printed(code) == "done"


def test_python_does_not_kill_itself_for_an_interruption_that_was_caught():
    """It does so for a KeyboardInterrupt that left code made of a string: exit code -2 instead of ours."""
    code = """
    try:
        exec("send('SIGINT')")
    except KeyboardInterrupt:
        print("caught")
    i.finish()
    sys.exit(1)
    """
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (1, "caught\n", "")
