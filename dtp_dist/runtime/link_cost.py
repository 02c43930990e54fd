"""What a message between two stages of this host costs, measured on a real pair of links.

Both ends are in this process: first one after the other, which tells what sending and receiving take, then
in two threads that answer each other, which tells what a message takes besides.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from statistics import median

import torch
import zmq

from dtp_dist.config import Config, shapes_of
from dtp_dist.messages import LinkIdentity, Message, MessageKind
from dtp_dist.planning.predict import LinkModel
from dtp_dist.runtime.service import largest_message
from dtp_dist.runtime.supervised import host_endpoint
from dtp_dist.schedule import Phase
from dtp_dist.transport import LinkOptions, Receiver, Sender, open_receiver, open_sender

REPEATS, TIMEOUT, SMALL = 60, 10.0, 1


def measured_link(config: Config) -> LinkModel:
    """Return what messages of this configuration cost between processes of this host, over its transport.

    TCP is measured without its encryption, which costs more.

    Raises:
        LinkError: the links do not come up, or fail.
    """
    units = max(_numel(shape) for shape in shapes_of(config)[1:])
    with _links(config) as ends:
        (small, small_way), (large, large_way) = (
            _measure(ends, torch.zeros(config.data.batch_size, count)) for count in (SMALL, units)
        )
    size = 4 * config.data.batch_size * max(1, units - SMALL)
    copying = size / max(large - small, 1e-9)
    latency = max(0.0, small_way - 2 * small)
    bandwidth = size / max(large_way - 2 * large - latency, 1e-9)
    return LinkModel(latency, bandwidth, overhead=small, copying=copying)


Ends = tuple[tuple[Sender, Receiver], tuple[Sender, Receiver]]


@contextmanager
def _links(config: Config) -> Iterator[Ends]:
    """Open two links, one up and one down."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    options = LinkOptions(
        timeout=TIMEOUT, stopped=lambda: False, high_water=2, max_bytes=largest_message(config)
    )
    with tempfile.TemporaryDirectory(prefix="dtp-dist-") as folder, ExitStack() as stack:
        stack.callback(context.term)
        found = []
        for sender, kind in enumerate((MessageKind.ACTIVATION, MessageKind.TARGET)):
            identity = LinkIdentity(bytes(16), 0, kind, sender, 1)
            endpoint = host_endpoint(config.parallel.transport, folder)
            endpoint += ":0" if endpoint.startswith("tcp") else f"/{sender}"
            receiver = stack.enter_context(closing(open_receiver(endpoint, identity, context, options)))
            near = stack.enter_context(closing(open_sender(receiver.endpoint, identity, context, options)))
            near.connect()
            receiver.accept()
            found.append((near, receiver))
        up, down = found
        yield up, down


def _measure(ends: Ends, h: torch.Tensor) -> tuple[float, float]:
    """Return the median seconds of sending or receiving, and of a message's whole way, for one tensor."""
    (up, arrived), (down, back) = ends
    labels = torch.zeros(len(h), dtype=torch.int64)
    activation, target = (MessageKind.ACTIVATION, (h, labels)), (MessageKind.TARGET, (h,))
    own, ways = [], []

    def send(sender: Sender, what: tuple[MessageKind, tuple[torch.Tensor, ...]], k: int) -> None:
        kind, payloads = what
        sender.send(Message(kind, Phase.BOTH, sender.identity.sender, 1, k, payloads))

    def answer() -> None:
        for k in range(REPEATS):
            arrived.receive(k, Phase.BOTH)
            send(down, target, k)

    for k in range(REPEATS):
        start = time.perf_counter()
        send(up, activation, k)
        sent = time.perf_counter()
        while not arrived.ready():
            time.sleep(0)
        there = time.perf_counter()
        arrived.receive(k, Phase.BOTH)
        own.append((time.perf_counter() - there + sent - start) / 2)
    other = threading.Thread(target=answer, name="link cost", daemon=True)
    other.start()
    for k in range(REPEATS):
        start = time.perf_counter()
        send(up, activation, k)
        back.receive(k, Phase.BOTH)
        ways.append((time.perf_counter() - start) / 2)
    other.join(TIMEOUT)
    return median(own), median(ways)


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
