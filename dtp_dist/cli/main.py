"""From the shell's call to an exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer
from rich.markup import escape

from dtp_dist.cli import planning, reading, report, running, tune
from dtp_dist.cli.app import Interrupted, app, err
from dtp_dist.errors import DtpDistError

COMMANDS = (running, reading, planning, tune, report)
"""The modules that register commands."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")


def main() -> NoReturn:
    """Run the command line."""
    sys.path.insert(0, os.getcwd())  # user-made layers beside the configuration can be imported
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    sys.exit(_guarded())


def _guarded() -> int:
    try:
        app(standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return _say("stopped", 1)
    except DtpDistError as error:
        return _failed(error, error.exit_code)
    except (Interrupted, KeyboardInterrupt) as error:
        return _say(f"interrupted{f' by {error}' if str(error) else ''}; nothing is left running", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(error, 1, f"{where}{error.strerror or error}")
    except Exception as error:
        return _usage_or_bug(error)
    return 0


def _usage_or_bug(error: Exception) -> int:
    show = getattr(error, "format_message", None)  # click's own usage errors
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed
        return 2
    if show is not None:
        return _say(f"error: {show()}; see dtp-dist --help", 2)
    return _failed(error, 1, f"{type(error).__name__}: {error} (a bug: run again with --debug and report it)")


def _failed(error: Exception, code: int, text: str | None = None) -> int:
    if os.environ.get("DTP_DIST_DEBUG"):
        err.print_exception()
    return _say(f"error: {text or error}", code)


def _say(text: str, code: int) -> int:
    err.print(escape(" ".join(text.split())), highlight=False, soft_wrap=True)
    return code
