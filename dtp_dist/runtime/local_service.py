"""What the parent can ask of a stage's process: link up, run, save, load; tensors stay among the stages."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.checkpoint import FileEntry
from dtp_dist.config import Config, parse_config, shapes_of
from dtp_dist.errors import NonFiniteError
from dtp_dist.messages import HEADER_BYTES, LinkIdentity, MessageKind
from dtp_dist.runtime.faults import faults_from_environment
from dtp_dist.runtime.feed import load_batches
from dtp_dist.runtime.kernel import die_with_parent
from dtp_dist.runtime.last_seen import LastSeen
from dtp_dist.runtime.layout import DTYPES
from dtp_dist.runtime.local_stage import StageSetup
from dtp_dist.runtime.segment import Segment, Span, StageSummary
from dtp_dist.runtime.supervision import Status
from dtp_dist.runtime.worker import StageWorker, set_threads
from dtp_dist.transport import LinkOptions, ZmqReceiver, ZmqSender

LABEL_BYTES = 8


class StageService:
    """A stage in a process of its own; every public method is a call of the parent's."""

    def __init__(self, setup: StageSetup, send: Callable[[str, Any], None]) -> None:
        self._setup = setup
        self._config = parse_config(setup.config)
        set_threads(self._config)
        batches = load_batches(self._config) if setup.index == 0 else None
        self._worker = StageWorker(
            self._config,
            setup.index,
            batches,
            lambda report: send("report", report),
            faults_from_environment(setup.generation),
        )
        self._worker.timeline.tell = LastSeen(setup.board).write
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._options = LinkOptions(
            timeout=self._config.parallel.action_timeout * self._worker.layout.stages,
            stopped=lambda: False,
            high_water=max(2, self._worker.layout.in_flight),
            max_bytes=largest_message(self._config),
        )

    def status(self) -> Status:
        """Return a sign of life."""
        state, _, _, since = self._worker.timeline.now
        return Status(state, self._worker.where(), self._worker.timeline.clock() - since)

    def where(self) -> str:
        """Return stage, action, layer and minibatch in words."""
        return self._worker.where()

    def bind(self) -> dict[MessageKind, str]:
        """Bind this stage's receiving ends and return their endpoints by kind."""
        index, links = self._setup.index, self._worker.links
        found = {}
        if index > 0:
            receiver = self._receiver(MessageKind.ACTIVATION, index - 1)
            links.activation_in, found[MessageKind.ACTIVATION] = receiver, receiver.endpoint
        if index < self._worker.layout.stages - 1:
            receiver = self._receiver(MessageKind.TARGET, index + 1)
            links.target_in, found[MessageKind.TARGET] = receiver, receiver.endpoint
        return found

    def connect(self, above: str | None, below: str | None) -> None:
        """Connect to the neighbours' endpoints and shake hands both ways.

        Raises:
            LinkError: a neighbour does not answer in time.
        """
        index, links = self._setup.index, self._worker.links
        limit = self._config.parallel.start_timeout
        senders = []
        if above is not None:
            links.activation_out = self._sender(MessageKind.ACTIVATION, index, above)
            senders.append(links.activation_out)
        if below is not None:
            links.target_out = self._sender(MessageKind.TARGET, index, below)
            senders.append(links.target_out)
        for sender in senders:
            sender.connect(limit)
        for receiver in (links.activation_in, links.target_in):
            if isinstance(receiver, ZmqReceiver):
                receiver.accept(limit)

    def seal(self) -> None:
        """Die at once with the parent from now on: there are no socket files left to remove."""
        die_with_parent(self._setup.parent, signal.SIGKILL)

    def run(self, segment: Segment) -> StageSummary:
        """Run this stage's part of a segment."""
        executor = self._worker.begin(segment)
        try:
            while not executor.finished:
                executor.step()
        except NonFiniteError as error:
            raise self._worker.locate(error) from error
        return self._worker.finish()

    def save(self, directory: str) -> list[FileEntry]:
        """Write this stage's layers."""
        return self._worker.save(directory)

    def load(self, directory: str) -> None:
        """Read this stage's layers."""
        self._worker.load(directory)

    def spans(self) -> list[Span]:
        """Return the last actions and waits."""
        return self._worker.spans()

    def _identity(self, kind: MessageKind, sender: int) -> LinkIdentity:
        layers = self._worker.layout.layers(sender)
        layer = layers[-1] if kind is MessageKind.ACTIVATION else layers[0] - 1
        return LinkIdentity(self._setup.run_id, self._setup.generation, kind, sender, layer)

    def _receiver(self, kind: MessageKind, sender: int) -> ZmqReceiver:
        name = f"{kind.name.lower()}-{sender}"
        endpoint = f"ipc://{Path(self._setup.sockets) / name}"
        return ZmqReceiver(self._context, endpoint, self._identity(kind, sender), **self._options)

    def _sender(self, kind: MessageKind, sender: int, endpoint: str) -> ZmqSender:
        return ZmqSender(self._context, endpoint, self._identity(kind, sender), **self._options)


def largest_message(config: Config) -> int:
    """Return the bytes of the largest message that any link of the run may carry."""
    examples = max(config.data.batch_size, config.data.eval_batch_size)
    widest = max(_numel(shape) for shape in shapes_of(config))
    return HEADER_BYTES + examples * (widest * DTYPES[config.train.dtype].itemsize + LABEL_BYTES)


def _numel(shape: Shape) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
