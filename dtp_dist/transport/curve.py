"""Encrypted and authenticated links between hosts: CURVE keys, and who may connect to whom.

A stage makes one key pair per generation and gives its public key to the driver, which passes it to the
stage's neighbours. The receiver of a link is the CURVE server and binds before it knows its peer's key:

    keys, gate = new_key_pair(), Gatekeeper(context)
    gate.start()                                                        # once per context
    receiver = ZmqReceiver(..., configure=server_security(keys, domain))
    ...                                                                 # public keys and endpoints go around
    gate.allow(domain, peer_public)
    sender = ZmqSender(..., configure=client_security(keys, receiver_public))
    ...
    gate.close()                                                        # after the links

ZeroMQ asks the gatekeeper about every peer that has proved that it owns its key (ZAP, RFC 27), on an
in-process socket. A peer that comes before its domain has a key waits for the answer, one with another key
is refused for good. Without a gatekeeper nobody is admitted.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import zmq
from zmq.utils import z85

from dtp_dist.errors import LinkError
from dtp_dist.text.numbers import short

if TYPE_CHECKING:
    from dtp_dist.transport.base import Configure, Context

__all__ = ["Gatekeeper", "KeyPair", "client_security", "new_key_pair", "server_security"]

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_ZAP_FRAMES = 7  # version, request, domain, address, routing id, mechanism, the public key
_STOP, _LOOK_AGAIN = [b"stop"], [b"look again"]
_MOST_WAITING = 1_000  # requests; the older ones are dropped, and their peers come again by themselves
_JOIN_SECONDS = 5.0
_KEY_CHARACTERS, _DOMAIN_BYTES = 40, 255


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, each key 40 characters of Z85; it can't be pickled, so the secret stays at home."""

    public: bytes
    secret: bytes = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyPair does not leave its process; send its public key alone")


def new_key_pair() -> KeyPair:
    """A new random key pair; raises LinkError if this ZeroMQ was built without CURVE."""
    if not zmq.has("curve"):
        raise LinkError("this ZeroMQ has no CURVE: install pyzmq from its wheel, or use ipc on one host")
    return KeyPair(*zmq.curve_keypair())


class Gatekeeper:
    """Decides which key may connect to which receiver of one ZeroMQ context; runs a thread of its own.

    A domain is the name a receiver gave to `server_security`; it admits the one key given to `allow`.
    """

    def __init__(self, context: Context) -> None:
        # A shadow, so that context.destroy() leaves this thread's socket to this thread.
        self._context: Context = zmq.Context.shadow(context)
        self._allowed: dict[bytes, bytes] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to answer; raises LinkError if this context has a gatekeeper already."""
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(_ZAP_ENDPOINT)
        except zmq.ZMQError as error:
            socket.close()
            raise LinkError(f"the gatekeeper of CURVE links can't start: {error}") from error
        self._thread = threading.Thread(target=self._serve, args=(socket,), name="gatekeeper", daemon=True)
        self._thread.start()

    def allow(self, domain: str, public_key: bytes) -> None:
        """Admit the owner of `public_key` to `domain`, and nobody else.

        Raises ValueError for what is no public key, or if the domain admits another one already: a new
        generation has new domains.
        """
        key = _public_key(public_key)
        if self._allowed.setdefault(_domain(domain), key) != key:
            raise ValueError(f"domain {domain!r} admits another key already")
        self._tell(_LOOK_AGAIN)

    def close(self) -> None:
        """Stop the thread, or raise LinkError if that takes too long; a second call does nothing.

        From now on nobody is admitted; links that are up stay up.
        """
        if self._thread is None:
            return
        self._tell(_STOP)
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            raise LinkError(f"the gatekeeper of CURVE links did not stop within {short(_JOIN_SECONDS)} s")
        self._thread = None

    def _tell(self, command: list[bytes]) -> None:
        """Send a command to the thread, if it runs."""
        if self._thread is None:
            return
        # If the context has ended, there is no socket to be had, and the thread has ended with it.
        with contextlib.suppress(zmq.ZMQError), self._context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, int(_JOIN_SECONDS * 1e3))
            socket.connect(_ZAP_ENDPOINT)
            socket.send_multipart([b"", *command], flags=zmq.NOBLOCK)

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        """Answer until told to stop, or until the context ends."""
        waiting: deque[list[bytes]] = deque(maxlen=_MOST_WAITING)
        with socket, contextlib.suppress(zmq.ContextTerminated):
            while (request := socket.recv_multipart())[2:] != _STOP:
                if request[2:] != _LOOK_AGAIN:
                    waiting.append(request)
                for _ in range(len(waiting)):
                    request = waiting.popleft()
                    if reply := self._reply(request):
                        socket.send_multipart(reply)
                    else:
                        waiting.append(request)

    def _reply(self, request: list[bytes]) -> list[bytes] | None:
        """The answer to a ZAP request and its two frames of envelope; None if it has to wait for a key."""
        envelope, fields = request[:2], request[2:]
        if len(fields) != _ZAP_FRAMES:
            return None
        version, request_id, domain, _, _, mechanism, key = fields
        expected = self._allowed.get(domain)
        if expected is None:
            return None
        admitted = (version, mechanism, key) == (_ZAP_VERSION, b"CURVE", expected)
        status = [b"200", b""] if admitted else [b"400", b"another key is expected"]
        return [*envelope, _ZAP_VERSION, request_id, *status, b"", b""]


def server_security(keys: KeyPair, domain: str) -> Configure:
    """For `LinkOptions["configure"]` of a receiver: CURVE with `keys`, open to whom `domain` allows.

    The domain, of 1 to 255 bytes, is this receiver's own among all of its context and of all generations.
    """
    name = _domain(domain)

    def configure(socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, name)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # or all are admitted while there is no gatekeeper

    return configure


def client_security(keys: KeyPair, server_public: bytes) -> Configure:
    """For `LinkOptions["configure"]` of a sender: CURVE with `keys`, to the owner of `server_public` alone.

    Raises ValueError if that is no public key.
    """
    _public_key(server_public)

    def configure(socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)

    return configure


def _domain(domain: str) -> bytes:
    name = domain.encode()
    if not 0 < len(name) <= _DOMAIN_BYTES:
        raise ValueError(f"a domain has 1 to {_DOMAIN_BYTES} bytes, got {len(name)}")
    return name


def _public_key(key: bytes) -> bytes:
    """The 32 bytes of a key in Z85; errors don't show it, lest it is a secret."""
    if len(key) == _KEY_CHARACTERS and set(key) <= set(z85.Z85CHARS):
        with contextlib.suppress(ArithmeticError, ValueError, struct.error):
            return z85.decode(key)
    raise ValueError(f"a public key is {_KEY_CHARACTERS} characters of Z85, got {len(key)} that are not")
