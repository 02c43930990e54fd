"""A link between two processes over ZeroMQ: `ipc://` on one host, `tcp://` across hosts, there with `curve`.

The receiver binds a PULL socket, the sender connects a PUSH socket and sends HELLO, the receiver accepts it:

    receiver = ZmqReceiver(context, endpoint, identity, ...)       # binds; all stages first
    sender = ZmqSender(context, receiver.endpoint, identity, ...)
    sender.connect(); receiver.accept()                            # then all senders, then all receivers

ZeroMQ reconnects in silence and drops what was on its way, so messages are numbered from HELLO on, which is
number 0, and a gap is a lost link. The caller owns the context: one per process, with one I/O thread.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NotRequired, TypeVar, Unpack

import zmq

from dtp_dist.errors import LinkError, MessageError
from dtp_dist.transport.base import LinkOptions, Patience, Receiver, Sender, Transport
from dtp_dist.transport.messages import LinkIdentity, Message
from dtp_dist.transport.wire import decode, split

if TYPE_CHECKING:
    from dtp_dist.transport.base import Configure, Context

__all__ = ["IPC", "TCP", "ZmqOptions", "ZmqReceiver", "ZmqSender"]

_CONNECT_MS = _HANDSHAKE_MS = 5_000
_RECONNECT_MS, _RECONNECT_MAX_MS = 50, 1_000
_LINGER_MS = 1_000
_OVERHEAD_BYTES = 1_024
"""What a frame may have beyond the largest message: CURVE adds 33 bytes, and its handshake has 300."""


class ZmqOptions(LinkOptions):
    """`configure`: called with the socket before it binds or connects, the place for CURVE keys."""

    configure: NotRequired[Configure | None]


class _End:
    """One socket of one link, how it is set up and how it waits."""

    def __init__(
        self, context: Context, socket_type: int, identity: LinkIdentity, options: ZmqOptions
    ) -> None:
        if options["high_water"] < 1:  # 0 means no limit to ZeroMQ
            raise ValueError(f"high_water must be at least 1, got {options['high_water']}")
        self.identity = identity
        self.max_bytes = options["max_bytes"]
        self.sequence = 0
        self.socket: zmq.Socket[bytes] = context.socket(socket_type)
        self.event = zmq.POLLOUT if socket_type == zmq.PUSH else zmq.POLLIN
        self.socket.set_hwm(options["high_water"])
        self.socket.setsockopt(zmq.MAXMSGSIZE, self.max_bytes + _OVERHEAD_BYTES)  # `decode` is exact
        self.socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)  # so that the last message before a close arrives
        self.socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a peer that is not there
        self._configure = options.get("configure")
        self._poller = zmq.Poller()
        self._poller.register(self.socket, self.event)
        self._patience = Patience(identity, options, self.ready, self._poll)

    def open(self, action: Callable[[str], Any], endpoint: str) -> None:
        """Configure, then bind or connect; raises LinkError, and gives the socket up, if that fails."""
        try:
            self.socket.setsockopt(zmq.IPV6, int("://[" in endpoint))
            if self._configure is not None:
                self._configure(self.socket)
            action(endpoint)
        except zmq.ZMQError as error:
            self.socket.close(linger=0)
            raise LinkError(f"{self.identity}: {endpoint}: {error}") from error

    def ready(self) -> bool:
        """Whether one message can be sent or received without waiting."""
        return bool(int(self.socket.EVENTS) & self.event)

    def do(self, action: Callable[[], Any], purpose: str, timeout: float | None = None) -> Any:
        """Do it, at once if possible, else after a wait; `purpose` says for what, in errors."""
        while True:
            try:
                return action()
            except zmq.Again:
                self._patience.wait(purpose, timeout)

    def _poll(self, seconds: float) -> bool:
        return bool(self._poller.poll(math.ceil(seconds * 1e3)))


class ZmqSender(Sender):
    """The sending end; see `ZmqOptions` for its limits."""

    def __init__(
        self, context: Context, endpoint: str, identity: LinkIdentity, **options: Unpack[ZmqOptions]
    ) -> None:
        super().__init__(identity)
        self.endpoint = endpoint
        self._end = _End(context, zmq.PUSH, identity, options)
        self._end.open(self._end.socket.connect, endpoint)

    def connect(self, timeout: float | None = None) -> None:
        """Wait until the receiver is there, and send HELLO; does not wait for it to be accepted.

        Raises LinkError if it is not there within `timeout` seconds (None: the link's own), or Stopped.
        """
        self._write(
            Message.hello(self.identity), f"stage {self.identity.receiver} at {self.endpoint}", timeout
        )

    def _send(self, message: Message) -> None:
        if self._end.sequence == 0:
            raise LinkError(f"{self.identity}: {message} before the link was connected")
        if message.nbytes > self._end.max_bytes:
            raise MessageError(
                f"{self.identity}: {message} has {message.nbytes} bytes, limit {self._end.max_bytes}"
            )
        self._write(message, f"room for minibatch {message.minibatch}")

    def _write(self, message: Message, purpose: str, timeout: float | None = None) -> None:
        frames = self._frames(message, self._end.sequence)
        # In one piece: ZeroMQ aborts the process when a link with half of a multipart message is given up.
        # Copied: at 100 to 400 KB that measured no slower than pyzmq's zero-copy sends.
        send = partial(self._end.socket.send, b"".join(frames), flags=zmq.NOBLOCK)
        try:
            self._end.do(send, purpose, timeout)
        except zmq.ZMQError as error:
            raise LinkError(f"{self.identity}: lost while sending {message}: {error}") from error
        self._end.sequence += 1

    def _lose(self) -> None:
        self._end.sequence += 1

    def cut(self) -> None:
        """Break the connection, and let ZeroMQ make no new one."""
        self._end.socket.disconnect(self.endpoint)

    def close(self) -> None:
        """Close the socket; what was sent stays on its way for a second, or until the context ends."""
        self._end.socket.close()


class ZmqReceiver(Receiver):
    """The receiving end, bound to `endpoint`, an address of this host.

    The port 0 of `tcp://10.0.0.5:0` or `tcp://[fd00::5]:0` becomes one that was free, in `self.endpoint`.
    """

    def __init__(
        self, context: Context, endpoint: str, identity: LinkIdentity, **options: Unpack[ZmqOptions]
    ) -> None:
        super().__init__(identity)
        self._end = _End(context, zmq.PULL, identity, options)
        self._end.open(self._end.socket.bind, endpoint)
        self.endpoint = self._end.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def accept(self, timeout: float | None = None) -> None:
        """Wait for the sender's HELLO, at most `timeout` seconds (None: the link's own).

        Raises LinkError if none comes, MessageError if it is of another run, generation, link or stage.
        """
        self._read(f"stage {self.identity.sender} to connect to {self.endpoint}", timeout)

    def ready(self) -> bool:
        """Whether a message is there."""
        return self._end.ready()

    def _receive(self, minibatch: int) -> Message:
        if self._end.sequence == 0:
            raise LinkError(f"{self.identity}: minibatch {minibatch} before the link was accepted")
        return self._read(f"minibatch {minibatch}")

    def _read(self, purpose: str, timeout: float | None = None) -> Message:
        try:
            receive = partial(self._end.socket.recv_multipart, flags=zmq.NOBLOCK, copy=False)
            parts = self._end.do(receive, purpose, timeout)
        except zmq.ZMQError as error:
            raise LinkError(f"{self.identity}: lost while receiving {purpose}: {error}") from error
        if len(parts) != 1:
            raise MessageError(f"{self.identity}: got a message in {len(parts)} pieces, expected 1")
        header_only, limit = self.carrier is not None, self._end.max_bytes
        frames = [parts[0].buffer] if header_only else split(parts[0].buffer)
        message = decode(frames, self.identity, self._end.sequence, max_bytes=limit, header_only=header_only)
        self._end.sequence += 1
        return message

    def cut(self) -> None:
        """Break the connection, and let ZeroMQ take no new one."""
        self._end.socket.unbind(self.endpoint)

    def close(self) -> None:
        """Close the socket."""
        self._end.socket.close()


class _FileReceiver(ZmqReceiver):
    """The receiving end that is bound to a file, and removes it: ZeroMQ does so where it chose the name."""

    def close(self) -> None:
        """Close the socket and remove its file."""
        super().close()
        with contextlib.suppress(OSError):
            os.unlink(self.endpoint.removeprefix(f"{IPC.scheme}://"))


End = TypeVar("End", bound=ZmqSender | ZmqReceiver)


def _opening(end: type[End]) -> Callable[[str, LinkIdentity, Context, LinkOptions, Configure | None], End]:
    """Return what opens ends of one class, as a ``Transport`` wants it."""
    return lambda endpoint, identity, context, options, configure: end(
        context, endpoint, identity, configure=configure, **options
    )


IPC = Transport(
    scheme="ipc",
    in_folder=True,
    encrypted=False,
    needs_no_thread=False,
    receiver=_opening(_FileReceiver),
    sender=_opening(ZmqSender),
)
TCP = Transport(
    scheme="tcp",
    in_folder=False,
    encrypted=True,
    needs_no_thread=False,
    receiver=_opening(ZmqReceiver),
    sender=_opening(ZmqSender),
)
