"""The wire form of messages: one header frame of `HEADER_BYTES` bytes, and a frame of raw bytes per payload.

The header is little-endian, without padding:

    magic 4s | version u16 | kind u8 | kind of the link u8 | phase u8 | run id 16s | generation u32 |
    sequence u64 | sender stage u32 | layer u32 | minibatch u64 | number of payloads u8 |
    2 x (dtype u8 | number of dimensions u8 | shape 6 x u32 | payload bytes u64)

Nothing is unpickled, and every field is checked before a byte of payload is allocated.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.messages import (
    DTYPES,
    HEADER_BYTES,
    MAX_DIMENSIONS,
    PAYLOADS,
    LinkIdentity,
    Message,
    MessageKind,
    Payload,
    payload_problem,
)
from dtp_dist.schedule import Phase

__all__ = ["Buffer", "decode", "encode", "payload_sizes"]

Buffer = bytes | bytearray | memoryview

MAGIC, VERSION = b"DTPD", 1
MAX_PAYLOADS = max(PAYLOADS.values())
_REMEMBERED = 256  # descriptions of payloads; a link's are nearly all alike

_FIXED = struct.Struct("<4sHBBB16sIQIIQB")
_SLOT = struct.Struct(f"<BB{MAX_DIMENSIONS}IQ")
assert _FIXED.size + MAX_PAYLOADS * _SLOT.size == HEADER_BYTES

_PHASES = (Phase("both"), Phase("inverse"), Phase("forward"), Phase("evaluate"))
_DTYPES = dict(enumerate(DTYPES, 1))
_DTYPE_CODES = {dtype: code for code, dtype in _DTYPES.items()}


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


@lru_cache(maxsize=_REMEMBERED)
def _due(identity: LinkIdentity) -> tuple[object, ...]:
    """What every header of a link has in common."""
    known = (MAGIC, VERSION, identity.run_id, identity.generation)
    return (*known, identity.kind, identity.sender, identity.layer)


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
    header = fixed + b"".join(_pack_slot(Payload(p.dtype, tuple(p.shape))) for p in message.payloads)
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
        known = (*_due(identity), expected_kind, expected_sequence, PAYLOADS[expected_kind])
        if header.due != known or header.phase >= len(_PHASES):
            _check_header(header, identity, expected_kind, expected_sequence)
        payloads = _read_slots(header.kind, bytes(frames[0][_FIXED.size :]), tuple(sizes[1:]))
    except (MessageError, LinkError) as error:
        raise type(error)(f"{identity}: {header}: {error}") from None
    tensors = tuple(_to_tensor(payload, frame) for payload, frame in zip(payloads, frames[1:], strict=True))
    place = (_PHASES[header.phase], header.sender, header.layer, header.minibatch)
    return Message(expected_kind, *place, tensors)


@lru_cache(maxsize=_REMEMBERED)
def _pack_slot(payload: Payload) -> bytes:
    shape = [*payload.shape, *[0] * (MAX_DIMENSIONS - len(payload.shape))]
    return _SLOT.pack(_DTYPE_CODES[payload.dtype], len(payload.shape), *shape, payload.nbytes)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it (of a copy, if it is not contiguous)."""
    if tensor.dtype is torch.bfloat16 or tensor.requires_grad or not tensor.is_contiguous():
        tensor = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    array: Any = tensor.numpy()
    return memoryview(array).cast("B")


def _to_tensor(payload: Payload, frame: Buffer) -> Tensor:
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
        ("number of payloads", header.payloads, PAYLOADS[kind]),
        ("phase code", header.phase, min(header.phase, len(_PHASES) - 1)),
        ("sequence", header.sequence, max(header.sequence, sequence)),
    ):
        if got != expected:
            raise MessageError(f"got {name} {got}, expected {expected}")
    if header.sequence > sequence:
        lost = f"{header.sequence - sequence} message(s) before it were lost"
        raise LinkError(f"got sequence {header.sequence}, expected {sequence}: {lost}")


@lru_cache(maxsize=_REMEMBERED)
def _read_slots(kind: int, described: bytes, sizes: tuple[int, ...]) -> tuple[Payload, ...]:
    """What a header says of each payload, checked against the kind and the payload frames' sizes.

    A link's messages are nearly all described alike, so the answer is remembered.
    """
    count = PAYLOADS[MessageKind(kind)]
    if len(sizes) != count:
        raise MessageError(f"got {len(sizes)} payload frames, expected {count}")
    slots = [_SLOT.unpack_from(described, i * _SLOT.size) for i in range(MAX_PAYLOADS)]
    if any(any(slot) for slot in slots[count:]):
        raise MessageError(f"got descriptions of more than {count} payloads")
    payloads = tuple(_read_slot(slot, size) for slot, size in zip(slots, sizes, strict=False))
    problem = payload_problem(MessageKind(kind), payloads)
    if problem:
        raise MessageError(problem)
    return payloads


def _read_slot(slot: tuple[int, ...], size: int) -> Payload:
    """One payload of a frame of `size` bytes, as its header slot describes it."""
    code, ndim, *shape, nbytes = slot
    if code not in _DTYPES or ndim > MAX_DIMENSIONS or any(shape[ndim:]):
        raise MessageError(f"got a payload of dtype code {code}, {ndim} dimensions, shape {shape}")
    payload = Payload(_DTYPES[code], tuple(shape[:ndim]))
    if not payload.nbytes == nbytes == size:
        expected = f"expected {payload.nbytes} for {payload}"
        raise MessageError(f"got {size} bytes and {nbytes} in the header, {expected}")
    return payload


def payload_sizes(header: Buffer) -> list[int]:
    """What a header says of the number of bytes of each payload; it is `decode` that checks it.

    Raises MessageError for a header of another size.
    """
    if len(header) != HEADER_BYTES:
        raise MessageError(f"got a header of {len(header)} bytes, expected {HEADER_BYTES}")
    count = min(_FIXED.unpack_from(header)[-1], MAX_PAYLOADS)
    return [_SLOT.unpack_from(header, _FIXED.size + i * _SLOT.size)[-1] for i in range(count)]
