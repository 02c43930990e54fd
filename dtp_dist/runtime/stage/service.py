"""What a driver can ask of a stage in a process: link up, run, save, load; tensors stay among the stages."""

from __future__ import annotations

import gc
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import zmq

from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.state import Tensors
from dtp_dist.config import Config, most_label_bytes, parse_config, shapes_of
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import NonFiniteError
from dtp_dist.runtime.devices import device_name, device_of
from dtp_dist.runtime.layout import DTYPES
from dtp_dist.runtime.segment import Segment, StageSummary
from dtp_dist.runtime.stage.faults import faults_from_environment
from dtp_dist.runtime.stage.handshake import Address, Failure, LocalSetup, StageSetup
from dtp_dist.runtime.stage.link_encoding import probes_from
from dtp_dist.runtime.stage.worker import StageWorker, set_threads
from dtp_dist.runtime.status_board import StatusBoard
from dtp_dist.runtime.supervisor import Status
from dtp_dist.schedule import Phase, Span
from dtp_dist.storage.checkpoint import layer_file, pack_layer, read_layer, unpack_layer
from dtp_dist.storage.files import write_file
from dtp_dist.system.process import signal_with_parent
from dtp_dist.transport.base import LinkOptions, Receiver, Sender
from dtp_dist.transport.collective import Groups, Rendezvous
from dtp_dist.transport.curve import Gatekeeper, client_security, new_key_pair, server_security
from dtp_dist.transport.messages import HEADER_BYTES, LinkIdentity, MessageKind
from dtp_dist.transport.table import TRANSPORTS

SPIN_SECONDS = 0.02


class StageService:
    """A stage in a process of its own; every public method is a call of the driver's."""

    def __init__(self, setup: StageSetup, send: Callable[[str, Any], None]) -> None:
        self._setup, self._send = setup, send
        self._kept: dict[str, bytes] = {}
        self._config = parse_config(setup.config)
        set_threads(self._config)
        device = device_of(self._config, setup.index)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # what names no device, NCCL among it, keeps off the other stages'
        batches = load_batches(self._config) if setup.index == 0 else None
        self.worker = StageWorker(
            self._config,
            setup.index,
            batches,
            lambda report: send("report", report),
            faults_from_environment(setup.generation),
        )
        gc.collect()
        gc.freeze()  # what is here by now stays; collections need not look at it again
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        assert setup.place is not None, "it has been told where to bind"
        self._place, self._transport = setup.place, TRANSPORTS[setup.place.transport]
        self._keys = new_key_pair() if self._transport.encrypted else None
        self._gate = Gatekeeper(self._context) if self._keys is not None else None
        if self._gate is not None:
            self._gate.start()
        self._options = LinkOptions(
            timeout=self._config.parallel.action_timeout * self.worker.layout.stages,
            stopped=lambda: False,
            high_water=max(2, self.worker.layout.in_flight),
            max_bytes=largest_message(self._config),
            spin=SPIN_SECONDS if self._may_spin() else 0.0,
        )

    def _may_spin(self) -> bool:
        """Whether every stage has cores of its own, and the transport's threads need none or D = 1."""
        layout = self.worker.layout
        cores = os.cpu_count() or 1
        alone = layout.in_flight == 1 or self._transport.needs_no_thread
        return alone and layout.stages * self._config.parallel.threads <= cores

    def status(self) -> Status:
        """Return a sign of life."""
        timeline = self.worker.timeline
        return Status(timeline.state, self.worker.where(), timeline.now[2])

    def where(self) -> str:
        """Return stage, action, layer and minibatch in words."""
        return self.worker.where()

    def bind(self) -> Address:
        """Bind this stage's receiving ends and return where they are."""
        index, links = self._setup.index, self.worker.links
        found: dict[int, str] = {}
        if index > 0:
            receiver = self._receiver(MessageKind.ACTIVATION, index - 1)
            links.activation_in, found[MessageKind.ACTIVATION] = receiver, receiver.endpoint
        if index < self.worker.layout.stages - 1:
            receiver = self._receiver(MessageKind.TARGET, index + 1)
            links.target_in, found[MessageKind.TARGET] = receiver, receiver.endpoint
        public_key = None if self._keys is None else self._keys.public
        return Address(found, public_key, *self._gpu_and_rendezvous(), device_name(self.worker.device))

    def _gpu_and_rendezvous(self) -> tuple[str | None, str | None]:
        if self.worker.device.type != "cuda":
            return None, None
        gpu = str(torch.cuda.get_device_properties(self.worker.device).uuid)
        if self._setup.index > 0:
            return gpu, None
        self._rendezvous = Rendezvous(self._place.host, self._config.parallel.start_timeout)
        return gpu, self._rendezvous.place

    def connect(self, above: Address | None, below: Address | None, rendezvous: str | None = None) -> None:
        """Connect to the neighbours and shake hands both ways; payloads go by process groups from then on.

        They do so if all stages are told where those meet (``rendezvous``).

        Raises:
            LinkError: a neighbour does not answer in time, or is not who it should be.
        """
        links, limit = self.worker.links, self._config.parallel.start_timeout
        senders = []
        if above is not None:
            self._allow(MessageKind.TARGET, self._setup.index + 1, above)
            links.activation_out = self._sender(MessageKind.ACTIVATION, above)
            senders.append(links.activation_out)
        if below is not None:
            self._allow(MessageKind.ACTIVATION, self._setup.index - 1, below)
            links.target_out = self._sender(MessageKind.TARGET, below)
            senders.append(links.target_out)
        for sender in senders:
            sender.connect(limit)
        for receiver in (links.activation_in, links.target_in):
            if receiver is not None:
                receiver.accept(limit)
        if rendezvous is not None:
            self._join_groups(rendezvous)

    def _join_groups(self, rendezvous: str) -> None:
        setup, links = self._setup, self.worker.links
        groups = Groups(
            rendezvous,
            stage=setup.index,
            stages=self.worker.layout.stages,
            device=self.worker.device,
            name=f"{setup.run_id.hex()}/{setup.generation}",
            start_timeout=self._config.parallel.start_timeout,
            timeout=self._options["timeout"],
            high_water=self._options["high_water"],
        )
        for end in links.ends():
            end.carrier = groups.carrier(end.identity)

    def run(self, segment: Segment) -> StageSummary:
        """Run this stage's part of a segment."""
        executor = self.worker.begin(segment)
        try:
            while not executor.finished:
                executor.step()
        except NonFiniteError as error:
            raise self.worker.locate(error) from error
        return self.worker.finish()

    def save(self, directory: str, through_driver: bool) -> None:
        """Copy this stage's layers and write them meanwhile; ``saved`` is said when they are on the disk.

        With ``through_driver`` their bytes are kept for ``fetch``: this node can't write to the run's folder.
        """
        writer = threading.Thread(
            target=self._write,
            args=(Path(directory), self.worker.states(), through_driver),
            name="checkpoint",
        )
        writer.start()

    def _write(self, directory: Path, states: Mapping[int, Tensors], through_driver: bool) -> None:
        entries = []
        try:
            for index, state in states.items():
                entry, data = pack_layer(index, state)
                if through_driver:
                    self._kept[entry.name] = data
                else:
                    write_file(directory / entry.name, data)
                entries.append(entry)
        except Exception as error:
            self._send(
                "failed", Failure(type(error).__name__, str(error), traceback.format_exc(), self.where())
            )
            return
        self._send("saved", (str(directory), entries))

    def fetch(self, name: str) -> bytes:
        """Return the bytes of a file that was kept for the driver, and keep them no longer."""
        return self._kept.pop(name)

    def load(self, directory: str, files: Mapping[int, bytes] | None) -> None:
        """Read this stage's layers, from ``files`` by their numbers where the driver sends them along."""
        layers = self.worker.layout.layers(self._setup.index)
        if files is None:
            states = {index: read_layer(Path(directory), index) for index in layers}
        else:
            states = {index: unpack_layer(files[index], layer_file(index)) for index in layers}
        self.worker.load(states)

    def can_write(self, directory: str, token: str) -> bool:
        """Return whether this process sees the driver's ``token`` in ``directory`` and may write there."""
        return (Path(directory) / token).exists() and os.access(directory, os.W_OK)

    def spans(self) -> list[Span]:
        """Return the last actions and waits."""
        return self.worker.spans()

    def examples(self, split: str, count: int) -> bytes | None:
        """Return the first examples of a split, packed; None from all but the first stage."""
        return None if self._setup.index else self.worker.examples(split, count).packed()

    def _identity(self, kind: MessageKind, sender: int) -> LinkIdentity:
        layers = self.worker.layout.layers(sender)
        layer = layers[-1] if kind is MessageKind.ACTIVATION else layers[0] - 1
        return LinkIdentity(self._setup.run_id, self._setup.generation, kind, sender, layer)

    def _receiver(self, kind: MessageKind, sender: int) -> Receiver:
        identity, place = self._identity(kind, sender), self._place
        name = f"{self._setup.generation}-{kind.name.lower()}-{sender}"
        endpoint = self._transport.endpoint(place.folder or place.host, name)
        secure = server_security(self._keys, self._domain(kind, sender)) if self._keys is not None else None
        return self._transport.receiver(endpoint, identity, self._context, self._options, secure)

    def _sender(self, kind: MessageKind, peer: Address) -> Sender:
        identity, secure = self._identity(kind, self._setup.index), None
        if self._keys is not None and peer.public_key is not None:
            secure = client_security(self._keys, peer.public_key)
        return self._transport.sender(peer.endpoints[kind], identity, self._context, self._options, secure)

    def _allow(self, kind: MessageKind, sender: int, peer: Address) -> None:
        if self._gate is not None and peer.public_key is not None:
            self._gate.allow(self._domain(kind, sender), peer.public_key)

    def _domain(self, kind: MessageKind, sender: int) -> str:
        """Return the name under which one receiver admits one key; new in every generation."""
        return f"{self._setup.generation}: {self._identity(kind, sender)}"


class LocalService(StageService):
    """A stage in a process that this machine's driver started."""

    def __init__(self, setup: LocalSetup, send: Callable[[str, Any], None]) -> None:
        super().__init__(setup.stage, send)
        self._parent = setup.parent
        self.worker.timeline.tell = StatusBoard(setup.board).write
        # The folder of the sockets comes next, which somebody must remove. So the parent's death no longer
        # kills this process but wakes it, should it be stopped, to find that its connection is closed.
        signal_with_parent(self._parent, signal.SIGCONT)

    def seal(self) -> None:
        """Die at once with the parent again: there are no socket files left to remove."""
        signal_with_parent(self._parent, signal.SIGKILL)


def largest_message(config: Config) -> int:
    """Return the bytes of the largest message that any link of the run may carry."""
    shapes = shapes_of(config)
    rows = config.build_rule().target_rows(shapes[-1][0]) or 0
    examples = max(config.data.batch_size, config.data.eval_batch_size, rows)
    widest = max(_numel(shape) for shape in shapes)
    tensors = 2 if config.monitor.alignment_every else 1  # a measured displacement has company
    tensors += probes_from(config, config.build_rule(), len(shapes) - 1, Phase.BOTH)
    numbers = tensors * widest * DTYPES[config.train.dtype].itemsize
    return HEADER_BYTES + examples * (numbers + most_label_bytes(config))


def _numel(shape: Shape) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
