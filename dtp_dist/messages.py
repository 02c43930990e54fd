"""What travels between two stages; `wire.py` has its wire form.

HELLO        no payload; opens a link, sequence 0
ACTIVATION   h_l(k) [B, ...] and its labels int64 [B], from stage s to s+1
TARGET       delta_l(k) [B, ...], from stage s+1 to s
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dtp_dist.errors import MessageError
from dtp_dist.schedule import Phase

__all__ = [
    "DTYPES",
    "HEADER_BYTES",
    "MAX_DIMENSIONS",
    "MAX_PAYLOADS",
    "PAYLOADS",
    "LinkIdentity",
    "Message",
    "MessageKind",
    "Payload",
    "payload_problem",
]

HEADER_BYTES = 122
MAX_DIMENSIONS = 6
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8)
_RUN_ID_BYTES = 16
_REMEMBERED = 256  # descriptions of payloads; a link's are nearly all alike


class MessageKind(IntEnum):
    """What a message holds; the values are those on the wire."""

    HELLO = 0
    ACTIVATION = 1
    TARGET = 2


PAYLOADS = {MessageKind.HELLO: 0, MessageKind.ACTIVATION: 2, MessageKind.TARGET: 1}
MAX_PAYLOADS = max(PAYLOADS.values())


@dataclass(frozen=True)
class LinkIdentity:
    """What both ends of a link agree on before it comes up.

    run_id: 16 bytes, the same for every stage of a run. generation: counts the times the run was linked up.
    kind: ACTIVATION (stage s to s+1) or TARGET (stage s to s-1). sender: the sending stage.
    layer: the l of the h_l or delta_l it carries, the last layer before the boundary between the stages.

    Raises ValueError for a run id of another length, a kind of HELLO or a number out of range.
    """

    run_id: bytes
    generation: int
    kind: MessageKind
    sender: int
    layer: int

    def __post_init__(self) -> None:
        if len(self.run_id) != _RUN_ID_BYTES:
            raise ValueError(f"run_id must have {_RUN_ID_BYTES} bytes, got {len(self.run_id)}")
        if self.kind not in (MessageKind.ACTIVATION, MessageKind.TARGET):
            raise ValueError(f"a link carries ACTIVATION or TARGET messages, not {self.kind!r}")
        for name in ("generation", "sender", "receiver", "layer"):
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{name} must be from 0 to 2^32 - 1, got {getattr(self, name)}")

    @property
    def receiver(self) -> int:
        """The receiving stage."""
        return self.sender + (1 if self.kind is MessageKind.ACTIVATION else -1)

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} link, stage {self.sender} -> stage {self.receiver}"


class Payload(NamedTuple):
    """Dtype and shape of one payload."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


@dataclass(frozen=True, eq=False, repr=False)
class Message:
    """One minibatch's activation or displacement on its way between two stages.

    payloads: `(h [B, ...], labels int64 [B])` of an ACTIVATION, `(delta [B, ...],)` of a TARGET, none of a
    HELLO. phase: of its segment. sender: stage. layer: the l of h_l or delta_l. minibatch: k.

    Raises MessageError for payloads of another number, dtype or shape, or without examples.
    """

    kind: MessageKind
    phase: Phase
    sender: int
    layer: int
    minibatch: int
    payloads: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        problem = payload_problem(self.kind, tuple([Payload(p.dtype, p.shape) for p in self.payloads]))
        if problem:
            raise MessageError(f"{self}: {problem}")

    @classmethod
    def activation(
        cls, h: Tensor, labels: Tensor, *, phase: Phase, sender: int, layer: int, minibatch: int
    ) -> "Message":
        """`h = h_layer(minibatch)` [B, ...] with its labels, int64 [B]."""
        return cls(MessageKind.ACTIVATION, phase, sender, layer, minibatch, (h, labels))

    @classmethod
    def target(
        cls, displacement: Tensor, *, phase: Phase, sender: int, layer: int, minibatch: int
    ) -> "Message":
        """`displacement = delta_layer(minibatch)` [B, ...]."""
        return cls(MessageKind.TARGET, phase, sender, layer, minibatch, (displacement,))

    @classmethod
    def hello(cls, identity: LinkIdentity) -> "Message":
        """The message that opens a link."""
        return cls(MessageKind.HELLO, Phase("both"), identity.sender, identity.layer, 0)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of its wire form: header and payloads."""
        return HEADER_BYTES + sum([payload.nbytes for payload in self.payloads])

    def __str__(self) -> str:
        kind = self.kind.name.lower()
        return f"{kind} from stage {self.sender}, layer {self.layer}, minibatch {self.minibatch}"


@lru_cache(maxsize=_REMEMBERED)
def payload_problem(kind: MessageKind, payloads: tuple[Payload, ...]) -> str | None:
    """What is wrong with these payloads for a message of this kind, if anything."""
    if len(payloads) != PAYLOADS[kind]:
        return f"got {len(payloads)} payloads, expected {PAYLOADS[kind]}"
    for payload in payloads:
        if payload.dtype not in DTYPES:
            return f"got {payload}, expected one of {', '.join(str(dtype) for dtype in DTYPES)}"
        if not 1 <= len(payload.shape) <= MAX_DIMENSIONS or not all(0 < n < 2**32 for n in payload.shape):
            return f"got {payload}, expected 1 to {MAX_DIMENSIONS} dimensions, none empty"
    if kind is MessageKind.ACTIVATION:
        labels = Payload(torch.int64, payloads[0].shape[:1])
        if payloads[1] != labels:
            return f"got labels {payloads[1]}, expected {labels}"
    return None
