"""From actions to stage methods: the one loop that every runtime runs.

The schedule decides the order, the links bring what an action needs, the stage does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Segment
from dtp_dist.runtime.stage.link_encoding import LinkEncoding
from dtp_dist.runtime.stage.timeline import Timeline
from dtp_dist.schedule import RECEIVING, SENDING, Action, Activity, Kind, Phase, kinds_of, stage_actions
from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.messages import Message, MessageKind, Payload

_MESSAGES = {Kind.FORWARD: MessageKind.ACTIVATION, Kind.TARGET: MessageKind.TARGET}

Source = Callable[[int], tuple[Tensor, Tensor]]
BeforeAction = Callable[[Action], None]


class Computes(Protocol):
    """What does the actions: ``algorithm.stages.stage.Stage``, or what takes its place."""

    def begin(self, phase: Phase, epoch: int, passes: int = 1, repeat: int = 0) -> None: ...

    def forward(self, minibatch: int, h: Tensor, labels: Tensor, probes: Tensor | None = None) -> Tensor: ...

    def probes(self, minibatch: int) -> list[Tensor]: ...

    def inverse(self, minibatch: int) -> None: ...

    def target(
        self, minibatch: int, delta: Tensor | None, answers: Tensor | None = None
    ) -> Tensor | None: ...

    def answers(self, minibatch: int) -> list[Tensor]: ...

    def align(self, minibatch: int, descent: Tensor | None, *, knows_input: bool = True) -> Tensor | None: ...

    def update(self, minibatch: int) -> None: ...


@dataclass
class Links:
    """A stage's ends of its links; None where there is no neighbour."""

    activation_in: Receiver | None = None
    activation_out: Sender | None = None
    target_in: Receiver | None = None
    target_out: Sender | None = None

    @property
    def bytes_sent(self) -> int:
        """Bytes sent over all of them since they came up."""
        return sum(link.bytes_sent for link in (self.activation_out, self.target_out) if link is not None)

    def ends(self) -> list[Sender | Receiver]:
        """Return those there are."""
        ends = (self.activation_in, self.activation_out, self.target_in, self.target_out)
        return [end for end in ends if end is not None]

    def close(self) -> None:
        """Close all ends."""
        for end in self.ends():
            end.close()


class Executor:
    """Runs one stage's part of one segment, an action at a time.

    Args:
        source: minibatch number -> (x, labels); the first stage's alone.
        encoding: the form in which its tensors travel.
        done: called with a minibatch's number after its last action in this stage.
        before: called before every action (faults are injected here).
        align_every: minibatches between two that are measured against backpropagation, 0 for none.
        start: what T begins with in the last stage, where it needs nothing of F.
    """

    def __init__(
        self,
        stage: Computes,
        index: int,
        layout: Layout,
        segment: Segment,
        links: Links,
        timeline: Timeline,
        *,
        source: Source | None,
        encoding: LinkEncoding,
        done: Callable[[int], None],
        before: BeforeAction | None = None,
        device: torch.device | None = None,
        align_every: int = 0,
        start: Tensor | None = None,
    ) -> None:
        self._stage, self._links, self._timeline, self._segment = stage, links, timeline, segment
        self._source, self._done, self._before = source, done, before
        self._index, self._layers = index, layout.layers(index)
        self._device = device or torch.device("cpu")
        self._on_host = self._device.type == "cpu"
        self._align_every, self._encoding, self._start = align_every, encoding, start
        self._actions = stage_actions(
            index, layout.stages, segment.minibatches, layout.in_flight, segment.phase, layout.flow
        )
        self._next = next(self._actions, None)
        self._final = kinds_of(segment.phase, layout.flow)[-1]
        self._methods = {
            Kind.FORWARD: self._forward,
            Kind.INVERSE: self._inverse,
            Kind.TARGET: self._target,
            Kind.UPDATE: self._update,
        }
        stage.begin(segment.phase, segment.epoch, segment.passes, segment.repeat)

    @property
    def finished(self) -> bool:
        """Whether every action is done."""
        return self._next is None

    def ready(self) -> bool:
        """Whether the next action can run without waiting for a message."""
        if self._next is None:
            return False
        link = self._link_of(self._next.kind)
        return link is None or link.ready()

    def step(self) -> None:
        """Run the next action, waiting for its message if need be."""
        action = self._next
        assert action is not None, "the segment is finished"
        if self._before is not None:
            self._before(action)
        self._methods[action.kind](action.minibatch)
        if action.kind is self._final:
            self._done(action.minibatch)
        self._next = next(self._actions, None)

    def _link_of(self, kind: Kind) -> Receiver | None:
        if kind is Kind.FORWARD:
            return self._links.activation_in
        return self._links.target_in if kind is Kind.TARGET else None

    def _receive(self, link: Receiver, kind: Kind, minibatch: int) -> list[Tensor]:
        with self._timeline.during(RECEIVING[kind], minibatch):
            message = link.receive(minibatch, self._segment.phase)
        payloads = message.payloads
        if not self._on_host:
            payloads = tuple(payload.to(self._device) for payload in payloads)
        return self._encoding.expand(message, payloads)

    def _send(
        self,
        link: Sender,
        kind: Kind,
        layer: int,
        minibatch: int,
        payloads: tuple[Tensor, ...],
        packed: Payload | None = None,
    ) -> None:
        if link.crosses_processes and link.carrier is None and not self._on_host:
            payloads = tuple(payload.cpu() for payload in payloads)
        message = Message(
            _MESSAGES[kind], self._segment.phase, self._index, layer, minibatch, payloads, packed
        )
        with self._timeline.during(SENDING[kind], minibatch):
            link.send(message)

    def _forward(self, minibatch: int) -> None:
        probes: list[Tensor] = []
        if self._links.activation_in is None:
            assert self._source is not None
            with self._timeline.during(Activity.DATA, minibatch):
                h, labels = self._source(minibatch)
        else:
            h, labels, *probes = self._receive(self._links.activation_in, Kind.FORWARD, minibatch)
        with self._timeline.during(Activity.FORWARD, minibatch):
            h = self._stage.forward(minibatch, h, labels, *probes)
        if self._links.activation_out is not None:
            link, top = self._links.activation_out, self._layers[-1]
            sent, packed = self._encoding.activation(h, minibatch)
            going = [self._encoding.numbers(each) for each in self._stage.probes(minibatch)]
            self._send(link, Kind.FORWARD, top, minibatch, (sent, labels, *going), packed)

    def _inverse(self, minibatch: int) -> None:
        with self._timeline.during(Activity.INVERSE, minibatch):
            self._stage.inverse(minibatch)

    def _target(self, minibatch: int) -> None:
        measured = self._align_every and minibatch % self._align_every == 0
        delta, descent, answers = self._start, None, []
        if self._links.target_in is not None:
            delta, *answers = self._receive(self._links.target_in, Kind.TARGET, minibatch)
            descent = answers.pop(0) if measured else None
        with self._timeline.during(Activity.TARGET, minibatch):
            below = [self._stage.target(minibatch, delta, *answers)]
        if measured:
            with self._timeline.during(Activity.ALIGNMENT, minibatch):
                known = self._encoding.knows_input
                below.append(self._stage.align(minibatch, descent, knows_input=known))
        if self._links.target_out is not None:
            under = self._layers[0] - 1
            below += self._stage.answers(minibatch)
            payloads = tuple(self._encoding.numbers(each) for each in below if each is not None)
            self._send(self._links.target_out, Kind.TARGET, under, minibatch, payloads)

    def _update(self, minibatch: int) -> None:
        with self._timeline.during(Activity.UPDATE, minibatch):
            self._stage.update(minibatch)
