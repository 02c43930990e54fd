"""The wire form of messages: one header frame of `HEADER_BYTES` bytes, and a frame of raw bytes per payload.

The header is little-endian, without padding:

    magic 4s | version u16 | kind u8 | kind of the link u8 | phase u8 | run id 16s | generation u32 |
    sequence u64 | sender stage u32 | layer u32 | minibatch u64 | number of payloads u8 |
    3 x (encoding u8 | number of dimensions u8 | shape 6 x u32 | payload bytes u64)

The encoding is the code of a dtype, or of bits: then the shape is that of the units, and the bytes are theirs
divided by 8, rounded up.

Nothing is unpickled, and every field is checked before a byte of payload is allocated.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.schedule import Phase
from dtp_dist.transport.messages import (
    ENCODINGS,
    HEADER_BYTES,
    MAX_DIMENSIONS,
    MAX_PAYLOADS,
    PAYLOADS,
    Bits,
    LinkIdentity,
    Message,
    MessageKind,
    Payload,
    counts,
    payload_problem,
)

__all__ = ["Buffer", "Header", "decode", "encode", "read_header", "split", "to_message"]

Buffer = bytes | bytearray | memoryview

MAGIC, VERSION = b"DTPD", 2
_REMEMBERED = 256  # descriptions of payloads; a link's are nearly all alike

_FIXED = struct.Struct("<4sHBBB16sIQIIQB")
_SLOT = struct.Struct(f"<BB{MAX_DIMENSIONS}IQ")
assert _FIXED.size + MAX_PAYLOADS * _SLOT.size == HEADER_BYTES

_PHASES = (Phase.BOTH, Phase.INVERSE, Phase.FORWARD, Phase.EVALUATE)
_PHASE_CODES = {phase: code for code, phase in enumerate(_PHASES)}
_ENCODINGS = dict(enumerate(ENCODINGS, 1))
_ENCODING_CODES = {encoding: code for code, encoding in _ENCODINGS.items()}


class _Fixed(NamedTuple):
    """The part of a header that every message has."""

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

    def __str__(self) -> str:
        return f"message from stage {self.sender}, layer {self.layer}, minibatch {self.minibatch}"


class Header(NamedTuple):
    """What a checked header says: phase, minibatch, and each payload with its size in bytes."""

    phase: Phase
    minibatch: int
    payloads: tuple[Payload, ...]
    sizes: tuple[int, ...]


def encode(
    message: Message, identity: LinkIdentity, sequence: int, *, header_only: bool = False
) -> list[Buffer]:
    """The frames of `message` as number `sequence` of its link: the header, then each payload's bytes.

    The frame of a contiguous payload is a view of it, no copy. Raises MessageError if one is not on the CPU,
    unless it is the header alone that is wanted.
    """
    payloads = message.payloads
    for payload in payloads:
        if not (payload.is_cpu or header_only):
            raise MessageError(f"{message}: only CPU tensors have a wire form, got one on {payload.device}")
    fixed = _FIXED.pack(
        MAGIC,
        VERSION,
        message.kind,
        identity.kind,
        _PHASE_CODES[message.phase],
        identity.run_id,
        identity.generation,
        sequence,
        message.sender,
        message.layer,
        message.minibatch,
        len(payloads),
    )
    slots = _pack_slots(message.described)
    return [fixed + slots, *[_bytes_of(payload) for payload in payloads if not header_only]]


def decode(
    frames: Sequence[Buffer],
    identity: LinkIdentity,
    expected_sequence: int,
    *,
    max_bytes: int,
    header_only: bool = False,
) -> Message:
    """The message in `frames`, due as number `expected_sequence` of the link (number 0 is its HELLO).

    Everything is checked before anything is allocated. Payloads are fresh contiguous tensors, so that they
    are aligned as torch aligns its own: with other operands a product changes its last bits. With
    `header_only` no payload has come, and those of the message are on the `meta` device: dtype and shape.

    Raises LinkError if messages before it were lost, MessageError if the frames are anything but the next
    message of this link or hold more than `max_bytes` bytes with the header.
    """
    sizes = None if header_only else tuple([memoryview(frame).nbytes for frame in frames[1:]])
    header = read_header(frames[0] if frames else b"", identity, expected_sequence, sizes)
    size = HEADER_BYTES + sum(header.sizes)
    if size > max_bytes:
        raise MessageError(f"{identity}: got {size} bytes, expected at most {max_bytes}")
    return to_message(header, None if header_only else frames[1:], identity, expected_sequence)


def split(data: Buffer) -> list[memoryview]:
    """The frames in the bytes of a message that came in one piece, as its header says their sizes.

    Nothing is checked, that is for `decode` to do: what is left over is a frame more.
    """
    view = memoryview(data)
    sizes = [HEADER_BYTES]
    if len(view) >= HEADER_BYTES:
        count = min(_FIXED.unpack_from(view)[-1], MAX_PAYLOADS)
        sizes += [_SLOT.unpack_from(view, _FIXED.size + i * _SLOT.size)[-1] for i in range(count)]
    frames, start = [], 0
    for size in sizes:
        frames.append(view[start : start + size])
        start += size
    return frames if start >= len(view) else [*frames, view[start:]]


def read_header(
    frame: Buffer, identity: LinkIdentity, expected_sequence: int, sizes: tuple[int, ...] | None = None
) -> Header:
    """What the header in `frame` says, checked to be that of message `expected_sequence` of the link.

    `sizes`: bytes of each payload frame that came with it, if they have come.
    Raises LinkError if messages before it were lost, MessageError for any other header.
    """
    if len(frame) != HEADER_BYTES:
        raise MessageError(f"{identity}: got a header of {len(frame)} bytes, expected {HEADER_BYTES}")
    fields = _FIXED.unpack_from(frame)
    magic, version, kind, link, phase, run_id, generation, sequence, sender, layer, minibatch, count = fields
    due = MessageKind.HELLO if expected_sequence == 0 else identity.kind
    got = (magic, version, kind, link, run_id, generation, sequence, sender, layer)
    known = (MAGIC, VERSION, due, identity.kind, identity.run_id, identity.generation, expected_sequence)
    try:
        counted = count in PAYLOADS[due]
        if got != (*known, identity.sender, identity.layer) or phase >= len(_PHASES) or not counted:
            _check_fixed(_Fixed(*fields), identity, due, expected_sequence)
        payloads, sizes = _read_slots(due, count, bytes(frame[_FIXED.size :]), sizes)
    except (MessageError, LinkError) as error:
        place = f"{_Fixed(*fields)}: " if magic == MAGIC else ""  # other bytes say no place
        raise type(error)(f"{identity}: {place}{error}") from None
    return Header(_PHASES[phase], minibatch, payloads, sizes)


def to_message(
    header: Header, frames: Sequence[Buffer] | None, identity: LinkIdentity, sequence: int
) -> Message:
    """The message of a checked header, its payloads copied from frames of exactly `header.sizes` bytes.

    Without frames they are on the `meta` device.
    """
    if frames is None:
        tensors = tuple([_empty(payload, "meta") for payload in header.payloads])
    else:
        tensors = tuple([_to_tensor(*each) for each in zip(header.payloads, frames, strict=True)])
    kind = MessageKind.HELLO if sequence == 0 else identity.kind
    packed = next((each for each in header.payloads if isinstance(each.encoding, Bits)), None)
    return Message(kind, header.phase, identity.sender, identity.layer, header.minibatch, tensors, packed)


@lru_cache(maxsize=_REMEMBERED)
def _pack_slots(payloads: tuple[Payload, ...]) -> bytes:
    packed = b""
    for payload in payloads:
        code, size = _ENCODING_CODES[payload.encoding], payload.shape
        shape = [*size, *[0] * (MAX_DIMENSIONS - len(size))]
        packed += _SLOT.pack(code, len(size), *shape, payload.nbytes)
    return packed.ljust(MAX_PAYLOADS * _SLOT.size, b"\0")


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it (of a copy, if it is not contiguous)."""
    if tensor.dtype is torch.bfloat16 or tensor.requires_grad or not tensor.is_contiguous():
        tensor = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    array: Any = tensor.numpy()
    return memoryview(array).cast("B")


def _empty(payload: Payload, device: str) -> Tensor:
    dtype, shape = payload.stored
    return torch.empty(shape, dtype=dtype, device=device)


def _to_tensor(payload: Payload, frame: Buffer) -> Tensor:
    tensor = _empty(payload, "cpu")
    _bytes_of(tensor)[:] = memoryview(frame).cast("B")
    return tensor


def _check_fixed(header: _Fixed, identity: LinkIdentity, kind: MessageKind, sequence: int) -> None:
    for name, got, expected in (
        ("magic and version", (header.magic, header.version), (MAGIC, VERSION)),
        ("run id", header.run_id.hex(), identity.run_id.hex()),
        ("generation", header.generation, identity.generation),
        ("link kind", header.link, identity.kind),
        ("kind", header.kind, kind),
        ("sender stage", header.sender, identity.sender),
        ("layer", header.layer, identity.layer),
        ("phase code", header.phase, min(header.phase, len(_PHASES) - 1)),
        ("sequence", header.sequence, max(header.sequence, sequence)),
    ):
        if got != expected:
            raise MessageError(f"got {name} {got}, expected {expected}")
    if header.payloads not in PAYLOADS[kind]:
        raise MessageError(f"got number of payloads {header.payloads}, expected {counts(kind)}")
    if header.sequence > sequence:
        lost = f"{header.sequence - sequence} message(s) before it were lost"
        raise LinkError(f"got sequence {header.sequence}, expected {sequence}: {lost}")


@lru_cache(maxsize=_REMEMBERED)
def _read_slots(
    kind: MessageKind, count: int, described: bytes, sizes: tuple[int, ...] | None
) -> tuple[tuple[Payload, ...], tuple[int, ...]]:
    """What a header says of each of `count` payloads, checked against the kind, and their sizes in bytes.

    A link's messages are nearly all described alike, so the answer is remembered.
    """
    if sizes is not None and len(sizes) != count:
        raise MessageError(f"got {len(sizes)} payload frames, expected {count}")
    slots = [_SLOT.unpack_from(described, i * _SLOT.size) for i in range(MAX_PAYLOADS)]
    if any(any(slot) for slot in slots[count:]):
        raise MessageError(f"got descriptions of more than {count} payloads")
    told = tuple(slot[-1] for slot in slots[:count])
    payloads = tuple(
        _read_slot(slot, size) for slot, size in zip(slots, told if sizes is None else sizes, strict=False)
    )
    problem = payload_problem(kind, payloads)
    if problem:
        raise MessageError(problem)
    return payloads, told


def _read_slot(slot: tuple[int, ...], size: int) -> Payload:
    """One payload of `size` bytes, as its header slot describes it."""
    code, ndim, *shape, nbytes = slot
    if code not in _ENCODINGS or ndim > MAX_DIMENSIONS or any(shape[ndim:]):
        raise MessageError(f"got a payload of dtype code {code}, {ndim} dimensions, shape {shape}")
    payload = Payload(_ENCODINGS[code], tuple(shape[:ndim]))
    if not payload.nbytes == nbytes == size:
        expected = f"expected {payload.nbytes} for {payload}"
        raise MessageError(f"got {size} bytes and {nbytes} in the header, {expected}")
    return payload
