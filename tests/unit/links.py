"""What the tests of links by process groups share: two links, their limits, and a large message."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtp_dist.schedule import Phase
from dtp_dist.transport.base import LinkOptions, Receiver, Sender
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind
from dtp_dist.transport.table import TRANSPORTS
from dtp_dist.transport.wire import encode

UP = LinkIdentity(bytes(16), 0, MessageKind.ACTIVATION, sender=0, layer=4)
DOWN = LinkIdentity(bytes(16), 0, MessageKind.TARGET, sender=1, layer=4)
LIMITS: dict[str, Any] = {"timeout": 60.0, "stopped": lambda: False, "high_water": 4, "max_bytes": 2 << 20}
HERE = [name for name, each in TRANSPORTS.items() if each.available]
ON_ONE_HOST = [name for name in HERE if TRANSPORTS[name].in_folder]
START_TIMEOUT = 120.0


def activation_message(h: Tensor, labels: Tensor, *, phase: Phase, **where: int) -> Message:
    """``where``: sender, layer and minibatch."""
    return Message(MessageKind.ACTIVATION, phase, payloads=(h, labels), **where)


def target_message(displacement: Tensor, *, phase: Phase, **where: int) -> Message:
    return Message(MessageKind.TARGET, phase, payloads=(displacement,), **where)


def open_receiver(endpoint: str, identity: LinkIdentity, context: Any, options: LinkOptions) -> Receiver:
    transport = TRANSPORTS[endpoint.partition("://")[0]]
    return transport.receiver(endpoint, identity, context, options, None)


def open_sender(endpoint: str, identity: LinkIdentity, context: Any, options: LinkOptions) -> Sender:
    transport = TRANSPORTS[endpoint.partition("://")[0]]
    return transport.sender(endpoint, identity, context, options, None)


def memory(size: int, *, sealed: bool = True) -> int:
    """Return the descriptor of memory as a sender through shared memory brings it."""
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if sealed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


def stranger(path: str | Path, packet: bytes, descriptors: list[int]) -> socket.socket:
    """Connect to the receiver of shared memory as somebody who is not the sender, and send one packet."""
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.connect(str(path))
    socket.send_fds(mine, [packet], descriptors)
    return mine


def hello(identity: LinkIdentity) -> bytes:
    return b"".join(encode(Message.hello(identity), identity, 0))


def message(identity: LinkIdentity, minibatch: int, rows: int = 64) -> Message:
    """Up to a megabyte of bfloat16 or float32, filled with its own minibatch, not contiguous."""
    dtype = torch.float32 if identity.kind is MessageKind.ACTIVATION else torch.bfloat16
    h = torch.full((4096, rows), float(minibatch), dtype=dtype).t()
    labels = torch.arange(minibatch, minibatch + rows)
    payloads = (h, labels) if identity.kind is MessageKind.ACTIVATION else (h,)
    return Message(identity.kind, Phase.BOTH, identity.sender, identity.layer, minibatch, payloads)
