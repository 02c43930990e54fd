"""Links whose payloads a carrier takes: what still goes over the host, and who gets a carrier."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zmq

from dtp_dist.config import to_dict
from dtp_dist.errors import LinkError, MessageError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Segment
from dtp_dist.runtime.stage import service
from dtp_dist.runtime.stage.executor import Executor, Links
from dtp_dist.runtime.stage.handshake import Address, Place, StageSetup, meeting_point
from dtp_dist.runtime.stage.link_encoding import LinkEncoding
from dtp_dist.runtime.stage.service import StageService
from dtp_dist.runtime.stage.timeline import Timeline
from dtp_dist.schedule import Phase
from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.inprocess import inprocess_pair
from dtp_dist.transport.messages import HEADER_BYTES, LinkIdentity, Message
from dtp_dist.transport.ring import Ring
from dtp_dist.transport.wire import encode
from links import (
    LIMITS,
    ON_ONE_HOST,
    START_TIMEOUT,
    UP,
    activation_message,
    hello,
    memory,
    message,
    open_receiver,
    open_sender,
    stranger,
)
from runs import small_config


class Recorder:
    """A carrier that carries nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.described: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def receive(self, described: Message) -> Message:
        self.described.append(described)
        return described


def pair(context: Any, endpoint: str, identity: LinkIdentity = UP, **limits: Any) -> tuple[Sender, Receiver]:
    options: Any = LIMITS | limits
    receiver = open_receiver(endpoint, identity, context, options)
    return open_sender(receiver.endpoint, identity, context, options), receiver


@pytest.fixture
def context():
    context = zmq.Context(io_threads=1)
    yield context
    context.destroy(linger=0)


@pytest.fixture(params=ON_ONE_HOST)
def ends(request, context, tmp_path):
    """Both ends of a link on one host that carries headers alone."""
    sender, receiver = pair(context, f"{request.param}://{tmp_path}/link")
    sender.connect(60.0)
    receiver.accept(60.0)
    sender.carrier, receiver.carrier = Recorder(), Recorder()
    yield sender, receiver
    sender.close()
    receiver.close()


def test_a_link_with_a_carrier_takes_headers_alone_and_counts_whole_messages(ends):
    sender, receiver = ends
    on_device = replace(message(UP, 7), payloads=tuple(p.to("meta") for p in message(UP, 7).payloads))
    sender.send(on_device)
    assert sender.carrier.sent == [on_device]
    got = receiver.receive(7, Phase.BOTH)
    assert receiver.carrier.described[0].payloads == got.payloads
    assert [(p.device.type, p.dtype, p.shape) for p in got.payloads] == [
        ("meta", torch.float32, (64, 4096)),
        ("meta", torch.int64, (64,)),
    ]
    assert sender.bytes_sent == HEADER_BYTES + 64 * 4096 * 4 + 64 * 8


@pytest.mark.parametrize(("minibatch", "phase"), [(8, Phase.BOTH), (7, Phase.EVALUATE)])
def test_no_payload_is_received_for_a_header_that_is_not_due(ends, minibatch, phase):
    sender, receiver = ends
    sender.send(message(UP, 7))
    with pytest.raises(MessageError, match="got activation from stage 0, layer 4, minibatch 7 of phase both"):
        receiver.receive(minibatch, phase)
    assert receiver.carrier.described == []


@pytest.mark.parametrize(
    ("identity", "lost", "error", "words"),
    [
        (replace(UP, generation=1), 0, MessageError, "got generation 1, expected 0"),
        (replace(UP, run_id=bytes([1] * 16)), 0, MessageError, "got run id 0101"),
        (UP, 2, LinkError, r"got sequence 3, expected 1: 2 message\(s\) before it were lost"),
    ],
)
def test_no_payload_is_received_for_a_header_of_another_place(ends, identity, lost, error, words):
    sender, receiver = ends
    sender.identity = identity
    for _ in range(lost):
        sender.drop()
        sender.send(message(UP, 0))
    sender.send(message(UP, 0))
    with pytest.raises(error, match=words):
        receiver.receive(0, Phase.BOTH)
    assert receiver.carrier.described == []


def speaking(context: Any, endpoint: str) -> tuple[Any, Any]:
    """Return what sends any bytes after HELLO, as no sender of ours does, and what closes it."""
    scheme, _, path = endpoint.partition("://")
    if scheme == "shm":
        mine = stranger(path, hello(UP), [memory(Ring.size(LIMITS["high_water"], LIMITS["max_bytes"]))])
        return mine.send, mine.close
    push = context.socket(zmq.PUSH)
    push.connect(endpoint)
    push.send(hello(UP))
    return push.send, push.close


@pytest.mark.parametrize("scheme", ON_ONE_HOST)
def test_nothing_is_allocated_for_a_header_that_tells_too_much(context, tmp_path, scheme):
    receiver = open_receiver(f"{scheme}://{tmp_path}/link", UP, context, LIMITS)
    send, close = speaking(context, receiver.endpoint)
    receiver.accept(60.0)
    receiver.carrier = Recorder()
    h, labels = torch.empty(2**20, 2**10, device="meta"), torch.empty(2**20, dtype=torch.int64, device="meta")
    huge = activation_message(h, labels, phase=Phase.BOTH, sender=0, layer=4, minibatch=0)
    send(bytes(encode(huge, UP, 1, header_only=True)[0]))
    with pytest.raises(MessageError, match=f"expected at most {2 << 20}"):
        receiver.receive(0, Phase.BOTH)
    assert receiver.carrier.described == []
    close()
    receiver.close()


def test_a_message_above_the_limit_is_not_sent(ends):
    h, labels = torch.empty(2**20, 2**10, device="meta"), torch.empty(2**20, dtype=torch.int64, device="meta")
    with pytest.raises(MessageError, match=f"limit {2 << 20}"):
        ends[0].send(activation_message(h, labels, phase=Phase.BOTH, sender=0, layer=4, minibatch=0))
    assert ends[0].carrier.sent == []


def test_payloads_that_come_with_a_header_nevertheless_are_refused(context, tmp_path):
    sender, receiver = pair(context, f"ipc://{tmp_path}/link")
    sender.connect(60.0)
    receiver.accept(60.0)
    receiver.carrier = Recorder()
    sender.send(message(UP, 0))
    with pytest.raises(MessageError, match=f"got a header of {message(UP, 0).nbytes} bytes"):
        receiver.receive(0, Phase.BOTH)


def gpus(*names: str | None) -> list[Address]:
    return [Address({}, None, name, "here:1" if index == 0 else None) for index, name in enumerate(names)]


@pytest.mark.parametrize(
    ("bound", "place"),
    [
        (gpus("a", "b"), "here:1"),
        (gpus("a", "b", "c"), "here:1"),
        (gpus(None, None), None),
        (gpus("a", None), None),
        (gpus(None, "b"), None),
        (gpus("a", "b", "a"), None),
        (gpus("a"), None),
    ],
)
def test_groups_are_made_where_every_stage_has_a_gpu_of_its_own(bound: Sequence[Address], place: str | None):
    assert meeting_point(bound) == place


class PassThrough:
    """A stage whose forward pass returns what it gets."""

    layers = (SimpleNamespace(index=4),)

    def begin(self, phase: Phase, epoch: int, passes: int, repeat: int) -> None:
        pass

    def forward(self, minibatch: int, h: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return h

    def probes(self, minibatch: int) -> list[torch.Tensor]:
        return []


@pytest.mark.parametrize("carried", [True, False])
def test_tensors_of_a_device_go_to_the_carrier_as_they_are_and_to_a_host_link_through_memory(carried):
    """The meta device has no memory to copy from, so a copy to the host is an error."""
    h, labels = torch.empty(2, 3, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    sender, receiver = inprocess_pair(UP)
    sender.crosses_processes = True
    if carried:
        sender.carrier = Recorder()
    stage: Any = PassThrough()
    config = small_config()
    segment = Segment(Phase.EVALUATE, "test", epoch=0, first=0, count=1, offset=0)
    executor = Executor(
        stage,
        0,
        Layout((4, 1), 1),
        segment,
        Links(activation_out=sender),
        Timeline(0),
        source=lambda minibatch: (h, labels),
        encoding=LinkEncoding(config, config.build_rule(), range(1, 5), Phase.EVALUATE),
        done=lambda minibatch: None,
        device=h.device,
    )
    if carried:
        executor.step()
        assert sender.carrier.sent[0].payloads == (h, labels)
        assert receiver.ready()
    else:
        with pytest.raises(NotImplementedError, match="no data"):
            executor.step()


@pytest.fixture
def two_services(tmp_path):
    config = to_dict(resolve(small_config("parallel.stages=2")))
    place = Place(ON_ONE_HOST[0], str(tmp_path))
    services = [
        StageService(StageSetup(config, stage, bytes(16), 3, place), lambda kind, value: None)
        for stage in range(2)
    ]
    yield services
    for each in services:
        each.worker.links.close()


@pytest.mark.parametrize("rendezvous", [None, "here:1"])
def test_every_end_of_a_stage_that_is_told_a_rendezvous_has_its_carrier(
    two_services, monkeypatch, rendezvous
):
    joined = {}

    def groups(place: str, *, stage: int, **options: Any) -> Any:
        joined[stage] = (place, options["stages"], options["device"].type, options["name"])
        return SimpleNamespace(carrier=lambda identity: (stage, identity))

    monkeypatch.setattr(service, "Groups", groups)
    bound = [each.bind() for each in two_services]
    assert [(address.gpu, address.rendezvous) for address in bound] == [(None, None)] * 2
    with ThreadPoolExecutor() as pool:
        arguments = [(bound[1], None, rendezvous), (None, bound[0], rendezvous)]
        for call in [
            pool.submit(each.connect, *of) for each, of in zip(two_services, arguments, strict=True)
        ]:
            call.result(START_TIMEOUT)
    for stage, each in enumerate(two_services):
        links = each.worker.links
        ends = (
            [links.activation_out, links.target_in] if stage == 0 else [links.activation_in, links.target_out]
        )
        assert [end.carrier for end in ends] == [
            (stage, end.identity) if rendezvous else None for end in ends
        ]
    expected = ("here:1", 2, "cpu", f"{'00' * 16}/3")
    assert joined == ({0: expected, 1: expected} if rendezvous else {})


def test_stages_on_gpus_tell_which_and_the_first_opens_the_rendezvous(two_services, monkeypatch):
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device: SimpleNamespace(uuid=f"GPU-{device.index}", name="L4"),
    )
    for index, each in enumerate(two_services):
        each.worker.device = torch.device("cuda", index)
    bound = [each.bind() for each in two_services]
    assert [address.gpu for address in bound] == ["GPU-0", "GPU-1"]
    assert bound[1].rendezvous is None
    place = meeting_point(bound)
    assert place is not None
    address, _, port = place.rpartition(":")
    assert address == "127.0.0.1"
    socket.create_connection((address, int(port)), timeout=60.0).close()
