"""The two ends of a link, whatever carries it, and how an end waits.

A link goes one way, from one stage to the next or the previous one, and carries one kind of message in the
order in which it was sent. Each end belongs to one thread.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from dtp_dist.errors import LinkError, MessageError, Stopped
from dtp_dist.messages import LinkIdentity, Message
from dtp_dist.schedule import Phase

__all__ = ["POLL_SLICE", "Receiver", "Sender", "wait_for"]

POLL_SLICE = 0.1
"""The longest a wait goes without asking whether to stop, in seconds."""


class Sender(ABC):
    """The sending end. `bytes_sent` and `messages` count what was sent, headers included, HELLO left out.

    `crosses_processes` says whether tensors must lie in the host's memory to be sent.
    """

    crosses_processes: bool = True

    def __init__(self, identity: LinkIdentity) -> None:
        self.identity = identity
        self.bytes_sent = 0
        self.messages = 0

    def send(self, message: Message) -> None:
        """Send `message`; its tensors must not change afterwards.

        May wait while the receiver is behind. Raises MessageError if the message does not belong on this
        link, LinkError if the link is lost or full for too long, Stopped if the run stops meanwhile.
        """
        _check_origin(message, self.identity)
        self._send(message)
        self.bytes_sent += message.nbytes
        self.messages += 1

    @abstractmethod
    def _send(self, message: Message) -> None:
        """Hand over a message that belongs on this link."""

    @abstractmethod
    def close(self) -> None:
        """Give the link up, once what was sent is on its way; a second call does nothing."""


class Receiver(ABC):
    """The receiving end. `bytes_received` and `messages` count as the sender does."""

    def __init__(self, identity: LinkIdentity) -> None:
        self.identity = identity
        self.bytes_received = 0
        self.messages = 0

    def receive(self, minibatch: int, phase: Phase) -> Message:
        """The next message, which must be the one of `minibatch` and `phase`; waits for it.

        Raises MessageError if anything else came, LinkError if messages were lost or none came in time,
        Stopped if the run stops meanwhile.
        """
        message = self._receive(minibatch)
        _check_origin(message, self.identity)
        if (message.minibatch, message.phase) != (minibatch, phase):
            got = f"got {message} of phase {message.phase}"
            raise MessageError(f"{self.identity}: {got}, expected minibatch {minibatch} of phase {phase}")
        self.bytes_received += message.nbytes
        self.messages += 1
        return message

    @abstractmethod
    def ready(self) -> bool:
        """Whether `receive` would return (or raise) without waiting."""

    @abstractmethod
    def _receive(self, minibatch: int) -> Message:
        """The next message; `minibatch` is the one that is due, for the text of errors."""

    @abstractmethod
    def close(self) -> None:
        """Give the link up; a second call does nothing."""


def wait_for(
    poll: Callable[[float], bool],
    *,
    timeout: float,
    stopped: Callable[[], bool],
    describe: Callable[[], str],
) -> None:
    """Return once `poll(seconds)`, which waits at most that long, is true.

    Asks `stopped()` at least every `POLL_SLICE` seconds. `describe()` says what is waited for, in errors.
    Raises Stopped if it turns true and LinkError after `timeout` seconds.
    """
    start = time.monotonic()
    left = timeout
    while not poll(max(0.0, min(left, POLL_SLICE))):
        if stopped():
            raise Stopped(f"{describe()}: the run is being stopped")
        waited = time.monotonic() - start
        left = timeout - waited
        if left <= 0:
            raise LinkError(f"{describe()}: gave up after {waited:.1f} s (limit {timeout:g} s)")


def _check_origin(message: Message, identity: LinkIdentity) -> None:
    due = (identity.kind, identity.sender, identity.layer)
    if (message.kind, message.sender, message.layer) != due:
        kind = identity.kind.name.lower()
        expected = f"expected {kind} from stage {identity.sender}, layer {identity.layer}"
        raise MessageError(f"{identity}: got {message}, {expected}")
