"""The application with all its commands: importing a module of them registers what it has."""

from dtp_dist.cli import compare, planning, predicting, reading, report, running, starting, tune
from dtp_dist.cli.app import PROGRAM, app

__all__ = [
    "PROGRAM",
    "app",
    "compare",
    "planning",
    "predicting",
    "reading",
    "report",
    "running",
    "starting",
    "tune",
]
