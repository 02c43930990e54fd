"""Links through shared memory: whom they admit, what a lost peer means, what stays behind."""

from __future__ import annotations

import collections
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.schedule import Phase
from dtp_dist.transport import shared
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind
from dtp_dist.transport.ring import Ring
from dtp_dist.transport.shared import SharedReceiver, SharedSender
from dtp_dist.transport.wire import encode
from links import activation_message, hello, memory, stranger

LINK = LinkIdentity(bytes(16), 0, MessageKind.ACTIVATION, sender=0, layer=4)
LIMITS: dict[str, Any] = {"timeout": 60.0, "stopped": lambda: False, "high_water": 3, "max_bytes": 1 << 16}
HELLO = hello(LINK)


def activation(minibatch: int, rows: int = 2) -> Message:
    h, labels = torch.full((rows, 3), float(minibatch)), torch.full((rows,), minibatch)
    return activation_message(h, labels, phase=Phase.BOTH, sender=0, layer=4, minibatch=minibatch)


def connected(folder: Path, **limits: Any) -> tuple[SharedSender, SharedReceiver]:
    receiver = SharedReceiver(f"shm://{folder}/link", LINK, **(LIMITS | limits))
    sender = SharedSender(receiver.endpoint, LINK, **(LIMITS | limits))
    sender.connect()
    receiver.accept()
    return sender, receiver


def test_every_message_of_many_rounds_through_the_ring_is_whole(tmp_path):
    sender, receiver = connected(tmp_path)
    for first in range(0, 60, 3):
        for k in range(first, first + 3):
            sender.send(activation(k, rows=1 + k))
        for k in range(first, first + 3):
            h, labels = receiver.receive(k, Phase.BOTH).payloads
            assert torch.equal(h, torch.full((1 + k, 3), float(k)))
            assert torch.equal(labels, torch.full((1 + k,), k))


def test_a_received_tensor_does_not_change_when_its_slot_is_written_again(tmp_path):
    sender, receiver = connected(tmp_path, high_water=1)
    sender.send(activation(0))
    kept = receiver.receive(0, Phase.BOTH).payloads[0]
    sender.send(activation(1))
    assert torch.equal(kept, torch.zeros(2, 3))
    assert kept.data_ptr() % 64 == 0


def test_exactly_the_high_water_mark_of_messages_may_be_unread(tmp_path):
    sender, receiver = connected(tmp_path, timeout=0.3)
    for k in range(3):
        sender.send(activation(k))
    with pytest.raises(LinkError, match=r"waiting for room for minibatch 3: gave up"):
        sender.send(activation(3))
    receiver.receive(0, Phase.BOTH)
    sender.send(activation(3))


def test_more_unread_messages_than_a_socket_holds_wait_for_room(tmp_path):
    sender, receiver = connected(tmp_path, high_water=2000, max_bytes=400, timeout=0.3)
    numbers = iter(range(2000))
    with pytest.raises(LinkError, match=r"waiting for room for minibatch \d+: gave up"):
        collections.deque(map(sender.send, map(activation, numbers)))
    sent = sender.messages
    assert sent > 50
    for k in range(sent):
        receiver.receive(k, Phase.BOTH)
    sender.send(activation(sent))
    receiver.receive(sent, Phase.BOTH)


@pytest.mark.parametrize(
    ("packet", "size", "sealed", "words"),
    [
        (b"x", None, True, "header of 1 bytes"),
        (b"x" * len(HELLO), None, True, "magic"),
        (HELLO, None, True, "without .* bytes of memory"),
        (HELLO, 4096, True, "without .* bytes of memory"),
        (HELLO, Ring.size(3, 1 << 16), False, "whose size can change"),
    ],
)
def test_a_stranger_is_refused(tmp_path, packet, size, sealed, words):
    receiver = SharedReceiver(f"shm://{tmp_path}/link", LINK, **LIMITS)
    descriptors = [] if size is None else [memory(size, sealed=sealed)]
    mine = stranger(tmp_path / "link", packet, descriptors)
    with pytest.raises(MessageError, match=words):
        receiver.accept()
    mine.close()
    for descriptor in descriptors:
        os.close(descriptor)


def test_another_generation_is_refused(tmp_path):
    receiver = SharedReceiver(f"shm://{tmp_path}/link", LINK, **LIMITS)
    other = LinkIdentity(bytes(16), 1, MessageKind.ACTIVATION, sender=0, layer=4)
    SharedSender(receiver.endpoint, other, **LIMITS).connect()
    with pytest.raises(MessageError, match="got generation 1, expected 0"):
        receiver.accept()


def test_a_header_that_tells_more_than_a_slot_is_refused(tmp_path):
    receiver = SharedReceiver(f"shm://{tmp_path}/link", LINK, **(LIMITS | {"max_bytes": 1000}))
    mine = stranger(tmp_path / "link", HELLO, [memory(Ring.size(3, 1000))])
    receiver.accept()
    h, labels = torch.zeros(4096, 3), torch.zeros(4096, dtype=torch.int64)
    large = activation_message(h, labels, phase=Phase.BOTH, sender=0, layer=4, minibatch=0)
    mine.send(encode(large, LINK, 1)[0])
    with pytest.raises(MessageError, match="expected at most 1000"):
        receiver.receive(0, Phase.BOTH)


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_a_peer_that_is_gone_is_a_lost_link_after_a_while(tmp_path, monkeypatch, end):
    """After a while, so that whoever watches the processes can tell first what became of it."""
    monkeypatch.setattr(shared, "_GONE_SECONDS", 0.5)
    sender, receiver = connected(tmp_path)
    start = time.monotonic()
    if end == "sender":
        sender.close()
        with pytest.raises(LinkError, match="waiting for minibatch 0: the other stage has closed the link"):
            receiver.receive(0, Phase.BOTH)
    else:
        receiver.close()
        with pytest.raises(LinkError, match="room for minibatch 0: the other stage has closed the link"):
            sender.send(activation(0))
    assert time.monotonic() - start >= 0.5


def test_a_receiver_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LinkError, match=rf"stage 0 -> stage 1: shm://{tmp_path}/link: No such file"):
        SharedSender(f"shm://{tmp_path}/link", LINK, **LIMITS).connect()


def test_no_sender_in_time_is_named(tmp_path):
    receiver = SharedReceiver(f"shm://{tmp_path}/link", LINK, **LIMITS)
    with pytest.raises(LinkError, match="waiting for stage 0 to connect to shm://"):
        receiver.accept(timeout=0.2)


def test_nothing_is_left_of_a_link(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    sender, receiver = connected(tmp_path)
    sender.close()
    receiver.close()
    del sender, receiver
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before
