"""What a stage's process is told, and what it tells its starter about itself; plain data, no torch."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Where a stage can be reached.

    Attributes:
        endpoints: by kind of message (a number).
        public_key: its CURVE key, over TCP.
        gpu: the identifier of its CUDA device, if it has one; no two of a cluster share one.
        rendezvous: where the GPUs' process groups can meet, in the first stage's address.
    """

    endpoints: dict[int, str] = field(default_factory=dict)
    public_key: bytes | None = None
    gpu: str | None = None
    rendezvous: str | None = None


def meeting_point(bound: Sequence[Address]) -> str | None:
    """Return where the stages' process groups meet, or None where payloads go through the hosts' memory.

    They go from GPU to GPU when every stage has a CUDA device of its own. NCCL refuses a group that has one
    device twice, so stages that share one use the host, as those on the CPU do.
    """
    gpus = {address.gpu for address in bound}
    own = None not in gpus and len(gpus) == len(bound)
    return bound[0].rendezvous if own and len(bound) > 1 else None


@dataclass(frozen=True)
class Failure:
    """An error on its way to the driver: its class's name, its line, its traceback and where it happened."""

    kind: str
    message: str
    trace: str
    where: str
