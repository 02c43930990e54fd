"""Runs that are over, or under way, in pictures: one HTML file without scripts or network; needs no torch."""

from dtp_dist.report.read import Run, read_run

__all__ = ["Run", "read_run"]
