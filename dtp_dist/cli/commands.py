"""The application with all its commands: importing a module of them registers what it has."""

from dtp_dist.cli import compare, planning, reading, report, running, tune
from dtp_dist.cli.app import app

__all__ = ["app", "compare", "planning", "reading", "report", "running", "tune"]
