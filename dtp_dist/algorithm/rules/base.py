"""What a learning rule decides: which inverses exist, how targets travel, what each local loss is.

Shapes: h_in ``[B, *input_shape]``, h_out, delta ``[B, *output_shape]``; B is the size of this minibatch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer, Shape
from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call, Map, Pullback
from dtp_dist.algorithm.maps.feedback import Feedback
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.options import OneOf, Options, Positive, RangeError, Whole, option
from dtp_dist.algorithm.precision import widened
from dtp_dist.flow import TWO_WAVES, Flow
from dtp_dist.phase import Phase


class LocalStep(NamedTuple):
    """A local loss (0-dimensional, on the stage's device) and its gradients, one per parameter.

    ``cosine``, 0-dimensional, is that between the Jacobian of g and the transpose of f's, where an inverse
    loss shows it.
    """

    loss: Tensor
    gradients: list[Tensor]
    cosine: Tensor | None = None


class Seen(NamedTuple):
    """What U knows of one layer and minibatch.

    Attributes:
        h_in, h_out: h_{l-1} and h_l as they went out with F.
        above: delta_l, or what the rule has in its place (``OneWaveRule``: c_l).
        below: what T made of it for the layer below; None in layer 1.
        labels: int64 ``[B]`` or float32 ``[B, K]``.
        loss: of the outputs.
        answer: what noise at h_l did to the outputs, ``[B, K]``, where the rule probes and g_l learns.
    """

    h_in: Tensor
    h_out: Tensor
    above: Tensor
    below: Tensor | None
    labels: Tensor
    loss: Loss
    answer: Tensor | None = None


def mean_square(residual: Tensor) -> Tensor:
    """Return the squared error, summed over units, averaged over the minibatch: 0-dimensional float32."""
    return mean_product(residual, residual)


def mean_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the scalar product, summed over units, averaged over the minibatch: 0-dimensional float32."""
    return torch.dot(widened(left).flatten(), widened(right).flatten()) / len(left)


@dataclass(frozen=True, kw_only=True)
class RuleOptions(Options):
    """What every rule has."""

    name: str = option(doc="which learning rule")
    update_order: Annotated[str, OneOf("minibatch", "epoch")] = option(
        "minibatch",
        doc="inverse and forward updates alternate per minibatch, or per epoch (Lee et al.'s original order)",
    )
    inverse_passes_first: Whole = option(
        0, doc="further passes over the training set, before the first epoch, in which inverses alone learn"
    )
    inverse_pass: bool = option(False, doc="whether there is such a pass before every later epoch, too")

    @abstractmethod
    def build(self, layers: int) -> Rule:
        """Return the rule for a network of ``layers`` layers."""


@dataclass(frozen=True, kw_only=True)
class TargetRuleOptions(RuleOptions):
    """What the rules of target propagation have."""

    target_step: Positive = option(0.33, doc="eta, length of the output target's step along the gradient")
    anchor: Annotated[str, OneOf("current", "stale")] = option(
        "current",
        doc="what a displacement is added to: today's output, or the stale one that went out with F",
    )
    jacobian: Annotated[str, OneOf("current", "stored")] | None = option(
        None,
        doc="derivative of an activation at today's weights, or at the stored activation, which spares a "
        "product (dense layers); null means stored, and current with a stale anchor",
    )

    def __post_init__(self) -> None:
        if self.anchor == "stale" and self.jacobian == "stored":
            raise RangeError("jacobian", "'stored' is not allowed with anchor: stale; write current")

    @property
    def stores_jacobian(self) -> bool:
        """Whether the derivative is taken at the stored activation."""
        return self.jacobian != "current" and self.anchor == "current"


class Rule(ABC):
    """A learning rule: pure functions of a layer and one minibatch's tensors.

    Attributes:
        classes_alone: whether labels must be classes.
        feedback: what its inverses are.
        probes: whether they learn, in U, from what noise at their layer does to the outputs
            (``rules/feedback/probes.py``).
        loss: of the network's outputs.
    """

    classes_alone = False
    feedback: ClassVar[Feedback] = Feedback.INVERSE
    probes: ClassVar[bool] = False
    loss: Loss = CROSS_ENTROPY

    normalizes_targets = False
    """Whether a target is normalised over the minibatch: h_1 .. h_{L-1} must be, too."""

    joins_minibatches = False
    """Whether its inverse loss takes several minibatches as one, which no norm over the minibatch may see."""

    measures_inverses = False
    """Whether ``inverse_step`` gives the cosine of the Jacobians, which ``iterations: auto`` needs."""
    asks_of_inverses = False
    """Whether some inverses are not for this rule (``check_inverse``)."""

    @abstractmethod
    def inverses(self) -> range:
        """Return the layers that must have an inverse (1-based), or what ``feedback`` says in its place."""

    def inverted(self) -> range:
        """Return the layers that must have an inverse which leads back to their input."""
        return self.inverses() if self.feedback is Feedback.INVERSE else range(0)

    def adapted(self, layer: int, inverse: Map) -> Map:
        """Return the inverse of a layer as the rule uses it, given the layer's own."""
        del layer
        return inverse

    def learned_inverses(self) -> range:
        """Return the layers whose inverse learns: all inverses, unless a rule keeps them fixed."""
        return self.inverses()

    def flow(self) -> Flow:
        """Return what the rule's actions need of each other: F, I, T and U, unless it says otherwise."""
        return TWO_WAVES

    def target_rows(self, outputs: int) -> int | None:
        """Return how many rows a target message has, given the number of outputs; None: one an example."""
        del outputs
        return None

    def signal_shape(self, layer: int, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of one row of the signal that reaches a layer, given those of h_0 .. h_L."""
        return shapes[layer]

    def exact(self, layers: int) -> range:
        """Return which of so many layers have a displacement along the negative gradient by construction."""
        return range(layers, layers + 1)

    def exact_updates(self, layers: int) -> range:
        """Return which of so many layers have a forward update along the gradient by construction."""
        return self.exact(layers)

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """Return whether anything but f_l itself reads h_{l-1} in a phase of training (``layer``: 1-based l).

        Where nothing does, a link may bring no more than f_l sees of it. True unless a rule says otherwise.
        """
        del layer, phase
        return True

    @abstractmethod
    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """Return delta_L, ``[B, K]``: the rule's own step along ``loss.gap``, which is per example.

        ``outputs`` are h_L; labels int64 ``[B]`` or float32 ``[B, K]``.
        """

    def check_inverse(self, index: int, f: Map, g: Map, optimizer: OptimizerOptions) -> None:
        """Check that the rule can teach g, the inverse of layer ``index``; called if it ``asks_of_inverses``.

        Raises:
            RangeError: it can't; the key is one of the rule's.
        """
        del index, f, g, optimizer

    @abstractmethod
    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """Return delta_{l-1}, of h_in's shape, from delta_l, or what the rule sends down in its place.

        That is a *signal*: what travels with T, ``delta_L`` at the outputs. Each layer's displacement is
        made of the one that reaches it (``displacement``).
        """

    def displacement(self, layer: Layer, h_out: Tensor, signal: Tensor, call: Call) -> Tensor:
        """Return delta_l, of h_out's shape, from the signal that reaches the layer: itself by default."""
        return signal

    @abstractmethod
    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Return the local loss of f_l and its gradients."""

    @abstractmethod
    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Return the loss of g_l and its gradients in inverse iteration ``call.iteration`` (from 0)."""

    def forward_update(self, layer: Layer, seen: Seen, call: Call) -> LocalStep:
        """Return the local loss of f_l and its gradients in U: ``forward_step``, unless a rule needs more."""
        return self.forward_step(layer, seen.h_in, seen.h_out, seen.above, call)

    def inverse_update(self, layer: Layer, seen: Seen, call: Call) -> LocalStep:
        """Return the loss of g_l and its gradients in U, where the rule's inverses learn there (``flow``).

        As all of a stage's U, it sees the weights of before the step.
        """
        raise NotImplementedError(f"{type(self).__name__} has inverses that learn in U: give it this method")

    def update_scale(self, layer: Layer, examples: int) -> float | None:
        """Return what f_l's true gradient is multiplied by in this rule's, were its inverses transposes.

        The distance of the two is measured with this taken off (``alignment.py``). None, as it is unless a
        rule says otherwise: there is no such number, and no distance. ``examples``: B of the minibatch.
        """
        del layer, examples
        return None

    def inverse_work(self, f: float, g: float, *, affine: bool) -> float:
        """Return the work of one update of an inverse, given that of one f and of one g, for planning.

        ``affine`` says whether g has the parts of ``Map.affine``. Here f once, g once forth and once back.
        """
        del affine
        return f + 2 * g


def difference_target(layer: Layer, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
    """Return ``g_l(h_l + delta_l) - g_l(h_l)``, the displacement below a layer (Lee et al. 2015, eq. 15)."""
    at, ahead = widened(h_out), widened(h_out) + widened(delta)
    affine = layer.g.affine()
    if affine is not None:  # the difference before the product: one product, and no cancellation in it
        return affine.product(affine.features(ahead, call).sub_(affine.features(at, call))).to(delta.dtype)
    return layer.g(ahead, call).sub_(layer.g(at, call)).to(delta.dtype)


def toward_target(pullback: Pullback, h_out: Tensor, delta: Tensor, anchor: str, factor: float) -> LocalStep:
    """Lower ``factor || f_l(h_{l-1}) - (anchor + delta_l) ||^2``, the bracket constant."""
    ahead = delta if anchor == "current" else delta - (pullback.output - h_out)
    gradients = pullback.parameters(ahead * (-2.0 * factor / len(ahead)))
    return LocalStep(mean_square(ahead) * factor, gradients)


def pull_forward(layer: Layer, h_in: Tensor, h_out: Tensor, call: Call, *, stored: bool) -> Pullback:
    """Return f_l linearized at the stored input, and at the stored output where that is wanted and possible.

    Without delay nothing was updated since F, so the stored output is today's, bit for bit.
    """
    return layer.f.linearize(h_in, call, h_out if stored or layer.delay == 0 else None)
