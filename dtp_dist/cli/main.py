"""From the shell's call to an exit code; little is imported before signals and outputs are in hand."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from dtp_dist.errors import DtpDistError
from dtp_dist.system.interruption import asked, finish, take_signals
from dtp_dist.system.output import take_output
from dtp_dist.system.remains import still_running
from dtp_dist.text.printable import printable


def main() -> NoReturn:
    """Run the command line."""
    take_signals()
    take_output()
    try:
        code, text = _outcome()
    except KeyboardInterrupt:
        code, text = 1, ""
    finish()
    if number := asked():  # whatever else came of it
        by = "" if number.name == "SIGINT" else f" by signal {number.name}"
        code, text = 1, f"interrupted{by}; {still_running() or 'nothing is left running'}"
    if text:
        sys.stderr.write(printable(" ".join(text.split())) + "\n")
    sys.exit(code)


def _outcome() -> tuple[int, str]:
    """Run the command and return the exit code and what to say of it."""
    try:
        from dtp_dist.cli.commands import PROGRAM, app

        return app(standalone_mode=False, prog_name=PROGRAM) or 0, ""
    except DtpDistError as error:
        return error.exit_code, _error(f"{error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return 1, _error(f"{where}{error.strerror or error}")
    except Exception as error:
        return _usage_or_bug(error)


def _usage_or_bug(error: Exception) -> tuple[int, str]:
    name, show = type(error).__name__, getattr(error, "format_message", None)
    if name == "Exit":  # typer's versions differ in whether it is returned or raised
        return int(getattr(error, "exit_code", 0)), ""
    if name == "Abort":
        return 1, "stopped"
    if name == "NoArgsIsHelpError":  # the help was printed
        return 2, ""
    if show is not None:
        return 2, f"error: {show()}; see dtp-dist --help"
    return 1, _error(f"{name}: {error} (a bug: run again with --debug and report it)")


def _error(text: str) -> str:
    """Return the line of the error that is being handled; with --debug its traceback is printed."""
    if os.environ.get("DTP_DIST_DEBUG") and not asked():
        from dtp_dist.cli.app import screen

        screen(stderr=True).print_exception()
    left = still_running()
    return f"error: {text}{f'; {left}' if left else ''}"
