"""What the tests of links by process groups share: two links, their limits, and a large message."""

from __future__ import annotations

from typing import Any

import torch

from dtp_dist.messages import LinkIdentity, Message, MessageKind
from dtp_dist.schedule import Phase
from dtp_dist.transport import SHARED_MEMORY

UP = LinkIdentity(bytes(16), 0, MessageKind.ACTIVATION, sender=0, layer=4)
DOWN = LinkIdentity(bytes(16), 0, MessageKind.TARGET, sender=1, layer=4)
LIMITS: dict[str, Any] = {"timeout": 60.0, "stopped": lambda: False, "high_water": 4, "max_bytes": 2 << 20}
ON_ONE_HOST = ["shm", "ipc"] if SHARED_MEMORY else ["ipc"]
START_TIMEOUT = 120.0


def message(identity: LinkIdentity, minibatch: int, rows: int = 64) -> Message:
    """Up to a megabyte of bfloat16 or float32, filled with its own minibatch, not contiguous."""
    dtype = torch.float32 if identity.kind is MessageKind.ACTIVATION else torch.bfloat16
    h = torch.full((4096, rows), float(minibatch), dtype=dtype).t()
    labels = torch.arange(minibatch, minibatch + rows)
    payloads = (h, labels) if identity.kind is MessageKind.ACTIVATION else (h,)
    return Message(identity.kind, Phase.BOTH, identity.sender, identity.layer, minibatch, payloads)
