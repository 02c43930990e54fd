"""What a stage's process is told, and what it tells its starter about itself; plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageSetup:
    """What a stage needs to know.

    Attributes:
        config: plain data.
        run_id: 16 bytes, the same for all stages of a run.
        generation: counts the times the run was started.
        endpoint: ``shm://FOLDER``, ``ipc://FOLDER`` or ``tcp://ADDRESS``, where its receiving ends are bound.
    """

    config: dict[str, Any]
    index: int
    run_id: bytes
    generation: int
    endpoint: str


@dataclass(frozen=True)
class Address:
    """Where a stage can be reached: endpoints by kind of message (a number), and its public CURVE key."""

    endpoints: dict[int, str] = field(default_factory=dict)
    public_key: bytes | None = None


@dataclass(frozen=True)
class Failure:
    """An error on its way to the driver: its class's name, its line, its traceback and where it happened."""

    kind: str
    message: str
    trace: str
    where: str
