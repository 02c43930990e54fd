import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq

from dtp_dist.errors import LinkError, MessageError, Stopped
from dtp_dist.schedule import Phase
from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.inprocess import inprocess_pair
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind
from dtp_dist.transport.table import TRANSPORTS, chosen_transport
from dtp_dist.transport.wire import encode
from links import HERE, ON_ONE_HOST, activation_message, open_receiver, open_sender

RUN_ID = bytes(range(16))
LIMITS: dict[str, Any] = {"timeout": 60.0, "stopped": lambda: False, "high_water": 8, "max_bytes": 2 << 20}


def link(kind: MessageKind = MessageKind.ACTIVATION, generation: int = 0) -> LinkIdentity:
    return LinkIdentity(RUN_ID, generation, kind, sender=0 if kind is MessageKind.ACTIVATION else 1, layer=4)


def activation(minibatch: int, phase: Phase = Phase.BOTH, sender: int = 0, layer: int = 4) -> Message:
    h, labels = torch.full((2, 3), float(minibatch)), torch.tensor([minibatch, 1])
    return activation_message(h, labels, phase=phase, sender=sender, layer=layer, minibatch=minibatch)


def large(identity: LinkIdentity, minibatch: int) -> Message:
    """A message of 1 MB, filled with its own minibatch."""
    h, labels = torch.full((64, 4096), float(minibatch)), torch.zeros(64, dtype=torch.int64)
    payloads = (h, labels) if identity.kind is MessageKind.ACTIVATION else (h,)
    return Message(identity.kind, Phase.BOTH, identity.sender, identity.layer, minibatch, payloads)


def exchange(sender: Sender, receiver: Receiver, windows: int, window: int) -> None:
    """Send `window` large messages before reading as many, `windows` times over."""
    for start in range(0, windows * window, window):
        for minibatch in range(start, start + window):
            sender.send(large(sender.identity, minibatch))
        for minibatch in range(start, start + window):
            assert (receiver.receive(minibatch, Phase.BOTH).payloads[0] == minibatch).all()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context(io_threads=1)
    yield context
    context.destroy(linger=0)


@pytest.fixture
def ipc(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/link"


@pytest.fixture(params=ON_ONE_HOST)
def local(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/link"


@pytest.fixture(params=HERE)
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    transport = TRANSPORTS[request.param]
    return transport.endpoint(str(tmp_path) if transport.in_folder else "127.0.0.1", "link")


def receiver_at(context: Any, endpoint: str, identity: LinkIdentity | None = None, **limits: Any) -> Receiver:
    options: Any = LIMITS | limits
    return open_receiver(endpoint, identity or link(), context, options)


def sender_to(context: Any, endpoint: str, identity: LinkIdentity | None = None, **limits: Any) -> Sender:
    options: Any = LIMITS | limits
    return open_sender(endpoint, identity or link(), context, options)


def connected(context: Any, endpoint: str, **limits: Any) -> tuple[Sender, Receiver]:
    receiver = receiver_at(context, endpoint, **limits)
    sender = sender_to(context, receiver.endpoint, **limits)
    sender.connect(timeout=60.0)
    receiver.accept(timeout=60.0)
    return sender, receiver


def fill(sender: Sender) -> None:
    for minibatch in range(100):
        sender.send(large(sender.identity, minibatch))


def push(context: Any, endpoint: str) -> Any:
    socket = context.socket(zmq.PUSH)
    socket.connect(endpoint)
    return socket


def test_inprocess_passes_the_tensors_themselves_in_order() -> None:
    sender, receiver = inprocess_pair(link())
    sent = [activation(k) for k in range(3)]
    for message in sent:
        sender.send(message)
    assert receiver.ready()
    assert [receiver.receive(k, Phase.BOTH) for k in range(3)] == sent  # the same objects
    assert not receiver.ready()


def test_inprocess_never_waits() -> None:
    sender, receiver = inprocess_pair(link(), capacity=1)
    with pytest.raises(LinkError, match="stage 0 -> stage 1: minibatch 5 would be waited for for ever"):
        receiver.receive(5, Phase.BOTH)
    sender.send(activation(0))
    with pytest.raises(LinkError, match=r"minibatch 1 would wait for ever, 1 message\(s\) are unread"):
        sender.send(activation(1))


def test_a_message_that_does_not_belong_on_the_link_is_not_sent() -> None:
    sender, receiver = inprocess_pair(link())
    target = large(link(MessageKind.TARGET), 0)
    for message in (activation(0, sender=1), activation(0, layer=3), target, Message.hello(link())):
        with pytest.raises(MessageError, match="expected activation from stage 0, layer 4"):
            sender.send(message)
    assert not receiver.ready()


def test_zmq_carries_messages_and_counts_the_bytes_that_inprocess_counts(context: Any, endpoint: str) -> None:
    counts = []
    for sender, receiver in (connected(context, endpoint), inprocess_pair(link())):
        for k in range(3):
            sender.send(activation(k))
            got = receiver.receive(k, Phase.BOTH)
            assert torch.equal(got.payloads[0], torch.full((2, 3), float(k)))
            assert torch.equal(got.payloads[1], torch.tensor([k, 1]))
        counts.append((sender.bytes_sent, sender.messages, receiver.messages))
    assert counts[0] == counts[1]
    assert counts[0][:2] == (3 * activation(0).nbytes, 3)


def test_ready_says_whether_a_message_is_there(context: Any, ipc: str) -> None:
    sender, receiver = connected(context, ipc)
    assert not receiver.ready()
    sender.send(activation(0))
    start = time.monotonic()
    while not receiver.ready():
        assert time.monotonic() - start < LIMITS["timeout"]
    receiver.receive(0, Phase.BOTH)
    assert not receiver.ready()


@pytest.mark.parametrize("wrong", [activation(8), activation(7, Phase.EVALUATE)])
def test_a_message_that_is_not_due_is_never_data(context: Any, ipc: str, wrong: Message) -> None:
    for sender, receiver in (connected(context, ipc), inprocess_pair(link())):
        sender.send(wrong)
        with pytest.raises(MessageError, match=r"got activation .*, expected minibatch 7 of phase both"):
            receiver.receive(7, Phase.BOTH)


def test_a_wrong_generation_is_refused(context: Any, ipc: str) -> None:
    receiver = receiver_at(context, ipc, link(generation=2))
    sender_to(context, ipc, link(generation=1)).connect()
    with pytest.raises(MessageError, match="got generation 1, expected 2"):
        receiver.accept()


def test_a_gap_in_the_sequence_is_a_lost_link(context: Any, ipc: str) -> None:
    receiver = receiver_at(context, ipc)
    socket = push(context, ipc)
    for sequence, message in ((0, Message.hello(link())), (1, activation(0)), (3, activation(1))):
        socket.send(b"".join(encode(message, link(), sequence)))
    receiver.accept()
    receiver.receive(0, Phase.BOTH)
    with pytest.raises(LinkError, match="got sequence 3, expected 2"):
        receiver.receive(1, Phase.BOTH)


@pytest.mark.parametrize("garbage", [[b""], [b"x" * 200], [b"a", b"b"], [b"x"] * 9])
def test_garbage_is_refused(context: Any, ipc: str, garbage: list[bytes]) -> None:
    _, receiver = connected(context, ipc)
    push(context, ipc).send_multipart(garbage)
    with pytest.raises(MessageError, match="activation link, stage 0 -> stage 1: got"):
        receiver.receive(0, Phase.BOTH)


def test_a_message_above_the_limit_is_not_sent(context: Any, local: str) -> None:
    sender, _ = connected(context, local, max_bytes=1000)
    with pytest.raises(MessageError, match=r"activation from stage 0, layer 4, minibatch 9 .* limit 1000"):
        sender.send(large(link(), 9))


def test_a_link_that_is_not_up_carries_nothing(context: Any, local: str) -> None:
    receiver = receiver_at(context, local)
    with pytest.raises(LinkError, match="before the link was accepted"):
        receiver.receive(0, Phase.BOTH)
    with pytest.raises(LinkError, match="before the link was connected"):
        sender_to(context, local).send(activation(0))


def test_a_wait_that_is_too_long_names_link_minibatch_and_time(context: Any, local: str) -> None:
    _, receiver = connected(context, local, timeout=0.2)
    text = r"stage 0 -> stage 1: waiting for minibatch 17: gave up after .* \(limit 0\.2 s\)"
    with pytest.raises(LinkError, match=text):
        receiver.receive(17, Phase.BOTH)


def test_a_peer_that_never_comes_is_named(context: Any, tmp_path: Path) -> None:
    sender = sender_to(context, f"ipc://{tmp_path}/nobody")
    with pytest.raises(LinkError, match="stage 0 -> stage 1: waiting for stage 1 at ipc://"):
        sender.connect(timeout=0.2)
    receiver = receiver_at(context, f"ipc://{tmp_path}/link")
    with pytest.raises(LinkError, match="waiting for stage 0 to connect"):
        receiver.accept(timeout=0.2)


def test_an_end_that_can_not_be_set_up_says_why(context: Any, local: str) -> None:
    with pytest.raises(LinkError, match=r"activation link, stage 0 -> stage 1: (shm|ipc)://"):
        receiver_at(context, local + "x" * 200)
    with pytest.raises(ValueError, match="high_water must be at least 1"):
        receiver_at(context, local, high_water=0)


class StopAtThirdQuestion:
    """A stop flag that counts how often it is asked, once armed."""

    def __init__(self) -> None:
        self.armed, self.asked = False, 0

    def __call__(self) -> bool:
        self.asked += self.armed
        return self.asked >= 3


def test_stopping_the_run_ends_a_wait(context: Any, local: str) -> None:
    stopped = StopAtThirdQuestion()
    _, receiver = connected(context, local, stopped=stopped)
    stopped.armed = True
    with pytest.raises(Stopped, match="waiting for minibatch 3: the run is being stopped"):
        receiver.receive(3, Phase.BOTH)
    assert stopped.asked == 3


def test_stopping_the_run_ends_the_wait_of_a_full_sender(context: Any, local: str) -> None:
    stopped = StopAtThirdQuestion()
    sender, _ = connected(context, local, high_water=1, stopped=stopped)
    stopped.armed = True
    with pytest.raises(Stopped, match="room for minibatch"):
        fill(sender)


@pytest.mark.slow
def test_a_sender_waits_once_the_link_is_full_and_goes_on_later(context: Any, endpoint: str) -> None:
    sender, receiver = connected(context, endpoint, high_water=3, timeout=1.0)
    with pytest.raises(LinkError, match=r"waiting for room for minibatch \d+: gave up"):
        fill(sender)
    sent = sender.messages
    assert 3 <= sent <= 60  # one end's worth at least; both ends' and what the kernel's buffers take at most
    for minibatch in range(sent):
        receiver.receive(minibatch, Phase.BOTH)
    sender.send(large(link(), sent))
    receiver.receive(sent, Phase.BOTH)


def test_the_last_message_before_a_close_arrives(context: Any, endpoint: str) -> None:
    sender, receiver = connected(context, endpoint)
    sender.send(large(link(), 0))
    sender.close()
    assert (receiver.receive(0, Phase.BOTH).payloads[0] == 0).all()


def test_a_dropped_message_counts_as_sent_and_is_missed(context: Any, endpoint: str) -> None:
    sender, receiver = connected(context, endpoint)
    sender.drop()
    for minibatch in range(2):
        sender.send(activation(minibatch))
    assert sender.messages == 2
    with pytest.raises(LinkError, match=r"1 message\(s\) before it were lost"):
        receiver.receive(0, Phase.BOTH)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_a_cut_link_brings_nothing_more(context: Any, endpoint: str, end: str) -> None:
    sender, receiver = connected(context, endpoint, timeout=1.0)
    {"sender": sender, "receiver": receiver}[end].cut()
    with suppress(LinkError):
        sender.send(activation(0))
    with pytest.raises(LinkError):
        receiver.receive(0, Phase.BOTH)


def test_within_one_process_nothing_can_be_cut_or_dropped() -> None:
    sender, receiver = inprocess_pair(link())
    for fault in (sender.cut, sender.drop, receiver.cut):
        with pytest.raises(LinkError, match="a link within one process"):
            fault()


def test_auto_is_the_fastest_transport_that_reaches_all_stages() -> None:
    assert chosen_transport("auto").scheme == ("shm" if sys.platform == "linux" else "ipc")
    assert chosen_transport("auto", one_host=False) is TRANSPORTS["tcp"]
    for name, each in TRANSPORTS.items():
        assert chosen_transport(name) is chosen_transport(name, one_host=False) is each


def test_an_endpoint_is_a_file_or_any_port_of_an_address() -> None:
    assert TRANSPORTS["ipc"].endpoint("/a/folder", "link") == "ipc:///a/folder/link"
    assert TRANSPORTS["tcp"].endpoint("10.0.0.5", "link") == "tcp://10.0.0.5:0"
    assert TRANSPORTS["tcp"].endpoint("fd00::5", "link") == "tcp://[fd00::5]:0"


def test_no_socket_file_is_left_after_close(context: Any, tmp_path: Path, local: str) -> None:
    sender, receiver = connected(context, local)
    assert os.listdir(tmp_path) == (["link"] if local.startswith("ipc") else [])
    for _ in range(2):
        sender.close()
        receiver.close()
    assert os.listdir(tmp_path) == []


def run_stage(directory: str, kind: MessageKind, windows: int) -> None:
    """One of two stages: large messages out on its own link, as many in on the other's."""
    other = MessageKind.TARGET if kind is MessageKind.ACTIVATION else MessageKind.ACTIVATION
    context = zmq.Context(io_threads=1)
    receiver = receiver_at(context, f"{directory}/{other.name}", link(other))
    folder = Path(directory.partition("://")[2])
    (folder / f"{other.name}-listens").touch()
    while not (folder / f"{kind.name}-listens").exists():  # the runtime lets all listen before any connects
        time.sleep(0.01)
    (folder / f"{kind.name}-listens").unlink()
    sender = sender_to(context, f"{directory}/{kind.name}", link(kind))
    sender.connect()
    receiver.accept()
    exchange(sender, receiver, windows, window=LIMITS["high_water"])
    sender.close()
    receiver.close()
    context.term()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ON_ONE_HOST)
def test_both_ends_send_large_messages_before_either_reads(tmp_path: Path, scheme: str) -> None:
    """Two processes, 200 MB each way, 8 MB before either reads: more than the kernel's buffers hold."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    directory = f"{scheme}://{tmp_path}"
    child = subprocess.Popen([sys.executable, __file__, directory], env=environment)
    try:
        run_stage(directory, MessageKind.ACTIVATION, windows=25)
        assert child.wait(LIMITS["timeout"]) == 0
    finally:
        child.kill()
        child.wait()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("scheme", ON_ONE_HOST)
def test_two_threads_send_large_messages_before_either_reads(tmp_path: Path, scheme: str) -> None:
    directory = f"{scheme}://{tmp_path}"
    with ThreadPoolExecutor() as pool:
        other = pool.submit(run_stage, directory, MessageKind.TARGET, windows=3)
        run_stage(directory, MessageKind.ACTIVATION, windows=3)
        other.result(LIMITS["timeout"])


if __name__ == "__main__":
    run_stage(sys.argv[1], MessageKind.TARGET, windows=25)
