"""Links between two processes of one host: latency and bandwidth of shm, ipc, tcp and tcp with CURVE.

    python benchmarks/transport.py

Latency is half a round trip of an activation one way and a displacement of the same size back, the median
of many; bandwidth is that of activations streamed one way, the best of the rounds. Both go through the
package's own senders and receivers, so encoding, checking and copying into fresh tensors are in them.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
import zmq

from dtp_dist.schedule import Phase
from dtp_dist.transport.base import LinkOptions
from dtp_dist.transport.curve import Gatekeeper, client_security, new_key_pair, server_security
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind
from dtp_dist.transport.table import TRANSPORTS

CURVE = "+CURVE"
NAMES = (*(name for name, each in TRANSPORTS.items() if each.available), f"tcp{CURVE}")
SIZES = (96_000, 240_000, 1_000_000)
EXAMPLES = 100
PINGS, ROUNDS = 300, 8
STREAMED_BYTES = 24_000_000
KINDS = (MessageKind.ACTIVATION, MessageKind.TARGET)


class Stage:
    """One of two stages, linked both ways; `number` 0 sends activations, 1 sends displacements."""

    def __init__(self, number: int, transport: str, directory: str, driver: Connection) -> None:
        self.number = number
        context: Any = zmq.Context(io_threads=1)
        self.context, self.gate = context, Gatekeeper(context)
        self.gate.start()
        out, back = (LinkIdentity(bytes(16), 0, kind, KINDS.index(kind), 1) for kind in KINDS)
        if number == 1:
            out, back = back, out
        keys, secure = new_key_pair(), transport.endswith(CURVE)
        record = TRANSPORTS[transport.removesuffix(CURVE)]
        options = LinkOptions(timeout=30.0, stopped=lambda: False, high_water=4, max_bytes=2_000_000)
        security = server_security(keys, str(back)) if secure else None
        endpoint = record.endpoint(directory if record.in_folder else "127.0.0.1", f"{transport}-{number}")
        self.receiver = record.receiver(endpoint, back, context, options, security)
        driver.send((self.receiver.endpoint, keys.public))
        peer, peer_public = driver.recv()
        self.gate.allow(str(back), peer_public)
        security = client_security(keys, peer_public) if secure else None
        self.sender = record.sender(peer, out, context, options, security)
        self.sender.connect()
        self.receiver.accept()

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        self.gate.close()
        self.context.term()

    def send(self, h: torch.Tensor, minibatch: int) -> None:
        labels = torch.zeros(len(h), dtype=torch.int64)
        kind = self.sender.identity.kind
        payloads = (h, labels) if kind is MessageKind.ACTIVATION else (h,)
        self.sender.send(Message(kind, Phase.BOTH, self.number, 1, minibatch, payloads))

    def receive(self, minibatch: int) -> None:
        self.receiver.receive(minibatch, Phase.BOTH)

    def ping(self, size: int) -> float:
        """Median half round trip in seconds."""
        h, halves = torch.randn(EXAMPLES, size // (4 * EXAMPLES)), []
        for k in range(PINGS):
            start = time.perf_counter()
            if self.number == 0:
                self.send(h, k)
                self.receive(k)
            else:
                self.receive(k)
                self.send(h, k)
            halves.append((time.perf_counter() - start) / 2)
        return statistics.median(halves)

    def stream(self, size: int) -> float:
        """Bytes per second from stage 0 to stage 1, the best round; each ends with an answer."""
        h, best = torch.randn(EXAMPLES, size // (4 * EXAMPLES)), 0.0
        count = STREAMED_BYTES // size
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for k in range(count):
                if self.number == 0:
                    self.send(h, k)
                else:
                    self.receive(k)
            if self.number == 0:
                self.receive(0)
            else:
                self.send(h[:1, :1], 0)
            best = max(best, count * h.nbytes / (time.perf_counter() - start))
        return best


def run(number: int, directory: str, driver: Connection) -> None:
    """For each transport: link up, measure every size, and give the numbers to the driver."""
    torch.set_num_threads(1)
    for transport in NAMES:
        stage = Stage(number, transport, directory, driver)
        driver.send([(stage.ping(size), stage.stream(size)) for size in SIZES])
        stage.close()


def measure() -> Iterator[list[tuple[float, float]]]:
    """Latency and bandwidth of every size, as stage 0 saw them, for one transport after the other."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        drivers, stages = [], []
        for number in range(2):
            near, far = spawn.Pipe()
            stages.append(spawn.Process(target=run, args=(number, directory, far), daemon=True))
            stages[number].start()
            drivers.append(near)
            far.close()  # so that a stage that dies is an EOFError here
        for _ in NAMES:
            introductions = [driver.recv() for driver in drivers]
            for driver, introduction in zip(drivers, reversed(introductions), strict=True):
                driver.send(introduction)
            results, _ = [driver.recv() for driver in drivers]
            yield results
        for stage in stages:
            stage.join(10)


def main() -> None:
    """Measure and print."""
    print(
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, "
        f"pyzmq {zmq.__version__}, ZeroMQ {zmq.zmq_version()}"
    )
    print(f"{'':>10} | " + " | ".join(f"{f'{size // 1000} KB':^19}" for size in SIZES))
    print(f"{'':>10} | " + " | ".join(f"{'ms one way':>10} {'GB/s':>8}" for _ in SIZES))
    for transport, results in zip(NAMES, measure(), strict=True):
        cells = (f"{seconds * 1e3:10.3f} {rate / 1e9:8.2f}" for seconds, rate in results)
        print(f"{transport:>10} | " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
