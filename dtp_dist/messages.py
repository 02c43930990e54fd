"""What travels between two stages, and its wire form.

A message is one header frame of `HEADER_BYTES` bytes and one frame of raw bytes per payload tensor:

    HELLO        no payload; opens a link, sequence 0
    ACTIVATION   h_l(k) [B, ...] and its labels int64 [B], from stage s to s+1
    TARGET       delta_l(k) [B, ...], from stage s+1 to s

The header is little-endian, without padding:

    magic 4s | version u16 | kind u8 | kind of the link u8 | phase u8 | run id 16s | generation u32 |
    sequence u64 | sender stage u32 | layer u32 | minibatch u64 | number of payloads u8 |
    2 x (dtype u8 | number of dimensions u8 | shape 6 x u32 | payload bytes u64)

Nothing is unpickled, and every field is checked before a byte of payload is allocated.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.schedule import Phase

__all__ = ["HEADER_BYTES", "Buffer", "LinkIdentity", "Message", "MessageKind", "decode", "encode"]

Buffer = bytes | bytearray | memoryview

MAGIC, VERSION = b"DTPD", 1
MAX_PAYLOADS, MAX_DIMENSIONS = 2, 6
RUN_ID_BYTES = 16
_REMEMBERED = 256  # descriptions of payloads; a link's are nearly all alike

_FIXED = struct.Struct("<4sHBBB16sIQIIQB")
_SLOT = struct.Struct(f"<BB{MAX_DIMENSIONS}IQ")
HEADER_BYTES = _FIXED.size + MAX_PAYLOADS * _SLOT.size

_PHASES = (Phase("both"), Phase("inverse"), Phase("forward"), Phase("evaluate"))
_DTYPES = {1: torch.float32, 2: torch.bfloat16, 3: torch.float64, 4: torch.int64, 5: torch.uint8}
_DTYPE_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class MessageKind(IntEnum):
    """What a message holds; the values are those on the wire."""

    HELLO = 0
    ACTIVATION = 1
    TARGET = 2


_PAYLOADS = {MessageKind.HELLO: 0, MessageKind.ACTIVATION: 2, MessageKind.TARGET: 1}


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
        if len(self.run_id) != RUN_ID_BYTES:
            raise ValueError(f"run_id must have {RUN_ID_BYTES} bytes, got {len(self.run_id)}")
        if self.kind not in (MessageKind.ACTIVATION, MessageKind.TARGET):
            raise ValueError(f"a link carries ACTIVATION or TARGET messages, not {self.kind!r}")
        for name in ("generation", "sender", "receiver", "layer"):
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{name} must be from 0 to 2^32 - 1, got {getattr(self, name)}")

    @cached_property
    def due(self) -> tuple[object, ...]:
        """What every header of this link has in common."""
        return MAGIC, VERSION, self.run_id, self.generation, self.kind, self.sender, self.layer

    @property
    def receiver(self) -> int:
        """The receiving stage."""
        return self.sender + (1 if self.kind is MessageKind.ACTIVATION else -1)

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} link, stage {self.sender} -> stage {self.receiver}"


class _Payload(NamedTuple):
    """What the header says of one payload."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
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
        problem = _payload_problem(self.kind, tuple(_Payload(p.dtype, tuple(p.shape)) for p in self.payloads))
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
        return cls(MessageKind.HELLO, _PHASES[0], identity.sender, identity.layer, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of its wire form: header and payloads."""
        return HEADER_BYTES + sum(payload.nbytes for payload in self.payloads)

    def __str__(self) -> str:
        kind = self.kind.name.lower()
        return f"{kind} from stage {self.sender}, layer {self.layer}, minibatch {self.minibatch}"


class _Header(NamedTuple):
    magic: bytes
    version: int
    kind: int
    link: int
    phase: int
    run_id: bytes
    generation: int
    sequence: int
    sender: int
    layer: int
    minibatch: int
    payloads: int

    @property
    def due(self) -> tuple[object, ...]:
        """Everything that the receiver knows in advance."""
        known = (self.magic, self.version, self.run_id, self.generation, self.link, self.sender, self.layer)
        return (*known, self.kind, self.sequence, self.payloads)

    def __str__(self) -> str:
        return f"message from stage {self.sender}, layer {self.layer}, minibatch {self.minibatch}"


def encode(message: Message, identity: LinkIdentity, sequence: int) -> list[Buffer]:
    """The frames of `message` as number `sequence` of its link: the header, then each payload's bytes.

    The frame of a contiguous payload is a view of it, no copy. Raises MessageError if one is not on the CPU.
    """
    for payload in message.payloads:
        if payload.device.type != "cpu":
            raise MessageError(f"{message}: only CPU tensors have a wire form, got one on {payload.device}")
    fixed = _FIXED.pack(
        *(MAGIC, VERSION, message.kind, identity.kind, _PHASES.index(message.phase)),
        *(identity.run_id, identity.generation, sequence),
        *(message.sender, message.layer, message.minibatch, len(message.payloads)),
    )
    header = fixed + b"".join(_pack_slot(_Payload(p.dtype, tuple(p.shape))) for p in message.payloads)
    return [header.ljust(HEADER_BYTES, b"\0"), *(_bytes_of(payload) for payload in message.payloads)]


def decode(
    frames: Sequence[Buffer], identity: LinkIdentity, expected_sequence: int, *, max_bytes: int
) -> Message:
    """The message in `frames`, due as number `expected_sequence` of the link (number 0 is its HELLO).

    Everything is checked before anything is allocated. Payloads are fresh contiguous tensors, so that they
    are aligned as torch aligns its own: with other operands a product changes its last bits.

    Raises LinkError if messages before it were lost, MessageError if the frames are anything but the next
    message of this link or hold more than `max_bytes` bytes with the header.
    """
    sizes = [memoryview(frame).nbytes for frame in frames]
    if sum(sizes) > max_bytes:
        raise MessageError(f"{identity}: got {sum(sizes)} bytes, expected at most {max_bytes}")
    if sizes[:1] != [HEADER_BYTES]:
        raise MessageError(
            f"{identity}: got a header of {sizes[0] if sizes else 0} bytes, expected {HEADER_BYTES}"
        )
    header = _Header(*_FIXED.unpack_from(frames[0]))
    expected_kind = MessageKind.HELLO if expected_sequence == 0 else identity.kind
    try:
        known = (*identity.due, expected_kind, expected_sequence, _PAYLOADS[expected_kind])
        if header.due != known or header.phase >= len(_PHASES):
            _check_header(header, identity, expected_kind, expected_sequence)
        payloads = _read_slots(header.kind, bytes(frames[0][_FIXED.size :]), tuple(sizes[1:]))
    except (MessageError, LinkError) as error:
        raise type(error)(f"{identity}: {header}: {error}") from None
    tensors = tuple(_to_tensor(payload, frame) for payload, frame in zip(payloads, frames[1:], strict=True))
    place = (_PHASES[header.phase], header.sender, header.layer, header.minibatch)
    return Message(expected_kind, *place, tensors)


@lru_cache(maxsize=_REMEMBERED)
def _payload_problem(kind: MessageKind, payloads: tuple[_Payload, ...]) -> str | None:
    """What is wrong with these payloads for a message of this kind, if anything."""
    if len(payloads) != _PAYLOADS[kind]:
        return f"got {len(payloads)} payloads, expected {_PAYLOADS[kind]}"
    for payload in payloads:
        if payload.dtype not in _DTYPE_CODES:
            return f"got {payload}, expected one of {', '.join(str(dtype) for dtype in _DTYPE_CODES)}"
        if not 1 <= len(payload.shape) <= MAX_DIMENSIONS or not all(0 < n < 2**32 for n in payload.shape):
            return f"got {payload}, expected 1 to {MAX_DIMENSIONS} dimensions, none empty"
    if kind is MessageKind.ACTIVATION:
        labels = _Payload(torch.int64, payloads[0].shape[:1])
        if payloads[1] != labels:
            return f"got labels {payloads[1]}, expected {labels}"
    return None


@lru_cache(maxsize=_REMEMBERED)
def _pack_slot(payload: _Payload) -> bytes:
    shape = [*payload.shape, *[0] * (MAX_DIMENSIONS - len(payload.shape))]
    return _SLOT.pack(_DTYPE_CODES[payload.dtype], len(payload.shape), *shape, payload.nbytes)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it (of a copy, if it is not contiguous)."""
    if tensor.dtype is torch.bfloat16 or tensor.requires_grad or not tensor.is_contiguous():
        tensor = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    array: Any = tensor.numpy()
    return memoryview(array).cast("B")


def _to_tensor(payload: _Payload, frame: Buffer) -> Tensor:
    tensor = torch.empty(payload.shape, dtype=payload.dtype)
    _bytes_of(tensor)[:] = memoryview(frame).cast("B")
    return tensor


def _check_header(header: _Header, identity: LinkIdentity, kind: MessageKind, sequence: int) -> None:
    for name, got, expected in (
        ("magic and version", (header.magic, header.version), (MAGIC, VERSION)),
        ("run id", header.run_id.hex(), identity.run_id.hex()),
        ("generation", header.generation, identity.generation),
        ("link kind", header.link, identity.kind),
        ("kind", header.kind, kind),
        ("sender stage", header.sender, identity.sender),
        ("layer", header.layer, identity.layer),
        ("number of payloads", header.payloads, _PAYLOADS[kind]),
        ("phase code", header.phase, min(header.phase, len(_PHASES) - 1)),
        ("sequence", header.sequence, max(header.sequence, sequence)),
    ):
        if got != expected:
            raise MessageError(f"got {name} {got}, expected {expected}")
    if header.sequence > sequence:
        lost = f"{header.sequence - sequence} message(s) before it were lost"
        raise LinkError(f"got sequence {header.sequence}, expected {sequence}: {lost}")


@lru_cache(maxsize=_REMEMBERED)
def _read_slots(kind: int, described: bytes, sizes: tuple[int, ...]) -> tuple[_Payload, ...]:
    """What a header says of each payload, checked against the kind and the payload frames' sizes.

    A link's messages are nearly all described alike, so the answer is remembered.
    """
    count = _PAYLOADS[MessageKind(kind)]
    if len(sizes) != count:
        raise MessageError(f"got {len(sizes)} payload frames, expected {count}")
    slots = [_SLOT.unpack_from(described, i * _SLOT.size) for i in range(MAX_PAYLOADS)]
    if any(any(slot) for slot in slots[count:]):
        raise MessageError(f"got descriptions of more than {count} payloads")
    payloads = tuple(_read_slot(slot, size) for slot, size in zip(slots, sizes, strict=False))
    problem = _payload_problem(MessageKind(kind), payloads)
    if problem:
        raise MessageError(problem)
    return payloads


def _read_slot(slot: tuple[int, ...], size: int) -> _Payload:
    """One payload of a frame of `size` bytes, as its header slot describes it."""
    code, ndim, *shape, nbytes = slot
    if code not in _DTYPES or ndim > MAX_DIMENSIONS or any(shape[ndim:]):
        raise MessageError(f"got a payload of dtype code {code}, {ndim} dimensions, shape {shape}")
    payload = _Payload(_DTYPES[code], tuple(shape[:ndim]))
    if not payload.nbytes == nbytes == size:
        expected = f"expected {payload.nbytes} for {payload}"
        raise MessageError(f"got {size} bytes and {nbytes} in the header, {expected}")
    return payload
