import contextlib
import pickle
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import zmq

from dtp_dist.errors import LinkError
from dtp_dist.schedule import Phase
from dtp_dist.transport import zeromq
from dtp_dist.transport.curve import Gatekeeper, KeyPair, client_security, new_key_pair, server_security
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind
from dtp_dist.transport.zeromq import ZmqReceiver, ZmqSender
from links import activation_message

LOOPBACK = "tcp://127.0.0.1:0"
LIMITS: dict[str, Any] = {"timeout": 30.0, "stopped": lambda: False, "high_water": 8, "max_bytes": 2 << 20}
REFUSED_WITHIN = 0.5
PATTERN = b"DIFFERENCE TARGET PROPAGATION..."


def link(sender: int = 0) -> LinkIdentity:
    return LinkIdentity(bytes(range(16)), 0, MessageKind.ACTIVATION, sender=sender, layer=4)


def message(minibatch: int, sender: int = 0, rows: int = 8) -> Message:
    """Its rows are `PATTERN`, as float32."""
    h = torch.frombuffer(bytearray(PATTERN * rows), dtype=torch.float32).reshape(rows, -1)
    labels = torch.zeros(rows, dtype=torch.int64)
    return activation_message(h, labels, phase=Phase.BOTH, sender=sender, layer=4, minibatch=minibatch)


@pytest.fixture
def context() -> Iterator[Any]:
    """A context that must end by itself, with no thread left but those that were there."""
    before = set(threading.enumerate())
    context = zmq.Context(io_threads=1)
    yield context
    ended = threading.Thread(target=context.destroy, kwargs={"linger": 0}, daemon=True)
    ended.start()
    ended.join(LIMITS["timeout"])
    assert not ended.is_alive()
    assert set(threading.enumerate()) == before


@pytest.fixture
def gate(context: Any) -> Iterator[Gatekeeper]:
    gate = Gatekeeper(context)
    gate.start()
    yield gate
    gate.close()


@dataclass
class Ends:
    """A receiver for `domain`, which admits `client`, and a sender that may be someone else."""

    context: Any
    gate: Gatekeeper
    domain: str = "link"
    sender_stage: int = 0

    def __post_init__(self) -> None:
        self.server, self.client = new_key_pair(), new_key_pair()
        self.receiver = ZmqReceiver(
            self.context,
            LOOPBACK,
            link(self.sender_stage),
            **LIMITS,
            configure=server_security(self.server, self.domain),
        )

    def sender(
        self, keys: KeyPair | None = None, server_public: bytes | None = None, endpoint: str | None = None
    ) -> ZmqSender:
        return ZmqSender(
            self.context,
            endpoint or self.receiver.endpoint,
            link(self.sender_stage),
            **LIMITS,
            configure=client_security(keys or self.client, server_public or self.server.public),
        )

    def allow(self) -> None:
        self.gate.allow(self.domain, self.client.public)

    def exchange(self, sender: ZmqSender, minibatches: int = 3) -> None:
        sender.connect()
        self.receiver.accept()
        for k in range(minibatches):
            sent = message(k, self.sender_stage)
            sender.send(sent)
            got = self.receiver.receive(k, Phase.BOTH)
            assert bytes(got.payloads[0].numpy().data) == bytes(sent.payloads[0].numpy().data)

    def assert_refused(self, sender: ZmqSender) -> None:
        """Both ends give up, in one line each, and the receiver saw nothing."""
        stage = self.sender_stage
        text = rf"^activation link, .*: waiting for stage {stage + 1} at tcp://.*: gave up after [^\n]*$"
        with pytest.raises(LinkError, match=text) as refused:
            sender.connect(timeout=REFUSED_WITHIN)
        self.assert_silent(refused)
        text = rf"^activation link, .*: waiting for stage {stage} to connect to tcp://.*: gave up [^\n]*$"
        with pytest.raises(LinkError, match=text) as refused:
            self.receiver.accept(timeout=REFUSED_WITHIN / 5)
        self.assert_silent(refused)
        assert not self.receiver.ready()

    def assert_silent(self, refused: pytest.ExceptionInfo[LinkError]) -> None:
        assert "\n" not in str(refused.value)
        for keys in (self.server, self.client):
            assert keys.secret.decode() not in str(refused.value)


@pytest.fixture
def ends(context: Any, gate: Gatekeeper) -> Ends:
    return Ends(context, gate)


def test_the_peer_that_is_expected_exchanges_messages(ends: Ends) -> None:
    ends.allow()
    ends.exchange(ends.sender())


def test_a_peer_that_comes_before_it_is_allowed_waits_and_is_admitted_then(
    context: Any, gate: Gatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits in its handshake: here it could not begin another."""
    monkeypatch.setattr(zeromq, "_HANDSHAKE_MS", 0)
    monkeypatch.setattr(zeromq, "_RECONNECT_MS", -1)
    ends = Ends(context, gate)
    sender = ends.sender()
    ends.assert_refused(sender)
    ends.allow()
    ends.exchange(sender)


def test_a_peer_with_another_key_is_refused_and_the_right_one_still_admitted(ends: Ends) -> None:
    ends.allow()
    ends.assert_refused(ends.sender(keys=new_key_pair()))
    ends.exchange(ends.sender())


def test_a_peer_that_has_only_the_public_key_of_the_right_one_is_refused(ends: Ends) -> None:
    ends.allow()
    ends.assert_refused(ends.sender(keys=KeyPair(ends.client.public, new_key_pair().secret)))


def test_a_peer_without_encryption_is_refused(ends: Ends) -> None:
    ends.allow()
    ends.assert_refused(ZmqSender(ends.context, ends.receiver.endpoint, link(), **LIMITS))


def test_a_peer_that_speaks_a_protocol_older_than_encryption_is_refused(ends: Ends) -> None:
    """ZMTP 1.0 has no mechanisms: an empty identity, then frames as they are."""
    ends.allow()
    port = int(ends.receiver.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.sendall(b"\x01\x00" + b"\x06\x00HELLO")
        with contextlib.suppress(ConnectionError):
            while peer.recv(4096):  # until the receiver closes
                pass
    assert not ends.receiver.ready()


def test_a_receiver_that_is_not_the_one_meant_gets_nothing(ends: Ends) -> None:
    ends.allow()
    ends.assert_refused(ends.sender(server_public=new_key_pair().public))


def test_a_receiver_without_encryption_gets_nothing(ends: Ends) -> None:
    plain = ZmqReceiver(ends.context, LOOPBACK, link(), **LIMITS)
    with pytest.raises(LinkError, match="gave up"):
        ends.sender(endpoint=plain.endpoint).connect(timeout=REFUSED_WITHIN)
    assert not plain.ready()


@pytest.mark.parametrize("closed", [True, False])
def test_nobody_is_admitted_without_a_gatekeeper(context: Any, closed: bool) -> None:
    gate = Gatekeeper(context)
    if closed:
        gate.start()
        gate.close()
    ends = Ends(context, gate)
    ends.allow()
    ends.assert_refused(ends.sender())


def test_a_link_that_is_up_outlives_its_gatekeeper(ends: Ends) -> None:
    ends.allow()
    sender = ends.sender()
    ends.exchange(sender)
    ends.gate.close()
    sender.send(message(3))
    ends.receiver.receive(3, Phase.BOTH)


def test_each_receiver_of_a_context_admits_its_own_peer(context: Any, gate: Gatekeeper) -> None:
    first, second = Ends(context, gate, "first", 0), Ends(context, gate, "second", 1)
    first.allow()
    second.allow()
    first.assert_refused(first.sender(keys=second.client))
    second.assert_refused(second.sender(keys=first.client))
    second.exchange(second.sender())
    first.exchange(first.sender())


def test_small_and_largest_messages_fit_with_encryption(context: Any, gate: Gatekeeper) -> None:
    for rows, domain in ((1, "small"), (20_000, "large")):
        largest, keys, peer = message(0, rows=rows), new_key_pair(), new_key_pair()
        limits = LIMITS | {"max_bytes": largest.nbytes}
        gate.allow(domain, peer.public)
        receiver = ZmqReceiver(context, LOOPBACK, link(), **limits, configure=server_security(keys, domain))
        security = client_security(peer, keys.public)
        sender = ZmqSender(context, receiver.endpoint, link(), **limits, configure=security)
        sender.connect()
        receiver.accept()
        sender.send(largest)
        receiver.receive(0, Phase.BOTH)


class Relay:
    """Passes one TCP connection on to `endpoint` and keeps what the first side sent."""

    def __init__(self, endpoint: str) -> None:
        self._port = int(endpoint.rpartition(":")[2])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen = bytearray()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        near, _ = self._listener.accept()
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            back = threading.Thread(target=self._pass, args=(far, near, bytearray()))
            back.start()
            self._pass(near, far, self.seen)
            back.join()

    @staticmethod
    def _pass(source: socket.socket, drain: socket.socket, seen: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                seen += data
                drain.sendall(data)
        with contextlib.suppress(OSError):
            drain.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_only_ciphertext_is_on_the_wire(ends: Ends) -> None:
    ends.allow()
    plain = ZmqReceiver(ends.context, LOOPBACK, link(), **LIMITS)
    for receiver, encrypted in ((ends.receiver, True), (plain, False)):
        relay = Relay(receiver.endpoint)
        sender = (
            ends.sender(endpoint=relay.endpoint)
            if encrypted
            else ZmqSender(ends.context, relay.endpoint, link(), **LIMITS)
        )
        sender.connect()
        receiver.accept()
        sender.send(message(0))
        receiver.receive(0, Phase.BOTH)
        sender.close()
        receiver.close()
        relay.close()
        assert len(relay.seen) > message(0).nbytes
        assert (PATTERN in relay.seen) is not encrypted
        assert (b"DTPD" in relay.seen) is not encrypted  # nor is a header


def test_closing_leaves_no_thread_and_a_second_close_does_nothing(context: Any) -> None:
    gate = Gatekeeper(context)
    gate.close()
    gate.start()
    assert any(thread.name == "gatekeeper" for thread in threading.enumerate())
    gate.close()
    gate.close()
    assert not any(thread.name == "gatekeeper" for thread in threading.enumerate())


def test_a_context_that_ends_first_ends_its_gatekeeper(context: Any) -> None:
    gate = Gatekeeper(context)
    gate.start()
    Ends(context, gate).sender()  # whose handshake may be waiting for an answer
    context.destroy(linger=0)
    gate.close()


@pytest.mark.usefixtures("gate")
def test_a_context_has_one_gatekeeper(context: Any) -> None:
    with pytest.raises(LinkError, match="gatekeeper of CURVE links can't start: Address already in use"):
        Gatekeeper(context).start()


def test_a_domain_admits_one_key_for_ever(gate: Gatekeeper) -> None:
    first = new_key_pair().public
    gate.allow("link", first)
    gate.allow("link", first)
    with pytest.raises(ValueError, match="domain 'link' admits another key already"):
        gate.allow("link", new_key_pair().public)
    for domain in ("", "x" * 256):
        with pytest.raises(ValueError, match="a domain has 1 to 255 bytes"):
            gate.allow(domain, first)


@pytest.mark.parametrize("wrong", [b"", b"short", b"#" * 40, b"\xff" * 40, b"0" * 41])
def test_what_is_no_public_key_is_an_error_that_does_not_show_it(gate: Gatekeeper, wrong: bytes) -> None:
    for use in (lambda: gate.allow("link", wrong), lambda: client_security(new_key_pair(), wrong)):
        with pytest.raises(ValueError, match="a public key is 40 characters of Z85") as error:
            use()
        assert not wrong or wrong.decode("latin1") not in str(error.value)


def test_a_secret_is_not_shown_and_does_not_leave_its_process() -> None:
    keys = new_key_pair()
    assert keys != new_key_pair()
    for text in (repr(keys), str(keys), f"{keys}", repr([keys])):
        assert keys.public.decode() in text
        assert "secret" not in text
        assert keys.secret.decode() not in text
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(keys)


def test_a_key_that_zeromq_refuses_is_a_link_error(context: Any) -> None:
    broken = KeyPair(new_key_pair().public, b"no key")
    with pytest.raises(
        LinkError, match=r"stage 0 -> stage 1: tcp://127\.0\.0\.1:0: Invalid argument"
    ) as error:
        ZmqReceiver(context, LOOPBACK, link(), **LIMITS, configure=server_security(broken, "link"))
    assert "no key" not in str(error.value)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


HOSTS = ["127.0.0.1", "127.0.0.2", *(["[::1]"] if has_ipv6() else [])]


@pytest.mark.parametrize("host", HOSTS)
def test_a_receiver_binds_to_its_address_alone_and_reports_the_port(context: Any, host: str) -> None:
    receivers = [ZmqReceiver(context, f"tcp://{host}:0", link(), **LIMITS) for _ in range(2)]
    endpoints = {receiver.endpoint for receiver in receivers}
    assert len(endpoints) == 2
    assert all(e.startswith(f"tcp://{host}:") and not e.endswith(":0") for e in endpoints)
    sender = ZmqSender(context, receivers[0].endpoint, link(), **LIMITS)
    sender.connect()
    receivers[0].accept()
