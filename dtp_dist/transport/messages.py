"""What travels between two stages; `wire.py` has its wire form.

HELLO        no payload; opens a link, sequence 0
ACTIVATION   h_l(k) [B, ...] and its labels, int64 [B] or float32 [B, K], from stage s to s+1; where the rule
             probes, what P layers below gave with noise, as it is here [P B, ...], next to them
TARGET       delta_l(k) [B, ...], from stage s+1 to s, or what the rule sends in its place; where
             diagnostics measure, -dLoss/dh_l(k) next to it; then what came of those P probes [P B, K]

An h_l of two values may be packed: one bit a unit, in the order of its units, lowest bit of a byte first.
"""

import math
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dtp_dist.errors import MessageError
from dtp_dist.schedule import Phase

__all__ = [
    "DTYPES",
    "ENCODINGS",
    "HEADER_BYTES",
    "MAX_DIMENSIONS",
    "MAX_PAYLOADS",
    "PAYLOADS",
    "Bits",
    "LinkIdentity",
    "Message",
    "MessageKind",
    "Payload",
    "counts",
    "payload_problem",
]

HEADER_BYTES = 156
MAX_DIMENSIONS = 6
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8)
_RUN_ID_BYTES = 16
_BYTE = 8  # bits
_REMEMBERED = 256  # descriptions of payloads; a link's are nearly all alike


class MessageKind(IntEnum):
    """What a message holds; the values are those on the wire."""

    HELLO = 0
    ACTIVATION = 1
    TARGET = 2


class Bits(Enum):
    """What the bits of a packed payload stand for."""

    SIGN = "bits of -1, +1"
    BINARY = "bits of 0, 1"

    def __str__(self) -> str:
        return self.value


ENCODINGS = (*DTYPES, *Bits)
PAYLOADS = {MessageKind.HELLO: (0,), MessageKind.ACTIVATION: (2, 3), MessageKind.TARGET: (1, 2, 3)}
"""How many payloads a message of each kind may have."""
MAX_PAYLOADS = max(max(counts) for counts in PAYLOADS.values())


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
    """How one payload is encoded, and the shape of what it stands for."""

    encoding: torch.dtype | Bits
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes; the last byte of bits is filled up."""
        units = math.prod(self.shape)
        if isinstance(self.encoding, Bits):
            return -(-units // _BYTE)
        return units * self.encoding.itemsize

    @property
    def stored(self) -> tuple[torch.dtype, tuple[int, ...]]:
        """Dtype and shape of the tensor that holds it: bytes in a row, if it is packed."""
        if isinstance(self.encoding, Bits):
            return torch.uint8, (self.nbytes,)
        return self.encoding, self.shape

    def __str__(self) -> str:
        return f"{str(self.encoding).removeprefix('torch.')}{list(self.shape)}"


@dataclass(frozen=True, eq=False, repr=False)
class Message:
    """One minibatch's activation or displacement on its way between two stages.

    payloads: `(h [B, ...], labels int64 [B] or float32 [B, K])` of an ACTIVATION, and probes [P B, ...];
    `(delta [B, ...],)` of a TARGET, and a descent, and answers to probes; none of a HELLO. phase: of its
    segment. sender: stage. layer: the l of h_l or delta_l. minibatch: k. packed: what the bytes of the first
    payload stand for, if bits.

    Raises MessageError for payloads of another number, encoding or shape, or without examples.
    """

    kind: MessageKind
    phase: Phase
    sender: int
    layer: int
    minibatch: int
    payloads: tuple[Tensor, ...] = ()
    packed: Payload | None = None

    def __post_init__(self) -> None:
        problem = payload_problem(self.kind, self.described)
        if self.packed is not None and not problem:
            problem = _packing_problem(self.packed, self.payloads[0])
        if problem:
            raise MessageError(f"{self}: {problem}")

    @cached_property
    def described(self) -> tuple[Payload, ...]:
        """What each payload stands for."""
        found = tuple([Payload(p.dtype, p.shape) for p in self.payloads])
        return found if self.packed is None else (self.packed, *found[1:])

    @classmethod
    def hello(cls, identity: LinkIdentity) -> "Message":
        """The message that opens a link."""
        return cls(MessageKind.HELLO, Phase.BOTH, identity.sender, identity.layer, 0)

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
    if len(payloads) not in PAYLOADS[kind]:
        return f"got {len(payloads)} payloads, expected {counts(kind)}"
    for payload in payloads:
        if payload.encoding not in ENCODINGS:
            return f"got {payload}, expected one of {', '.join(str(dtype) for dtype in DTYPES)}"
        if not 1 <= len(payload.shape) <= MAX_DIMENSIONS or not all(0 < n < 2**32 for n in payload.shape):
            return f"got {payload}, expected 1 to {MAX_DIMENSIONS} dimensions, none empty"
    if kind is MessageKind.ACTIVATION:
        problem = _labels_problem(payloads[1], payloads[0].shape[0])
        return problem or _probes_problem(payloads[0], payloads[2:])
    if any(isinstance(payload.encoding, Bits) for payload in payloads):
        return "got bits, which only an activation can be"
    if len({payload.encoding for payload in payloads}) > 1:
        return f"got {', '.join(map(str, payloads))}, expected all of one encoding"
    return None


def _probes_problem(h: Payload, probes: tuple[Payload, ...]) -> str | None:
    """What is wrong with probes next to an activation, if there are such: they must be like several of it."""
    for each in probes:
        alike = each.encoding == h.encoding and each.shape[1:] == h.shape[1:]
        if isinstance(each.encoding, Bits) or not alike or each.shape[0] % h.shape[0]:
            return f"got probes {each} next to {h}, expected numbers like it, for each example as many"
    return None


def _labels_problem(labels: Payload, examples: int) -> str | None:
    """What is wrong with labels of so many examples: a class for each, or a row of numbers."""
    classes = labels == Payload(torch.int64, (examples,))
    numbers = labels.encoding is torch.float32 and len(labels.shape) == 2 and labels.shape[0] == examples
    if classes or numbers:
        return None
    return f"got labels {labels}, expected int64[{examples}] or float32[{examples}, K]"


def counts(kind: MessageKind) -> str:
    """How many payloads a message of a kind may have, in words."""
    return " or ".join(map(str, PAYLOADS[kind]))


def _packing_problem(packed: Payload, tensor: Tensor) -> str | None:
    held = Payload(tensor.dtype, tensor.shape)
    if held == Payload(*packed.stored):
        return None
    return f"got {held} for {packed}, expected {Payload(*packed.stored)}"
