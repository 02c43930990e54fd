"""What a message between two stages of this host costs, measured between two processes.

This process sends an activation, the other sends a target of the same size back at once, as an exact step of
two stages does; between two of them this process computes, so that the other waits and caches cool down.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from statistics import quantiles

import torch
import zmq

from dtp_dist.config import Config, shapes_of
from dtp_dist.errors import LinkError
from dtp_dist.planning.predict import LinkModel
from dtp_dist.runtime.stage.service import SPIN_SECONDS, largest_message
from dtp_dist.schedule import Phase
from dtp_dist.system.short_paths import LINK_BYTES, short_place
from dtp_dist.text.numbers import short
from dtp_dist.transport.base import LinkOptions, Receiver, Sender
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind
from dtp_dist.transport.table import TRANSPORTS, chosen_transport

REPEATS, TIMEOUT, SMALL, COMPUTED = 60, 20.0, 1, 512
LOOPBACK = "127.0.0.1"
KINDS = (MessageKind.ACTIVATION, MessageKind.TARGET)


@dataclass(frozen=True)
class _Setting:
    """What both processes are told: plain data."""

    transport: str
    place: str
    max_bytes: int
    spin: float
    examples: int
    units: tuple[int, ...]


def measured_link(config: Config) -> LinkModel:
    """Return what messages of this configuration cost between processes of this host, over its transport.

    TCP is measured without its encryption, which costs more.

    Raises:
        LinkError: the links do not come up, or fail.
    """
    widest = max(prod(shape) for shape in shapes_of(config)[1:])
    cores = os.cpu_count() or 1
    transport = chosen_transport(config.parallel.transport)
    with tempfile.TemporaryDirectory(prefix="dtp-dist-", dir=short_place(LINK_BYTES)) as folder:
        setting = _Setting(
            transport=transport.scheme,
            place=folder if transport.in_folder else LOOPBACK,
            max_bytes=largest_message(config),
            spin=SPIN_SECONDS if 2 * config.parallel.threads <= cores else 0.0,
            examples=config.data.batch_size,
            units=(SMALL, max(widest, SMALL + 1)),
        )
        (small, small_way), (large, large_way) = _measure(setting)
    size = 4 * setting.examples * (setting.units[1] - SMALL)
    copying = size / max(large - small, 1e-9)
    latency = max(0.0, small_way - 2 * small)
    bandwidth = size / max(large_way - 2 * large - latency, 1e-9)
    return LinkModel(latency, bandwidth, overhead=small, copying=copying)


def _measure(setting: _Setting) -> list[tuple[float, float]]:
    """Return for each size the seconds of a send, and of half a round trip."""
    # a forked process need not import torch, which takes longer than all the rest
    linux = sys.platform == "linux"
    processes = multiprocessing.get_context("fork") if linux else multiprocessing.get_context("spawn")
    near, far = processes.Pipe()
    other = processes.Process(target=_answer, args=(far, setting), name="link cost", daemon=True)
    other.start()
    far.close()
    try:
        with _linked(setting, 0, near) as (sender, receiver):
            return [_ping(sender, receiver, setting.examples, units) for units in setting.units]
    finally:
        near.close()
        other.join(1.0)
        other.kill()
        other.join()


def _answer(driver: Connection, setting: _Setting) -> None:
    """Answer every message; what fails here is noticed at the other end."""
    torch.set_num_threads(1)
    with _linked(setting, 1, driver) as (sender, receiver):
        for units in setting.units:
            h = torch.zeros(setting.examples, units)
            for k in range(REPEATS):
                receiver.receive(k, Phase.BOTH)
                _send(sender, [h], k)


def _ping(sender: Sender, receiver: Receiver, examples: int, units: int) -> tuple[float, float]:
    h, labels = torch.zeros(examples, units), torch.zeros(examples, dtype=torch.int64)
    busy, sends, ways = torch.zeros(COMPUTED, COMPUTED), [], []
    for k in range(REPEATS):
        busy @ busy
        start = time.perf_counter()
        _send(sender, [h, labels], k)
        sends.append(time.perf_counter() - start)
        receiver.receive(k, Phase.BOTH)
        ways.append((time.perf_counter() - start) / 2)
    return _quick(sends), _quick(ways)


def _quick(seconds: Sequence[float]) -> float:
    """Return the lower quartile: what else runs on the machine makes a message late, none early."""
    return quantiles(seconds, n=4)[0]


def _send(sender: Sender, payloads: Sequence[torch.Tensor], k: int) -> None:
    identity = sender.identity
    sender.send(Message(identity.kind, Phase.BOTH, identity.sender, identity.layer, k, tuple(payloads)))


@contextmanager
def _linked(setting: _Setting, number: int, peer: Connection) -> Iterator[tuple[Sender, Receiver]]:
    """Open this process's ends: process 0 sends activations, process 1 targets."""
    out, back = (LinkIdentity(bytes(16), 0, kind, sender, 1) for sender, kind in enumerate(KINDS))
    if number == 1:
        out, back = back, out
    options = LinkOptions(
        timeout=TIMEOUT, stopped=lambda: False, high_water=2, max_bytes=setting.max_bytes, spin=setting.spin
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    with ExitStack() as stack:
        stack.callback(context.term)
        transport = TRANSPORTS[setting.transport]
        endpoint = transport.endpoint(setting.place, str(number))
        receiver = stack.enter_context(closing(transport.receiver(endpoint, back, context, options, None)))
        peer.send(receiver.endpoint)
        if not peer.poll(TIMEOUT):
            raise LinkError(f"the process that answers messages did not start within {short(TIMEOUT)} s")
        sender = stack.enter_context(closing(transport.sender(peer.recv(), out, context, options, None)))
        sender.connect()
        receiver.accept()
        yield sender, receiver
