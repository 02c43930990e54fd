import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.schedule import Phase
from dtp_dist.transport.messages import HEADER_BYTES, Bits, LinkIdentity, Message, MessageKind, Payload
from dtp_dist.transport.wire import decode, encode
from links import activation_message, target_message

RUN_ID = bytes(range(16))
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8]
LINK = LinkIdentity(RUN_ID, generation=3, kind=MessageKind.ACTIVATION, sender=1, layer=4)
BACK = LinkIdentity(RUN_ID, generation=3, kind=MessageKind.TARGET, sender=2, layer=4)
MAX_BYTES = 1 << 20

# Offsets of the header's fields, written out here a second time on purpose: the format must not drift.
FIELDS = {
    "magic": (0, "4s"),
    "version": (4, "H"),
    "kind": (6, "B"),
    "link kind": (7, "B"),
    "phase": (8, "B"),
    "run id": (9, "16s"),
    "generation": (25, "I"),
    "sequence": (29, "Q"),
    "sender stage": (37, "I"),
    "layer": (41, "I"),
    "minibatch": (45, "Q"),
    "payloads": (53, "B"),
    "dtype": (54, "B"),
    "dimensions": (55, "B"),
    "shape 0": (56, "I"),
    "shape 1": (60, "I"),
    "shape 2": (64, "I"),
    "shape 5": (76, "I"),
    "nbytes": (80, "Q"),
    "labels dtype": (88, "B"),
    "labels dimensions": (89, "B"),
    "labels shape": (90, "I"),
    "labels nbytes": (114, "Q"),
}


def activation(batch: int = 2, units: int = 3, minibatch: int = 7) -> Message:
    return activation_message(
        torch.randn(batch, units),
        torch.arange(batch),
        phase=Phase.BOTH,
        sender=1,
        layer=4,
        minibatch=minibatch,
    )


def packed(shape: tuple[int, ...] = (2, 5), bits: Bits = Bits.SIGN) -> Message:
    """An activation of bits, all ones."""
    payload = Payload(bits, shape)
    data = torch.full((payload.nbytes,), 255, dtype=torch.uint8)
    payloads = (data, torch.arange(shape[0]))
    return Message(MessageKind.ACTIVATION, Phase.BOTH, 1, 4, 7, payloads, payload)


def wire(message: Message, identity: LinkIdentity = LINK, sequence: int = 5) -> list[bytes]:
    return [bytes(frame) for frame in encode(message, identity, sequence)]


def with_field(frames: list[bytes], name: str, value: object) -> list[bytes]:
    offset, code = FIELDS[name]
    header = bytearray(frames[0])
    struct.pack_into("<" + code, header, offset, value)
    return [bytes(header), *frames[1:]]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = [x.contiguous().reshape(-1).view(torch.uint8).tolist() for x in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and bits[0] == bits[1]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any dtype, 1 to 5 dimensions and any bits, so NaNs with payloads too; contiguous or not."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    nbytes = torch.Size(shape).numel() * dtype.itemsize
    tensor = torch.randint(0, 256, (nbytes,), dtype=torch.uint8, generator=generator).view(dtype).view(shape)
    if draw(st.booleans()):
        tensor = tensor.transpose(0, -1)
    return tensor


@settings(deadline=None)
@given(
    tensors(),
    st.sampled_from(list(Phase)),
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 3),
)
def test_activation_round_trip_keeps_every_bit(
    h: torch.Tensor, phase: Phase, minibatch: int, sequence: int, columns: int
) -> None:
    """Labels are a class of each example, or so many columns of numbers."""
    labels = torch.arange(h.shape[0]) - 1
    if columns:
        labels = (labels.unsqueeze(1) / 3).repeat(1, columns)
    sent = activation_message(h, labels, phase=phase, sender=1, layer=4, minibatch=minibatch)
    frames = encode(sent, LINK, sequence)
    got = decode(frames, LINK, sequence, max_bytes=MAX_BYTES)
    assert (got.kind, got.phase, got.sender) == (MessageKind.ACTIVATION, phase, 1)
    assert (got.layer, got.minibatch) == (4, minibatch)
    assert same_bits(got.payloads[0], h)
    assert same_bits(got.payloads[1], labels)
    assert sent.nbytes == got.nbytes == sum(len(frame) for frame in frames)


@settings(deadline=None)
@given(tensors())
def test_target_round_trip_keeps_every_bit(displacement: torch.Tensor) -> None:
    sent = target_message(displacement, phase=Phase.FORWARD, sender=2, layer=4, minibatch=0)
    got = decode(wire(sent, BACK), BACK, 5, max_bytes=MAX_BYTES)
    assert (got.kind, got.phase, len(got.payloads)) == (MessageKind.TARGET, Phase.FORWARD, 1)
    assert same_bits(got.payloads[0], displacement)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from(list(Bits)), st.booleans())
def test_packed_round_trip_keeps_every_bit_and_the_shape(
    shape: list[int], bits: Bits, header_only: bool
) -> None:
    sent = packed(tuple(shape), bits)
    frames = encode(sent, LINK, 5, header_only=header_only)
    got = decode(frames, LINK, 5, max_bytes=MAX_BYTES, header_only=header_only)
    units = torch.Size(shape).numel()
    assert got.packed == (bits, tuple(shape))
    assert sent.nbytes == got.nbytes == HEADER_BYTES + (units + 7) // 8 + 8 * shape[0]
    if header_only:
        assert [each.device.type for each in got.payloads] == ["meta", "meta"]
        assert (got.payloads[0].dtype, got.payloads[0].shape) == (torch.uint8, ((units + 7) // 8,))
    else:
        assert sent.nbytes == sum(len(frame) for frame in frames)
        assert same_bits(got.payloads[0], sent.payloads[0])


def test_probes_travel_beside_an_activation_and_their_answers_beside_a_target() -> None:
    h, labels, probes, answers = (
        torch.randn(2, 3, 4),
        torch.arange(2),
        torch.randn(6, 3, 4),
        torch.randn(6, 5),
    )
    up = Message(MessageKind.ACTIVATION, Phase.BOTH, 1, 4, 7, (h, labels, probes))
    got = decode(wire(up), LINK, 5, max_bytes=MAX_BYTES)
    assert [same_bits(*pair) for pair in zip(got.payloads, (h, labels, probes), strict=True)] == [True] * 3
    sent = (torch.randn(2, 5), torch.randn(2, 3, 4), answers)
    down = Message(MessageKind.TARGET, Phase.BOTH, 2, 4, 7, sent)
    got = decode(wire(down, BACK), BACK, 5, max_bytes=MAX_BYTES)
    assert [same_bits(*pair) for pair in zip(got.payloads, sent, strict=True)] == [True] * 3


def test_a_target_may_have_a_companion() -> None:
    delta = torch.randn(2, 3)
    for descent in (torch.randn(2, 3), torch.randn(2, 4, 5)):  # a signal may have another shape than h_l
        sent = Message(MessageKind.TARGET, Phase.BOTH, 2, 4, 7, (delta, descent))
        got = decode(wire(sent, BACK), BACK, 5, max_bytes=MAX_BYTES)
        assert [same_bits(*pair) for pair in zip(got.payloads, (delta, descent), strict=True)] == [True, True]
    with pytest.raises(MessageError, match="expected all of one encoding"):
        Message(MessageKind.TARGET, Phase.BOTH, 2, 4, 7, (delta, torch.randn(2, 3).bfloat16()))
    with pytest.raises(MessageError, match="got 4 payloads, expected 1 or 2 or 3"):
        Message(MessageKind.TARGET, Phase.BOTH, 2, 4, 7, (delta,) * 4)
    with pytest.raises(MessageError, match="got number of payloads 0, expected 1 or 2 or 3"):
        decode(with_field(wire(sent, BACK), "payloads", 0), BACK, 5, max_bytes=MAX_BYTES)
    with pytest.raises(MessageError, match="got 2 payload frames, expected 1"):
        decode(with_field(wire(sent, BACK), "payloads", 1), BACK, 5, max_bytes=MAX_BYTES)


def test_nan_payload_bits_survive() -> None:
    bits = torch.tensor([0x7FC12345, 0x7F800001, -0x400000 + 77, -(2**31)], dtype=torch.int32)
    sent = target_message(bits.view(torch.float32), phase=Phase.BOTH, sender=2, layer=4, minibatch=0)
    got = decode(wire(sent, BACK), BACK, 5, max_bytes=MAX_BYTES)
    assert torch.equal(got.payloads[0].view(torch.int32), bits)


def test_hello_is_number_zero_and_a_header_alone() -> None:
    frames = wire(Message.hello(LINK), sequence=0)
    assert [len(frame) for frame in frames] == [HEADER_BYTES]
    assert decode(frames, LINK, 0, max_bytes=MAX_BYTES).kind is MessageKind.HELLO
    with pytest.raises(MessageError, match="link kind"):
        decode(frames, LinkIdentity(RUN_ID, 3, MessageKind.TARGET, 1, 4), 0, max_bytes=MAX_BYTES)
    with pytest.raises(MessageError, match="got kind 0, expected 1"):
        decode(wire(Message.hello(LINK), sequence=5), LINK, 5, max_bytes=MAX_BYTES)
    with pytest.raises(MessageError, match="got kind 1, expected 0"):
        decode(wire(activation(), sequence=0), LINK, 0, max_bytes=MAX_BYTES)


def test_a_contiguous_tensor_is_sent_without_a_copy_and_received_into_a_fresh_aligned_one() -> None:
    h = torch.zeros(4, 5)
    frames = encode(
        activation_message(h, torch.zeros(4).long(), phase=Phase.BOTH, sender=1, layer=4, minibatch=7),
        LINK,
        5,
    )
    h[0, 0] = 1.0
    unaligned = memoryview(b"x" + bytes(frames[1]))[1:]
    got = decode([frames[0], unaligned, frames[2]], LINK, 5, max_bytes=MAX_BYTES).payloads[0]
    assert torch.equal(got, h)
    assert got.is_contiguous()
    assert got.data_ptr() % 16 == 0
    assert got.data_ptr() != h.data_ptr()
    got += 1
    assert h.sum() == 1


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("magic", b"PTDD", "magic"),
        ("version", 1, "version"),
        ("kind", 2, "got kind 2, expected 1"),
        ("link kind", 2, "got link kind 2"),
        ("phase", 4, "got phase code 4"),
        ("run id", bytes(16), "got run id 0000"),
        ("generation", 2, "got generation 2, expected 3"),
        ("sequence", 4, "got sequence 4, expected 5"),
        ("sender stage", 0, "got sender stage 0, expected 1"),
        ("layer", 5, "got layer 5, expected 4"),
        ("payloads", 1, "got number of payloads 1, expected 2 or 3"),
        ("dtype", 0, "dtype code 0"),
        ("dtype", 3, "expected 48 for float64"),
        ("dimensions", 0, "0 dimensions"),
        ("dimensions", 1, "1 dimensions"),
        ("dimensions", 3, "expected 0 for"),
        ("dimensions", 7, "7 dimensions"),
        ("shape 0", 3, "expected 36 for float32"),
        ("shape 1", 2**32 - 1, "got 24 bytes and 24 in the header"),
        ("shape 2", 1, "shape"),
        ("shape 5", 1, "shape"),
        ("nbytes", 25, "25 in the header"),
        ("nbytes", 2**64 - 1, "in the header"),
        ("labels dtype", 3, "got labels float64"),
        ("labels dimensions", 2, "expected 0 for"),
        ("labels shape", 3, "expected 24 for"),
        ("labels nbytes", 8, "8 in the header"),
    ],
)
def test_a_wrong_header_field_is_refused_and_named(field: str, value: object, text: str) -> None:
    with pytest.raises(MessageError) as caught:
        decode(with_field(wire(activation()), field, value), LINK, 5, max_bytes=MAX_BYTES)
    assert text in str(caught.value)
    assert str(caught.value).startswith("activation link, stage 1 -> stage 2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("dtype", 8, "dtype code 8"),
        ("dtype", 5, "expected 10 for uint8[2, 5]"),
        ("dtype", 1, "expected 40 for float32[2, 5]"),
        ("dimensions", 1, "1 dimensions"),
        ("dimensions", 3, "expected 0 for"),
        ("dimensions", 7, "7 dimensions"),
        ("shape 0", 4, "got 2 bytes and 2 in the header, expected 3 for bits of -1, +1[4, 5]"),
        ("shape 1", 2, "got 2 bytes and 2 in the header, expected 1 for bits of -1, +1[2, 2]"),
        ("shape 0", 3, "got labels int64[2], expected int64[3]"),
        ("shape 2", 1, "shape"),
        ("nbytes", 3, "got 2 bytes and 3 in the header, expected 2 for bits of -1, +1[2, 5]"),
        ("nbytes", 10, "10 in the header"),
        ("labels dtype", 6, "expected 1 for bits of -1, +1[2]"),
    ],
)
def test_a_wrong_description_of_bits_is_refused_and_named(field: str, value: int, text: str) -> None:
    with pytest.raises(MessageError) as caught:
        decode(with_field(wire(packed()), field, value), LINK, 5, max_bytes=MAX_BYTES)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"x", b"xxx", b"x" * 40])
def test_bits_in_a_wrong_number_of_bytes_are_refused(data: bytes) -> None:
    header, _, labels = wire(packed())
    with pytest.raises(MessageError, match=rf"got {len(data)} bytes and 2 in the header"):
        decode([header, data, labels], LINK, 5, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("kind", "data", "described", "text"),
    [
        (
            MessageKind.ACTIVATION,
            torch.zeros(3, dtype=torch.uint8),
            (2, 5),
            r"got uint8\[3\] for bits of 0, 1",
        ),
        (MessageKind.ACTIVATION, torch.zeros(2), (2, 5), r"got float32\[2\] for bits of 0, 1\[2, 5\]"),
        (MessageKind.ACTIVATION, torch.zeros(0, dtype=torch.uint8), (2, 0), "none empty"),
        (MessageKind.TARGET, torch.zeros(2, dtype=torch.uint8), (2, 5), "only an activation"),
    ],
)
def test_bits_that_have_no_wire_form_are_refused_when_the_message_is_made(
    kind: MessageKind, data: torch.Tensor, described: tuple[int, ...], text: str
) -> None:
    payloads = (data, torch.arange(2))[: 2 if kind is MessageKind.ACTIVATION else 1]
    with pytest.raises(MessageError, match=text):
        Message(kind, Phase.BOTH, 1, 4, 7, payloads, Payload(Bits.BINARY, described))


def test_an_error_names_stage_layer_and_minibatch() -> None:
    with pytest.raises(MessageError, match="message from stage 1, layer 4, minibatch 7: got generation 2"):
        decode(with_field(wire(activation()), "generation", 2), LINK, 5, max_bytes=MAX_BYTES)


def test_a_gap_in_the_sequence_is_a_lost_link() -> None:
    with pytest.raises(LinkError, match=r"got sequence 5, expected 3: 2 message\(s\) before it were lost"):
        decode(wire(activation()), LINK, 3, max_bytes=MAX_BYTES)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_no_damaged_header_byte_becomes_other_data(position: int, flip: int) -> None:
    """Phase and minibatch may be any that exist: which one is due is the receiver's to check."""
    frames = wire(activation())
    header = bytearray(frames[0])
    header[position] ^= flip
    try:
        got = decode([bytes(header), *frames[1:]], LINK, 5, max_bytes=MAX_BYTES)
    except (MessageError, LinkError):
        return
    assert got.minibatch != 7 or got.phase is not Phase.BOTH


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_a_wrong_number_of_frames_is_refused(count: int) -> None:
    frames = [*wire(activation()), b"more"][:count]
    with pytest.raises(MessageError, match=r"payload frames, expected 2|got a header of 0 bytes"):
        decode(frames, LINK, 5, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_truncated_or_oversized_frame_is_refused(index: int, change: int) -> None:
    frames = wire(activation())
    frames[index] = frames[index][:-1] if change < 0 else frames[index] + b"\0"
    with pytest.raises(MessageError, match=rf"got (a header of )?{len(frames[index])} bytes"):
        decode(frames, LINK, 5, max_bytes=MAX_BYTES)


def test_a_description_of_a_payload_that_is_not_there_is_refused() -> None:
    target = target_message(torch.ones(2, 3), phase=Phase.BOTH, sender=2, layer=4, minibatch=0)
    with pytest.raises(MessageError, match="descriptions of more than 1 payloads"):
        decode(with_field(wire(target, BACK), "labels nbytes", 8), BACK, 5, max_bytes=MAX_BYTES)


def test_a_message_above_the_limit_is_refused() -> None:
    message = activation()
    decode(wire(message), LINK, 5, max_bytes=message.nbytes)
    with pytest.raises(MessageError, match=f"got {message.nbytes} bytes, expected at most"):
        decode(wire(message), LINK, 5, max_bytes=message.nbytes - 1)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=2 * HEADER_BYTES), max_size=4))
def test_random_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        decode(frames, LINK, 5, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("h", "labels", "text"),
    [
        (torch.ones(2, 3), torch.ones(2), r"got labels float32\[2\], expected int64\[2\] or float32\[2, K\]"),
        (torch.ones(2, 3), torch.ones(3, 2), r"got labels float32\[3, 2\]"),
        (torch.ones(2, 3), torch.ones(2, 3, 1), r"got labels float32\[2, 3, 1\]"),
        (torch.ones(2, 3), torch.ones(2, 3).bfloat16(), r"got labels bfloat16\[2, 3\]"),
        (torch.ones(2, 3), torch.ones(2, 3).long(), r"got labels int64\[2, 3\]"),
        (torch.ones(2, 3), torch.ones(3).long(), "expected int64"),
        (torch.ones(()), torch.ones(1).long(), "dimensions"),
        (torch.ones(0, 3), torch.ones(0).long(), "none empty"),
        (torch.ones(1, 1, 1, 1, 1, 1, 1), torch.ones(1).long(), "dimensions"),
        (torch.ones(2, 3).half(), torch.ones(2).long(), "expected one of torch.float32"),
    ],
)
def test_a_message_that_has_no_wire_form_is_refused_when_it_is_made(
    h: torch.Tensor, labels: torch.Tensor, text: str
) -> None:
    with pytest.raises(MessageError, match=text):
        activation_message(h, labels, phase=Phase.BOTH, sender=1, layer=4, minibatch=7)


def test_a_message_needs_the_payloads_of_its_kind() -> None:
    with pytest.raises(MessageError, match="got 1 payloads, expected 2"):
        Message(MessageKind.ACTIVATION, Phase.BOTH, 1, 4, 7, (torch.ones(2, 3),))


def test_only_cpu_tensors_have_a_wire_form() -> None:
    message = target_message(
        torch.ones(2, 3, device="meta"), phase=Phase.BOTH, sender=2, layer=4, minibatch=0
    )
    with pytest.raises(MessageError, match="got one on meta"):
        encode(message, BACK, 5)


def test_a_tensor_with_a_gradient_can_be_sent() -> None:
    h = torch.ones(2, 3, requires_grad=True)
    message = target_message(h, phase=Phase.BOTH, sender=2, layer=4, minibatch=0)
    assert not decode(wire(message, BACK), BACK, 5, max_bytes=MAX_BYTES).payloads[0].requires_grad


@pytest.mark.parametrize(
    "wrong",
    [{"run_id": b"short"}, {"generation": -1}, {"kind": MessageKind.HELLO}, {"layer": 2**32}, {"sender": -1}],
)
def test_an_identity_that_can_not_be_sent_is_refused(wrong: dict[str, object]) -> None:
    fields = {"run_id": RUN_ID, "generation": 0, "kind": MessageKind.ACTIVATION, "sender": 0, "layer": 1}
    with pytest.raises(ValueError, match=r"run_id|generation|link carries|layer|sender"):
        LinkIdentity(**(fields | wrong))  # type: ignore[arg-type]


def test_links_are_named_by_their_direction() -> None:
    assert str(LINK) == "activation link, stage 1 -> stage 2"
    assert str(BACK) == "target link, stage 2 -> stage 1"
    with pytest.raises(ValueError, match="receiver"):
        LinkIdentity(RUN_ID, 0, MessageKind.TARGET, 0, 1)
