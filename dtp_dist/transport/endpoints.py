"""The transports between processes by the scheme of an endpoint. Adding one is a file and its line here."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from dtp_dist.messages import LinkIdentity
from dtp_dist.transport.base import LinkOptions, Receiver, Sender
from dtp_dist.transport.shared import SharedReceiver, SharedSender
from dtp_dist.transport.zeromq import ZmqReceiver, ZmqSender

__all__ = ["open_receiver", "open_sender"]

Configure = Callable[[zmq.Socket[bytes]], None]


def open_receiver(
    endpoint: str,
    identity: LinkIdentity,
    context: zmq.Context[zmq.Socket[bytes]],
    options: LinkOptions,
    configure: Configure | None = None,
) -> Receiver:
    """Return the receiving end of a link, bound to ``shm://PATH``, ``ipc://PATH`` or ``tcp://ADDRESS:PORT``.

    ``context`` and ``configure`` (keys) are ZeroMQ's. Raises LinkError if it can't be bound.
    """
    if endpoint.startswith("shm://"):
        return SharedReceiver(endpoint, identity, **options)
    return ZmqReceiver(context, endpoint, identity, configure=configure, **options)


def open_sender(
    endpoint: str,
    identity: LinkIdentity,
    context: zmq.Context[zmq.Socket[bytes]],
    options: LinkOptions,
    configure: Configure | None = None,
) -> Sender:
    """Return the sending end of the link whose receiver is bound to ``endpoint``, not yet connected."""
    if endpoint.startswith("shm://"):
        return SharedSender(endpoint, identity, **options)
    return ZmqSender(context, endpoint, identity, configure=configure, **options)
