"""What a segment of a run is for: the one word that the algorithm and the schedules share."""

from enum import StrEnum


class Phase(StrEnum):
    """What a segment of the run is for."""

    BOTH = "both"
    INVERSE = "inverse"
    FORWARD = "forward"
    EVALUATE = "evaluate"


def named(phase: Phase, repeat: int) -> str:
    """Return by what name random numbers know a phase: of several passes alike, each has its own."""
    return f"{phase} {repeat}" if repeat else phase
