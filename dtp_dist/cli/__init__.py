"""The command line: thin; every error is one line and an exit code."""

from dtp_dist.cli.main import main

__all__ = ["main"]
