"""A link inside one thread: all stages take turns, so nothing can be waited for."""

from collections import deque

from dtp_dist.errors import LinkError
from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.messages import LinkIdentity, Message

__all__ = ["InProcessReceiver", "InProcessSender", "inprocess_pair"]


def inprocess_pair(
    identity: LinkIdentity, *, capacity: int | None = None
) -> tuple["InProcessSender", "InProcessReceiver"]:
    """Both ends of a link that holds at most `capacity` messages (None: any number)."""
    queue: deque[Message] = deque()
    return InProcessSender(identity, queue, capacity), InProcessReceiver(identity, queue)


class InProcessSender(Sender):
    """The sending end; the tensors pass through as they are, not copied."""

    crosses_processes = False

    def __init__(self, identity: LinkIdentity, queue: deque[Message], capacity: int | None) -> None:
        super().__init__(identity)
        self._queue = queue
        self._capacity = capacity

    def _send(self, message: Message) -> None:
        if self._capacity is not None and len(self._queue) >= self._capacity:
            raise LinkError(
                f"{self.identity}: {message} would wait for ever, {len(self._queue)} message(s) are unread"
            )
        self._queue.append(message)

    def _lose(self) -> None:
        """Nothing is counted: messages within one process have no numbers."""

    def close(self) -> None:
        """Leave what was sent for the receiver."""


class InProcessReceiver(Receiver):
    """The receiving end of a link in one thread."""

    def __init__(self, identity: LinkIdentity, queue: deque[Message]) -> None:
        super().__init__(identity)
        self._queue = queue

    def ready(self) -> bool:
        """Whether a message is there."""
        return bool(self._queue)

    def _receive(self, minibatch: int) -> Message:
        if not self._queue:
            raise LinkError(f"{self.identity}: minibatch {minibatch} would be waited for for ever: none sent")
        return self._queue.popleft()

    def close(self) -> None:
        """Drop what was not received."""
        self._queue.clear()
