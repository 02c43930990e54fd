"""What a stage's process is told, and what it reports to its starter about itself; plain data, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a stage binds its receiving ends.

    Attributes:
        transport: its name.
        folder: of the socket files, "" where the transport needs none.
        host: the address of the stage's host, as far as the others need it.
    """

    transport: str
    folder: str = ""
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class StageSetup:
    """What a stage needs to know.

    Attributes:
        config: plain data.
        run_id: 16 bytes, the same for all stages of a run.
        generation: counts the times the run was started.
        place: where it can be reached; None until all stages' hosts are known.
    """

    config: dict[str, Any]
    index: int
    run_id: bytes
    generation: int
    place: Place | None = None


@dataclass(frozen=True)
class Address:
    """Where a stage can be reached.

    Attributes:
        endpoints: by kind of message (a number).
        public_key: its CURVE key, over TCP.
        gpu: the identifier of its CUDA device, if it has one; no two of a cluster share one.
        rendezvous: where the GPUs' process groups can meet, in the first stage's address.
        device: the name of the device that computes.
    """

    endpoints: dict[int, str] = field(default_factory=dict)
    public_key: bytes | None = None
    gpu: str | None = None
    rendezvous: str | None = None
    device: str = "cpu"


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


@dataclass(frozen=True)
class LocalSetup:
    """What a stage's process is told first: the stage's own setup and what belongs to the process."""

    stage: StageSetup
    sockets: str
    board: int
    heartbeat: float
    parent: int
    path: list[str]
