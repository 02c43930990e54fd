"""A link between two processes of one host: payloads in shared memory, headers over a Unix socket.

The receiver listens under a path in a private folder, the sender connects and sends HELLO with a descriptor
of the memory, the receiver accepts:

    receiver = SharedReceiver("shm:///folder/name", identity, ...)   # listens; all stages first
    sender = SharedSender(receiver.endpoint, identity, ...)
    sender.connect(); receiver.accept()                              # then all senders, then all receivers

The memory is a ring of ``high_water`` slots, one message each: message n lies in slot n mod ``high_water``,
and its header goes over the socket when it is whole. A byte that comes back says that the receiver has copied
the oldest one out, so that its slot is free; with many slots several come at once. No thread takes part,
unlike with ZeroMQ, whose own threads need a core where all are busy computing. The memory has no name, so
nothing is left behind.

Linux alone (memfd, SOCK_SEQPACKET); elsewhere ``ipc`` does the same through ZeroMQ.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Unpack

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.transport.base import LinkOptions, Patience, Receiver, Sender, Transport, wait_for
from dtp_dist.transport.messages import HEADER_BYTES, LinkIdentity, Message
from dtp_dist.transport.ring import Ring
from dtp_dist.transport.wire import Buffer, decode, encode, read_header, to_message

__all__ = ["SHARED_MEMORY", "SHM", "SharedReceiver", "SharedSender"]

SHARED_MEMORY = sys.platform == "linux"
"""Whether this system has what these links need."""

SCHEME = "shm://"
_GONE_SECONDS = 5.0  # after the peer has gone: time for the driver to find out what became of it, and say so
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if SHARED_MEMORY else 0
_CREDENTIALS = struct.Struct("3i")


class _Socket:
    """One end's socket: whole packets, in order, each wait limited."""

    def __init__(self, identity: LinkIdentity, options: LinkOptions) -> None:
        if options["high_water"] < 1:
            raise ValueError(f"high_water must be at least 1, got {options['high_water']}")
        self.identity, self.options = identity, options
        self.sequence = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._attach()

    def replace(self, connected: socket.socket) -> None:
        """Go on with the connection that was accepted."""
        self.socket.close()
        self.socket = connected
        self._attach()

    def _attach(self) -> None:
        self.socket.setblocking(False)
        self.arrival, self._room = (self._patience(event) for event in (select.POLLIN, select.POLLOUT))

    def _patience(self, event: int) -> Patience:
        poller = select.poll()
        poller.register(self.socket, event)

        def poll(seconds: float) -> bool:
            return bool(poller.poll(seconds * 1e3))

        return Patience(self.identity, self.options, lambda: poll(0.0), poll)

    def receive(self, size: int, purpose: str, timeout: float | None = None) -> bytes:
        """Return the next packet, of at most ``size`` bytes; ``purpose`` says what for, in errors."""
        reset = False
        while True:
            try:
                packet = self.socket.recv(size)
            except BlockingIOError:
                self.arrival.wait(purpose, timeout)
                continue
            except ConnectionError:
                if not reset:  # told once, before the packets that are there still
                    reset = True
                    continue
                packet = b""
            return packet or self.gone(purpose)

    def send(self, packet: Buffer, purpose: str) -> None:
        """Send a packet; a socket holds some two hundred, so it seldom waits.

        Raises ConnectionError if the peer has closed the link.
        """
        while True:
            try:
                self.socket.send(packet)
                return
            except BlockingIOError:
                self._room.wait(purpose)

    def gone(self, purpose: str) -> NoReturn:
        """Raise LinkError, but not at once: whoever watches the processes knows better what happened."""
        with contextlib.suppress(LinkError):
            wait_for(
                _sleep,
                timeout=min(_GONE_SECONDS, self.options["timeout"]),
                stopped=self.options["stopped"],
                describe=lambda: purpose,
            )
        raise LinkError(f"{self.identity}: waiting for {purpose}: the other stage has closed the link")

    def cut(self) -> None:
        """Break the connection; both ends notice."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextlib.contextmanager
def _described(identity: LinkIdentity, endpoint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinkError(f"{identity}: {endpoint}: {error.strerror or error}") from error


class SharedSender(Sender):
    """The sending end; see ``LinkOptions`` for its limits."""

    def __init__(self, endpoint: str, identity: LinkIdentity, **options: Unpack[LinkOptions]) -> None:
        super().__init__(identity)
        self.endpoint = endpoint
        self._slots, self._max_bytes = options["high_water"], options["max_bytes"]
        self._end = _Socket(identity, options)
        self._free = self._slots
        with _described(identity, endpoint):
            self._descriptor = os.memfd_create("dtp-dist-link", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._descriptor, Ring.size(self._slots, self._max_bytes))
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._ring = Ring(self._descriptor, self._slots, self._max_bytes)

    def connect(self, timeout: float | None = None) -> None:
        """Connect to the receiver, which listens already, and send HELLO with the memory.

        Raises LinkError if it is not there.
        """
        del timeout
        [hello] = encode(Message.hello(self.identity), self.identity, 0)
        with _described(self.identity, self.endpoint):
            self._end.socket.connect(self.endpoint.removeprefix(SCHEME))
            socket.send_fds(self._end.socket, [bytes(hello)], [self._descriptor])
            os.close(self._descriptor)
        self._end.sequence = 1

    def _send(self, message: Message) -> None:
        if self._end.sequence == 0:
            raise LinkError(f"{self.identity}: {message} before the link was connected")
        header, *payloads = self._frames(message, self._end.sequence)
        if message.nbytes > self._max_bytes:
            raise MessageError(
                f"{self.identity}: {message} has {message.nbytes} bytes, limit {self._max_bytes}"
            )
        sizes = [len(payload) for payload in payloads]  # none where a carrier takes them
        purpose = f"room for minibatch {message.minibatch}"
        while self._free == 0:
            self._free += len(self._end.receive(self._slots, purpose))
        self._free -= 1
        for place, payload in zip(self._ring.places(self._end.sequence, sizes), payloads, strict=True):
            place[:] = payload
        try:
            self._end.send(header, purpose)
        except ConnectionError:
            self._end.gone(purpose)
        self._end.sequence += 1

    def _lose(self) -> None:
        self._end.sequence += 1

    def cut(self) -> None:
        """Break the connection; the receiver notices."""
        self._end.cut()

    def close(self) -> None:
        """Close the socket; the receiver can still read what was sent."""
        self._end.close()


class SharedReceiver(Receiver):
    """The receiving end; ``endpoint`` is ``shm://PATH``, in a folder that is this user's alone."""

    def __init__(self, endpoint: str, identity: LinkIdentity, **options: Unpack[LinkOptions]) -> None:
        super().__init__(identity)
        self.endpoint = endpoint
        self._path = Path(endpoint.removeprefix(SCHEME))
        self._slots, self._max_bytes = options["high_water"], options["max_bytes"]
        self._end = _Socket(identity, options)
        self._ring: Ring | None = None
        self._copied = 0
        with _described(identity, endpoint):
            self._end.socket.bind(str(self._path))
            self._end.socket.listen(1)

    def accept(self, timeout: float | None = None) -> None:
        """Wait for the sender's HELLO, at most ``timeout`` seconds (None: the link's own).

        Raises LinkError if none comes, MessageError if it is of another run, generation, link or stage, or
        of another user, or if its memory has another size.
        """
        purpose = f"stage {self.identity.sender} to connect to {self.endpoint}"
        self._end.arrival.wait(purpose, timeout)
        with _described(self.identity, self.endpoint):
            connected, _ = self._end.socket.accept()
            self._end.replace(connected)
            self._path.unlink(missing_ok=True)
        self._require_same_user()
        self._end.arrival.wait(purpose, timeout)
        with _described(self.identity, self.endpoint):
            hello, descriptors, _, _ = socket.recv_fds(self._end.socket, HEADER_BYTES + 1, 1)
        try:
            decode([hello], self.identity, 0, max_bytes=self._max_bytes)
            self._ring = self._map(descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._end.sequence = 1

    def _require_same_user(self) -> None:
        packed = self._end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        user = _CREDENTIALS.unpack(packed)[1]
        if user != os.geteuid():
            raise MessageError(f"{self.identity}: user {user} has connected, expected {os.geteuid()}")

    def _map(self, descriptors: Sequence[int]) -> Ring:
        size = Ring.size(self._slots, self._max_bytes)
        if len(descriptors) != 1 or os.fstat(descriptors[0]).st_size != size:
            raise MessageError(f"{self.identity}: HELLO came without {size} bytes of memory")
        if fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise MessageError(f"{self.identity}: HELLO came with memory whose size can change")
        return Ring(descriptors[0], self._slots, self._max_bytes)

    def ready(self) -> bool:
        """Whether a message is there."""
        return self._end.arrival.ready()

    def _receive(self, minibatch: int) -> Message:
        if self._ring is None:
            raise LinkError(f"{self.identity}: minibatch {minibatch} before the link was accepted")
        purpose = f"minibatch {minibatch}"
        packet = self._end.receive(HEADER_BYTES + 1, purpose)
        header = read_header(packet, self.identity, self._end.sequence)
        size = HEADER_BYTES + sum(header.sizes)
        if size > self._max_bytes:
            raise MessageError(f"{self.identity}: got {size} bytes, expected at most {self._max_bytes}")
        places = None if self.carrier else self._ring.places(self._end.sequence, header.sizes)
        message = to_message(header, places, self.identity, self._end.sequence)
        self._copied += 1
        if self._copied >= self._slots // 8:  # or the answers to many small messages would fill the socket
            with contextlib.suppress(ConnectionError):  # a peer that has closed the link needs none
                self._end.send(bytes(self._copied), purpose)
            self._copied = 0
        self._end.sequence += 1
        return message

    def cut(self) -> None:
        """Break the connection; the sender notices."""
        self._end.cut()

    def close(self) -> None:
        """Close the socket and remove its file, if it is there still."""
        self._end.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


SHM = Transport(
    scheme="shm",
    in_folder=True,
    encrypted=False,
    needs_no_thread=True,
    receiver=lambda endpoint, identity, context, options, configure: SharedReceiver(
        endpoint, identity, **options
    ),
    sender=lambda endpoint, identity, context, options, configure: SharedSender(
        endpoint, identity, **options
    ),
    available=SHARED_MEMORY,
)
