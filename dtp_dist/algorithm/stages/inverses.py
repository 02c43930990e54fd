"""How the inverses of a stage learn from one minibatch: how many updates, from how many samples of noise.

An update costs what its samples cost. ``samples`` below 1 takes that share of the minibatch's examples,
others in each iteration; above 1 it repeats the examples, so that one product has several samples of noise
for each. With ``enough`` the updates end as soon as the Jacobians are near each other, as the update itself
shows. That follows from the stage's own numbers of this minibatch: not from time, workers or a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call, repeat_examples
from dtp_dist.algorithm.optimizers.groups import OptimizerGroup
from dtp_dist.algorithm.rules.base import LocalStep, Rule

Calls = Callable[[Layer], Call]


@dataclass
class InverseUpdates:
    """What the updates of a minibatch gave, by layer: the last loss and cosine, and how many there were."""

    losses: dict[int, Tensor] = field(default_factory=dict)
    cosines: dict[int, Tensor] = field(default_factory=dict)
    iterations: dict[int, int] = field(default_factory=dict)


class InverseLearner:
    """The inverses of a stage that learn, with their optimizer."""

    def __init__(self, layers: Sequence[Layer], rule: Rule) -> None:
        learned = rule.learned_inverses()
        self._rule, self._first = rule, layers[0].index
        self._layers = [
            layer
            for layer in layers
            if layer.index in learned and layer.inverse and layer.inverse.map.parameters()
        ]
        self._optimizer = OptimizerGroup(
            [layer.inverse for layer in self._layers if layer.inverse is not None]
        )

    def teaches(self, layer: Layer) -> bool:
        """Return whether the layer's inverse learns."""
        return layer in self._layers

    def step(self, epoch: int, minibatch: int) -> None:
        """Step every inverse that has gradients."""
        self._optimizer.step(epoch, minibatch)

    def learn(
        self, activations: Sequence[Tensor], calls: Calls, epoch: int, minibatch: int
    ) -> InverseUpdates:
        """Update every inverse up to K times from a minibatch.

        Args:
            activations: h of the layer below the stage and of each of its layers, as they went out with F.
            calls: the call of one layer's inverse in this minibatch, its context that of F.
        """
        found, learning = InverseUpdates(), list(self._layers)
        for iteration in range(max((layer.iterations for layer in learning), default=0)):
            for layer in [each for each in learning if iteration < each.iterations]:
                position = layer.index - self._first
                h_in, h_out = activations[position : position + 2]
                call = calls(layer).inverse(iteration)
                step = self._step(layer, h_in, h_out, layer.sigma(epoch, minibatch), call)
                found.losses[layer.index] = step.loss
                found.iterations[layer.index] = iteration + 1
                if step.cosine is not None:
                    found.cosines[layer.index] = step.cosine
                    if layer.enough is not None and step.cosine.item() >= layer.enough:
                        learning.remove(layer)
            self.step(epoch, minibatch)
        return found

    def _step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Set the gradients of one inverse for one iteration and return its step."""
        assert layer.inverse is not None
        if layer.samples > 1.0:
            times = int(layer.samples)
            h_in, h_out = repeat_examples(h_in, times), repeat_examples(h_out, times)
            call = call.in_context(*[call.context] * times)
        elif layer.samples < 1.0:
            examples = share(len(h_in), layer.samples, call.iteration)
            h_in, h_out, call = h_in[examples], h_out[examples], call.of_examples(examples)
        step = self._rule.inverse_step(layer, h_in, h_out, sigma, call)
        layer.inverse.set_gradients(step.gradients)
        return step


def share(examples: int, samples: float, iteration: int) -> slice:
    """Return which of a minibatch's examples an iteration takes: one share after the other, then again."""
    count = max(1, round(examples * samples))
    start = iteration % max(1, examples // count) * count
    return slice(start, start + count)
