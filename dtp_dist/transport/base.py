"""The two ends of a link, whatever carries it, and how an end waits.

A link goes one way, from one stage to the next or the previous one, and carries one kind of message in the
order in which it was sent. Each end belongs to one thread.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict

from dtp_dist.errors import LinkError, MessageError, Stopped
from dtp_dist.schedule import Phase
from dtp_dist.system.clock import AwakeClock
from dtp_dist.text.numbers import short
from dtp_dist.transport.collective import Carrier
from dtp_dist.transport.messages import LinkIdentity, Message
from dtp_dist.transport.wire import Buffer, encode

__all__ = [
    "POLL_SLICE",
    "Configure",
    "Context",
    "LinkOptions",
    "Patience",
    "Receiver",
    "Sender",
    "Transport",
    "wait_for",
]

if TYPE_CHECKING:  # not every end is one of ZeroMQ's
    import zmq

    Context = zmq.Context[zmq.Socket[bytes]]
    Configure = Callable[[zmq.Socket[bytes]], None]

POLL_SLICE = 0.1
"""The longest a wait goes without asking whether to stop, in seconds."""


class LinkOptions(TypedDict):
    """The limits of one end of a link between processes, given to it as keywords.

    timeout: the longest wait for one message, in seconds. stopped: asked at least every 0.1 s of a wait.
    high_water: that many messages may always be unread before the sender waits (each end of ZeroMQ's holds as
    many, so it waits at about twice that, and later if the operating system buffers some small ones).
    max_bytes: the largest message, header included. spin: seconds of a wait spent looking before sleeping,
    for stages that wait with a core of their own.
    """

    timeout: float
    stopped: Callable[[], bool]
    high_water: int
    max_bytes: int
    spin: NotRequired[float]


class Sender(ABC):
    """The sending end. `bytes_sent` and `messages` count what was sent, headers included, HELLO left out.

    `crosses_processes` says whether tensors must lie in the host's memory to be sent; not those that
    `carrier`, if there is one, takes another way.
    """

    crosses_processes: bool = True
    carrier: Carrier | None = None

    def __init__(self, identity: LinkIdentity) -> None:
        self.identity = identity
        self.bytes_sent = 0
        self.messages = 0
        self._drops = False

    def connect(self, timeout: float | None = None) -> None:
        """Open the link, once its receiver is there; nothing has to be opened in one process.

        Raises LinkError if the receiver is not there within `timeout` seconds (None: the link's own limit).
        """
        del timeout

    def send(self, message: Message) -> None:
        """Send `message`; its tensors must not change afterwards.

        May wait while the receiver is behind. Raises MessageError if the message does not belong on this
        link, LinkError if the link is lost or full for too long, Stopped if the run stops meanwhile.
        """
        identity = self.identity
        if (message.kind, message.sender, message.layer) != (identity.kind, identity.sender, identity.layer):
            kind = identity.kind.name.lower()
            expected = f"expected {kind} from stage {identity.sender}, layer {identity.layer}"
            raise MessageError(f"{identity}: got {message}, {expected}")
        if self._drops:
            self._drops = False
            self._lose()
        else:
            self._send(message)
        if self.carrier is not None:
            self.carrier.send(message)
        self.bytes_sent += message.nbytes
        self.messages += 1

    def cut(self) -> None:
        """Lose the connection for good while this end stays open, as a broken network does: for drills.

        Raises LinkError where there is no connection: within one process.
        """
        raise LinkError(f"{self.identity}: a link within one process can't be cut")

    def drop(self) -> None:
        """Lose the next message, which counts as sent, and its number with it: for drills.

        Raises LinkError within one process.
        """
        if not self.crosses_processes:
            raise LinkError(f"{self.identity}: a link within one process drops nothing")
        self._drops = True

    @abstractmethod
    def _send(self, message: Message) -> None:
        """Hand over a message that belongs on this link, or its header if there is a carrier."""

    @abstractmethod
    def _lose(self) -> None:
        """Count a message as sent that is not."""

    def _frames(self, message: Message, sequence: int) -> list[Buffer]:
        """What of a message travels on this link itself."""
        return encode(message, self.identity, sequence, header_only=self.carrier is not None)

    @abstractmethod
    def close(self) -> None:
        """Give the link up, once what was sent is on its way; a second call does nothing."""


class Receiver(ABC):
    """The receiving end. `messages` counts as the sender does.

    `endpoint` is where the sender connects, "" in one process. `carrier`: as the sender's.
    """

    endpoint: str = ""
    carrier: Carrier | None = None

    def __init__(self, identity: LinkIdentity) -> None:
        self.identity = identity
        self.messages = 0

    def accept(self, timeout: float | None = None) -> None:
        """Wait until the sender has opened the link; nothing has to be opened in one process.

        Raises LinkError if it does not within `timeout` seconds (None: the link's own limit), MessageError
        if somebody else does.
        """
        del timeout

    def receive(self, minibatch: int, phase: Phase) -> Message:
        """The next message, which must be the one of `minibatch` and `phase`; waits for it.

        Raises MessageError if anything else came, LinkError if messages were lost or none came in time,
        Stopped if the run stops meanwhile.
        """
        message = self._receive(minibatch)
        if (message.minibatch, message.phase) != (minibatch, phase):
            got = f"got {message} of phase {message.phase}"
            raise MessageError(f"{self.identity}: {got}, expected minibatch {minibatch} of phase {phase}")
        if self.carrier is not None:
            message = self.carrier.receive(message)
        self.messages += 1
        return message

    def cut(self) -> None:
        """As the sender's.

        Raises LinkError within one process.
        """
        raise LinkError(f"{self.identity}: a link within one process can't be cut")

    @abstractmethod
    def ready(self) -> bool:
        """Whether `receive` would return (or raise) without waiting."""

    @abstractmethod
    def _receive(self, minibatch: int) -> Message:
        """The next message; `minibatch` is the one that is due, for the text of errors.

        If there is a carrier, its payloads are on the `meta` device.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the link up; a second call does nothing."""


@dataclass(frozen=True)
class Transport:
    """One way for messages between processes: what a configuration may name, and all that depends on it.

    Attributes:
        scheme: with which its endpoints begin, ``SCHEME://PLACE``.
        in_folder: its ends meet in a private folder of one host; else at a host's address.
        encrypted: its ends have keys and admit no other; ``receiver`` and ``sender`` are told them.
        needs_no_thread: an end that waits on its core keeps none of the transport's own threads off it.
        receiver: opens the receiving end, bound to an endpoint; raises LinkError if it can't be bound.
        sender: opens the sending end of the link that is bound to an endpoint, not yet connected.
        available: whether this system has what it needs.
    """

    scheme: str
    in_folder: bool
    encrypted: bool
    needs_no_thread: bool
    receiver: Callable[[str, LinkIdentity, Context, LinkOptions, Configure | None], Receiver]
    sender: Callable[[str, LinkIdentity, Context, LinkOptions, Configure | None], Sender]
    available: bool = True

    def endpoint(self, place: str, name: str) -> str:
        """Return where to bind a receiving end: under ``name`` in a folder, or at any port of an address."""
        if self.in_folder:
            return f"{self.scheme}://{place}/{name}"
        return f"{self.scheme}://[{place}]:0" if ":" in place else f"{self.scheme}://{place}:0"


def wait_for(
    poll: Callable[[float], bool],
    *,
    timeout: float,
    stopped: Callable[[], bool],
    describe: Callable[[], str],
) -> None:
    """Return once `poll(seconds)`, which waits at most that long, is true.

    Asks `stopped()` at least every `POLL_SLICE` seconds. `describe()` says what is waited for, in errors.
    Raises Stopped if it turns true and LinkError after `timeout` seconds, without those during which this
    process itself was stopped.
    """
    clock = AwakeClock(longest=10 * POLL_SLICE)
    left = timeout
    while not poll(max(0.0, min(left, POLL_SLICE))):
        if stopped():
            raise Stopped(f"{describe()}: the run is being stopped")
        waited = clock()
        left = timeout - waited
        if left <= 0:
            raise LinkError(f"{describe()}: gave up after {short(waited)} s (limit {short(timeout)} s)")


class Patience:
    """How an end between processes waits: looking again and again for a short time, then asleep.

    `ready()` says whether the wait is over, `poll(seconds)` sleeps until it is, at most that long.
    """

    def __init__(
        self,
        identity: LinkIdentity,
        options: LinkOptions,
        ready: Callable[[], bool],
        poll: Callable[[float], bool],
    ) -> None:
        self.ready = ready
        self._identity, self._poll = identity, poll
        self._timeout, self._stopped = options["timeout"], options["stopped"]
        self._spin = options.get("spin", 0.0)

    def wait(self, purpose: str, timeout: float | None = None) -> None:
        """Wait at most `timeout` seconds (None: the link's own limit); `purpose` says for what, in errors."""
        if self.ready() or self._look():
            return
        wait_for(
            self._poll,
            timeout=self._timeout if timeout is None else timeout,
            stopped=self._stopped,
            describe=lambda: f"{self._identity}: waiting for {purpose}",
        )

    def _look(self) -> bool:
        """Look for a short time: on a core that is free, waking up costs more than that."""
        end = time.perf_counter() + self._spin
        while time.perf_counter() < end:
            os.sched_yield()
            if self.ready():
                return True
        return False
