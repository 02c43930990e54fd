"""A stage: a contiguous run of layers and what each action of a schedule does to them.

Whoever calls the actions decides their order; nothing here knows of messages, processes or time.
State in flight is keyed by minibatch, so any number of minibatches may be in flight.

Shapes: activations h_l and displacements delta_l ``[B, *shape_l]``, labels int64 ``[B]`` or
float32 ``[B, K]``, K the number of outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dtp_dist.algorithm.alignment import BACKPROPAGATION, Passage, alignment
from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.losses.output import OutputMeasure
from dtp_dist.algorithm.maps.base import Call, Mode
from dtp_dist.algorithm.meter import Meter
from dtp_dist.algorithm.optimizers.groups import OptimizedMap, OptimizerGroup
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.rules.base import LocalStep, Rule
from dtp_dist.algorithm.rules.feedback.probes import Probes
from dtp_dist.algorithm.rules.one_wave import OneWaveRule
from dtp_dist.algorithm.stages.flight import Flight
from dtp_dist.algorithm.stages.inverses import InverseLearner
from dtp_dist.errors import NonFiniteError
from dtp_dist.phase import Phase, named

LENGTH_EVERY = 10  # minibatches between two measurements of a displacement's relative length


class Stage:
    """Layers ``layers[0].index .. layers[-1].index`` with their optimizers, on one device.

    Args:
        layers: the stage's layers, bottom first, all with the same delay.
        rule: the learning rule.
        loss: of the outputs.
        seed: the run's seed.
        remedies: what it does about its delay.

    ``examples`` counts those whose output was measured since the segment began; ``now`` is the number of the
    layer at work.
    """

    def __init__(
        self, layers: Sequence[Layer], rule: Rule, loss: Loss, *, seed: int, remedies: DelayOptions
    ) -> None:
        self.layers, self.rule, self.loss, self.seed = list(layers), rule, loss, seed
        self.meter, self.examples = Meter(), 0
        self.now = self.layers[0].index
        self._phase, self._epoch = Phase.BOTH, 0
        self._named: str = self._phase
        self._output = OutputMeasure(loss)
        self._flights: dict[int, Flight] = {}
        self._flow = rule.flow()
        self._inverses = InverseLearner(self.layers, rule)
        delay = self.layers[0].delay
        self._lookahead = remedies.lookahead if delay else 0.0
        self._rate = remedies.rate(delay)
        self._forward_learners = OptimizerGroup(
            [layer.forward for layer in layers],
            memory=remedies.memory(delay),
            keeps_steps=self._lookahead > 0,
        )

    @property
    def first(self) -> bool:
        """Whether this stage holds layer 1."""
        return self.layers[0].index == 1

    @property
    def last(self) -> bool:
        """Whether this stage holds layer L."""
        return self.layers[-1].is_output

    @property
    def in_flight(self) -> int:
        """Minibatches between their F and their U in this stage."""
        return len(self._flights)

    def begin(self, phase: Phase, epoch: int, passes: int = 1, repeat: int = 0) -> None:
        """Start a segment: its phase and 0-based epoch; the pipeline must be empty.

        ``passes``: how often each minibatch comes in a row, to be judged by the mean output. ``repeat``:
        which it is of several segments alike, from 0, for each has random numbers of its own.
        """
        assert not self._flights, f"minibatches {sorted(self._flights)} are still in flight"
        self._phase, self._epoch, self.examples = phase, epoch, 0
        self._named = named(phase, repeat)
        self._output = OutputMeasure(self.loss, passes, whole=phase is Phase.EVALUATE)

    def abandon(self) -> None:
        """Forget every minibatch in flight (before a checkpoint is loaded)."""
        self._flights.clear()

    def forward(self, minibatch: int, h: Tensor, labels: Tensor, probes: Tensor | None = None) -> Tensor:
        """F: return h of the stage's last layer; keeps what later actions need, unless evaluating.

        ``probes`` are what came with h, if the rule probes. Batch statistics change here, in training only.
        """
        if self._phase is Phase.EVALUATE:
            for layer in self.layers:
                h = layer.f(h, self._call(layer, minibatch, Mode.EVALUATE))
        else:
            begun = sum(1 for each in self._flights.values() if each.activations)
            updates_to_come = begun if self._phase is not Phase.INVERSE else 0
            flight = self._flights.setdefault(minibatch, Flight())
            flight.activations, flight.labels = [h], labels
            if self.rule.probes and self._phase is not Phase.FORWARD:
                flight.probes = Probes.received(probes, len(h))
            with self._forward_learners.ahead(self._lookahead * updates_to_come):
                for layer in self.layers:
                    h = self._through(layer, minibatch, flight, h)
        if self.last and self._phase is not Phase.INVERSE:
            self._measure_output(minibatch, h, labels)
        return h

    def _through(self, layer: Layer, minibatch: int, flight: Flight, h: Tensor) -> Tensor:
        """Return h_l of one layer in F, after the probes of those below it, and begin its own."""
        local = self._call(layer, minibatch, Mode.LOCAL)
        if flight.probes is not None:
            flight.probes.through(layer, local)
        h, context = layer.f.with_context(h, self._call(layer, minibatch, Mode.FORWARD))
        flight.activations.append(h)
        flight.contexts.append(context)
        if flight.probes is not None and self._inverses.teaches(layer):
            flight.probes.begin(layer, h, layer.sigma(self._epoch, minibatch), local)
        if flight.probes is not None and layer.is_output:
            flight.probes.arrived(h)
        return h

    def probes(self, minibatch: int) -> list[Tensor]:
        """Return the probes that go up with F, one tensor ``[P B, ...]`` or none."""
        flight = self._flights.get(minibatch)
        return [] if flight is None or flight.probes is None else flight.probes.up()

    def answers(self, minibatch: int) -> list[Tensor]:
        """Return what goes down with T for the probes of stages below, one tensor ``[P B, K]`` or none."""
        probes = self._flights[minibatch].probes
        return [] if probes is None else probes.down()

    def inverse(self, minibatch: int) -> None:
        """I: K updates of every inverse in the stage that learns, fewer of one that is near enough before."""
        flight = self._flights[minibatch]

        def call(layer: Layer) -> Call:
            context = flight.contexts[layer.index - self.layers[0].index]
            return self._call(layer, minibatch, Mode.LOCAL, context)

        found = self._inverses.learn(flight.activations, call, self._epoch, minibatch)
        for index, loss in self._checked(minibatch, "inverse loss", found.losses).items():
            self.meter.add(f"layer/{index}/inverse_loss", loss)
        for index, cosine in _floats(found.cosines).items():
            angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
            self.meter.add(f"layer/{index}/inverse_angle", angle)
        for layer in self.layers:
            if layer.enough is not None and layer.index in found.iterations:
                self.meter.add(f"layer/{layer.index}/inverse_iterations", found.iterations[layer.index])
        if self._phase is Phase.INVERSE:
            del self._flights[minibatch]

    def target(self, minibatch: int, delta: Tensor | None, answers: Tensor | None = None) -> Tensor | None:
        """T: take the signal of the stage's last layer (None in the last stage, which makes its own).

        Returns that of the layer below the stage, None in the first stage. For most rules it is delta. Of a
        rule of one wave the last stage gets the first one, too. ``answers`` are those that came with it.
        """
        flight = self._flights.setdefault(minibatch, Flight())
        if flight.probes is not None:
            flight.probes.answered(answers, len(flight.activations[0]))
        if delta is None:
            assert flight.labels is not None, "F comes first"
            delta = self.rule.output(flight.activations[-1], flight.labels, self.loss)
        targets: list[Tensor | None] = [delta]
        for position in reversed(range(len(self.layers))):
            if self.layers[position].index == 1:
                targets.append(None)
                break
            delta = self._next_target(minibatch, flight, position, delta).contiguous()
            targets.append(delta)
        flight.targets = targets[::-1]
        return flight.targets[0]

    def _next_target(self, minibatch: int, flight: Flight, position: int, above: Tensor) -> Tensor:
        layer, rule = self.layers[position], self.rule
        if isinstance(rule, OneWaveRule):
            return rule.next_signal(layer, above, self._call(layer, minibatch, Mode.LOCAL).inverse())
        h_in, h_out = flight.activations[position : position + 2]
        call = self._call(layer, minibatch, Mode.LOCAL, flight.contexts[position])
        return rule.propagate(layer, h_in, h_out, above, call)

    def align(self, minibatch: int, descent: Tensor | None, *, knows_input: bool = True) -> Tensor | None:
        """Measure a minibatch between its T and its U against backpropagation; changes nothing.

        Takes ``-dLoss/dh`` of the stage's last layer (None in the last stage, which makes its own) and
        returns that of the layer below the stage, None in the first stage. ``knows_input``: whether the
        stage got its input as numbers, not as the bits that its first layer sees.
        """
        flight = self._flights[minibatch]
        if descent is None:
            assert flight.labels is not None, "F comes first"
            descent = BACKPROPAGATION.output(flight.activations[-1], flight.labels, self.loss)
        for position in reversed(range(len(self.layers))):
            layer = self.layers[position]
            call = self._call(layer, minibatch, Mode.LOCAL, flight.contexts[position])
            seen = flight.seen(position, layer, self.rule, self.loss, call)
            at = Passage(layer, seen, descent, call, knows_input or position > 0)
            for name, value in alignment(self.rule, at):
                self.meter.add(f"layer/{layer.index}/{name}", value.item())
            if layer.index > 1:
                descent = at.below()
        return None if self.first else descent

    def update(self, minibatch: int) -> None:
        """U: one step of every forward map in the stage, and of each inverse that learns in U.

        In a phase that is for one of the two, of these alone. The minibatch is done here.
        """
        flight = self._flights.pop(minibatch)
        losses: dict[int, Tensor] = {}
        inverse_losses: dict[int, Tensor] = {}
        lengths: dict[int, Tensor] = {}
        measured = minibatch % LENGTH_EVERY == 0 and not isinstance(self.rule, OneWaveRule)
        for position, layer in enumerate(self.layers):
            call = self._call(layer, minibatch, Mode.LOCAL, flight.contexts[position])
            seen = flight.seen(position, layer, self.rule, self.loss, call)
            if self._phase is not Phase.INVERSE:
                losses[layer.index] = _prepared(layer.forward, self.rule.forward_update(layer, seen, call))
                if measured:
                    lengths[layer.index] = _relative_length(seen.above, seen.h_out)
            if layer.inverse is not None and self._learns_in_update(layer):
                step = self.rule.inverse_update(layer, seen, call.inverse())
                inverse_losses[layer.index] = _prepared(layer.inverse, step)
        self._forward_learners.step(self._epoch, minibatch, self._rate)
        self._inverses.step(self._epoch, minibatch)
        for index, loss in self._checked(minibatch, "forward loss", losses).items():
            self.meter.add(f"layer/{index}/forward_loss", loss)
        for index, loss in self._checked(minibatch, "inverse loss", inverse_losses).items():
            self.meter.add(f"layer/{index}/inverse_loss", loss)
        for index, length in _floats(lengths).items():
            self.meter.add(f"layer/{index}/displacement", length)

    def _learns_in_update(self, layer: Layer) -> bool:
        own = self._flow.inverse_in == "U" and self._phase is not Phase.FORWARD
        return own and self._inverses.teaches(layer)

    def _call(self, layer: Layer, minibatch: int, mode: Mode, context: Tensor | None = None) -> Call:
        self.now = layer.index
        randomness = Randomness(self.seed, layer.index, minibatch, self._named)
        return Call(randomness, mode, context=context, epoch=self._epoch)

    def measured_of_split(self) -> dict[str, float]:
        """Return what was measured of the outputs of a whole evaluation, next to the means in ``meter``."""
        return self._output.of_split()

    def _measure_output(self, minibatch: int, outputs: Tensor, labels: Tensor) -> None:
        measured = self._output(outputs, labels)
        if measured is not None:
            self._require_finite(minibatch, self.layers[-1].index, "output loss", measured["loss"])
            self.meter.add_all(measured, len(labels))
            self.examples += len(labels)

    def _checked(self, minibatch: int, what: str, losses: dict[int, Tensor]) -> dict[int, float]:
        found = _floats(losses)
        for index, value in found.items():
            self._require_finite(minibatch, index, what, value)
        return found

    def _require_finite(self, minibatch: int, layer: int, what: str, value: float) -> None:
        if not abs(value) < float("inf"):
            text = f"layer {layer}, minibatch {minibatch}: the {what} is {value}"
            raise NonFiniteError(
                f"{text}; lower the learning rate or the step, and train it in a run of its own"
            )


def _prepared(learner: OptimizedMap, step: LocalStep) -> Tensor:
    """Give a map the gradients that its optimizer will step along, and return the loss."""
    learner.set_gradients(step.gradients)
    return step.loss


def _relative_length(delta: Tensor, h: Tensor) -> Tensor:
    """Return ``||delta|| / ||h||`` over the whole minibatch, 0-dimensional float32."""
    norm: Callable[[Tensor], Tensor] = torch.linalg.vector_norm
    return (norm(delta) / norm(h).clamp_min(1e-30)).to(torch.float32)


def _floats(values: dict[int, Tensor]) -> dict[int, float]:
    """Return 0-dimensional tensors as floats, waiting for the device once."""
    if not values:
        return {}
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
