"""What a pipeline's actions and messages take, in whole nanoseconds: what a simulation starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dtp_dist.schedule import Kind

Times = NDArray[np.int64]
"""Nanoseconds, one number a stage: [S]."""

NEVER = -(2**61)
NANOSECONDS = 1e9


@dataclass(frozen=True)
class Timing:
    """What everything takes in each of S stages, in nanoseconds.

    Attributes:
        actions: an action, by kind; kinds that are not there take nothing.
        lead: what a stage does before an action that is neither waiting nor the action: it takes a message
            in, or turns to the next action.
        send: what sending the message of an F or a T takes of its stage's time.
        transfer: how long a message keeps the link to itself; the next one waits for it.
        latency: what a message takes besides, on its way.
    """

    stages: int
    actions: Mapping[Kind, Times]
    lead: Mapping[Kind, Times] = field(default_factory=dict)
    send: Mapping[Kind, Times] = field(default_factory=dict)
    transfer: Mapping[Kind, Times] = field(default_factory=dict)
    latency: Mapping[Kind, Times] = field(default_factory=dict)

    def of(self, part: Mapping[Kind, Times], kind: Kind) -> Times:
        """Return the times of a kind, zeros where there are none; of messages, where there is a receiver."""
        found = np.zeros(self.stages, np.int64)
        if kind in part:
            found[:] = part[kind]
        if part is self.send or part is self.transfer or part is self.latency:
            found[-1 if kind is Kind.FORWARD else 0] = 0
        return found


def nanoseconds(seconds: Sequence[float]) -> Times:
    """Return seconds as whole nanoseconds."""
    return np.rint(np.asarray(seconds, np.float64) * NANOSECONDS).astype(np.int64)
