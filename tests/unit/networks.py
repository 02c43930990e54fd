"""Small networks, and the learning rules written out a second time with autograd, for the tests beside it.

``Reference`` shares no arithmetic with ``dtp_dist.algorithm``: each loss is the formula of the paper,
differentiated by autograd; each displacement is the formula of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dtp_dist.algorithm.build import build_layer, layer_shapes
from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.algorithm.layers import (
    ConvOptions,
    DenseOptions,
    FlattenOptions,
    InverseOptions,
    Layer,
    LayerOptions,
)
from dtp_dist.algorithm.losses import CROSS_ENTROPY, Loss
from dtp_dist.algorithm.optimizers.kinds import OptimizerOptions, SGDOptions
from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.algorithm.rules import RULES, RuleOptions
from dtp_dist.algorithm.stages.stage import Stage
from dtp_dist.phase import Phase
from dtp_dist.planning.costs import action_work

SIZES = (6, 5, 4, 5, 3)
BATCH = 7
SEED = 11
ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": lambda z: 1 / (1 + torch.exp(-z)),
    "relu": lambda z: z.clamp_min(0),
    "elu": lambda z: torch.where(z > 0, z, torch.expm1(z)),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "selu": lambda z: 1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * torch.expm1(z)),
    "gelu": lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "linear": lambda z: 1 * z,
}
DTYPES = (torch.float64, torch.float32)


def minibatch(k: int = 0, *, inputs: int = SIZES[0], classes: int = SIZES[-1], dtype=torch.float64):
    generator = torch.Generator().manual_seed(1000 + k)
    x = torch.randn(BATCH, inputs, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, classes, (BATCH,), generator=generator)


def rule(name: str = "dtp", **settings: Any) -> RuleOptions:
    if hasattr(RULES[name](), "target_step"):
        settings.setdefault("target_step", 1.5)
    return RULES[name](**settings)


def dense(
    sizes: Sequence[int] = SIZES,
    activation: str = "tanh",
    *,
    bias: bool = True,
    inverse: str = "tanh",
    iterations: int = 1,
    sigma: Any = 0.3,
    inverse_sees: str = "real",
    place: str = "output",
) -> list[LayerOptions]:
    """Dense layers, the last one linear."""
    learning = InverseOptions(
        activation=inverse,
        activation_of=place,
        iterations=iterations,
        sigma=sigma,
        input_transmission=inverse_sees,
    )
    last = len(sizes) - 2
    return [
        DenseOptions(
            units=units, activation="linear" if l == last else activation, bias=bias, inverse=learning
        )
        for l, units in enumerate(sizes[1:])
    ]


def conv_network(iterations: int = 2, sigma: float = 0.1, place: str = "input") -> list[LayerOptions]:
    """Two conv layers for images [2, 9, 9], with overlapping and with average pooling, flatten, two dense."""
    learning = InverseOptions(activation="elu", activation_of=place, iterations=iterations, sigma=sigma)
    linear = InverseOptions(activation="linear", iterations=iterations, sigma=sigma)
    overlapping = {"pool": "max", "pool_kernel": 3, "pool_stride": 2, "pool_padding": 1}
    return [
        ConvOptions(channels=4, padding=1, **overlapping, inverse=learning),
        ConvOptions(channels=6, padding=1, pool="average", inverse=learning),
        FlattenOptions(),
        DenseOptions(units=8, activation="elu", init="uniform", inverse=learning),
        DenseOptions(units=3, activation="linear", init="uniform", inverse=linear),
    ]


def image_minibatch(k: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return images for ``conv_network`` and labels."""
    generator = torch.Generator().manual_seed(2000 + k)
    x = torch.randn(BATCH, 2, 9, 9, generator=generator).to(dtype)
    return x, torch.randint(0, 3, (BATCH,), generator=generator)


def build(
    options: Sequence[LayerOptions],
    rule_options: RuleOptions,
    *,
    forward: OptimizerOptions | None = None,
    inverse: OptimizerOptions | None = None,
    seed: int = SEED,
    delay: int | Sequence[int] = 0,
    dtype: torch.dtype = torch.float64,
    inputs: int = SIZES[0],
    shape: tuple[int, ...] | None = None,
    scrambled: bool = True,
    loss: Loss = CROSS_ENTROPY,
) -> list[Layer]:
    """Build layers; ``scrambled`` gives every parameter, biases too, a value without structure."""
    shapes = layer_shapes(shape or (inputs,), options)
    learned = rule_options.build(len(options))
    learned.loss = loss
    optimizers = (forward or SGDOptions(lr=1.0), inverse or SGDOptions(lr=0.1))
    delays = [delay] * len(options) if isinstance(delay, int) else delay
    layers = [
        build_layer(each, l, shapes, learned, optimizers, seed=seed, delay=delays[l - 1], dtype=dtype)
        for l, each in enumerate(options, 1)
    ]
    if scrambled:
        generator = torch.Generator().manual_seed(seed)
        for parameter in parameters(layers):
            with torch.no_grad():
                values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.6 * values)
    return layers


def stages(
    layers: Sequence[Layer],
    rule_options: RuleOptions,
    split: Sequence[int] | None = None,
    *,
    seed: int = SEED,
    loss: Loss = CROSS_ENTROPY,
    **remedies: float,
) -> list[Stage]:
    """Cut layers into stages of ``split`` layers each, one stage by default; no remedies but those given."""
    against_delay = DelayOptions(**{"delay_power": 0, "delay_memory": 0, "lookahead": 0, **remedies})
    learned = rule_options.build(len(layers))
    learned.loss = loss
    found, first = [], 0
    for count in split or [len(layers)]:
        part = layers[first : first + count]
        found.append(Stage(part, learned, loss, seed=seed, remedies=against_delay))
        first += count
    assert first == len(layers)
    return found


def exact_step(parts: Sequence[Stage], k: int, x: Tensor, labels: Tensor) -> None:
    """Run one minibatch alone: F and I upwards, T and U downwards, each boundary crossed by a copy."""
    h = x
    for stage in parts:
        h = stage.forward(k, h.clone(), labels)
        stage.inverse(k)
    delta = None
    for stage in reversed(parts):
        delta = stage.target(k, None if delta is None else delta.clone())
        stage.update(k)
    assert delta is None


def descended(parts: Sequence[Stage], k: int, outputs: Tensor, labels: Tensor) -> list[Tensor]:
    """Return delta_1 .. delta_L of T of a minibatch, after its F, in stages of one layer each."""
    found = [parts[-1].rule.output(outputs, labels, parts[-1].loss)]
    below = parts[-1].target(k, None)
    for stage in reversed(parts[:-1]):
        assert below is not None
        found.append(below)
        below = stage.target(k, below)
    return found[::-1]


def ascended(parts: Sequence[Stage], k: int, x: Tensor, labels: Tensor) -> list[Tensor]:
    """Return h_0 .. h_L of F of a minibatch in stages of one layer each."""
    found = [x]
    for stage in parts:
        found.append(stage.forward(k, found[-1], labels))
    return found


def parameters(layers: Sequence[Layer]) -> list[nn.Parameter]:
    return [each for layer in layers for module in layer.modules().values() for each in module.parameters()]


def values(layers: Sequence[Layer]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters(layers)]


def same_bits(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def noise(
    layer: int, k: int, iteration: int, like: Tensor, sigma: float, *, phase: Phase = Phase.BOTH
) -> Tensor:
    """Return the noise that (seed, layer, minibatch, phase, purpose, iteration) stands for."""
    key = derive_seed(SEED, layer, k, phase, "noise", iteration)
    generator = torch.Generator().manual_seed(key)
    return torch.empty_like(like).normal_(0.0, sigma, generator=generator)


class Reference:
    """A dense network and its learning rule, plain SGD, by autograd of the formulas as written.

    Every action takes the layers it is for (1-based, all by default), so any order of actions of any
    partition can be followed. ``losses`` keeps the last value of each local loss.
    """

    def __init__(self, layers: Sequence[Layer], options: Sequence[DenseOptions], rule_options: RuleOptions):
        self.rule, self.options = rule_options, dict(enumerate(options, 1))
        self.last = len(options)
        self.forward_rate, self.inverse_rate = 1.0, 0.1
        self.weights = {
            (layer.index, side): values_of(module)
            for layer in layers
            for side, module in layer.modules().items()
        }
        self.h: dict[tuple[int, int], Tensor] = {}
        self.z: dict[tuple[int, int], Tensor] = {}
        self.labels: dict[int, Tensor] = {}
        self.delta: dict[tuple[int, int], Tensor] = {}
        self.losses: dict[tuple[int, str], Tensor] = {}

    def parameters(self) -> list[Tensor]:
        """Return all parameters in the order of ``networks.parameters``."""
        return [each for key in self.weights for each in self.weights[key]]

    def f(self, l: int, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.options[l].activation](self._inner(l, "forward", x))

    def g(self, l: int, y: Tensor) -> Tensor:
        return ACTIVATIONS[self.options[l].inverse.activation](self._inner(l, "inverse", y))

    def _inner(self, l: int, side: str, x: Tensor) -> Tensor:
        weight, *bias = self.weights[l, side]
        z = x @ weight.T
        return z + bias[0] if bias else z

    def forward(self, k: int, x: Tensor, labels: Tensor, span: Sequence[int] = ()) -> None:
        self.labels[k] = labels
        self.h.setdefault((0, k), x)
        for l in span or self.options:
            self.z[l, k] = self._inner(l, "forward", self.h[l - 1, k])
            self.h[l, k] = self.f(l, self.h[l - 1, k])

    def inverse(self, k: int, span: Sequence[int] = ()) -> None:
        for l in span or self.options:
            if (l, "inverse") in self.weights:
                learning = self.options[l].inverse
                for iteration in range(learning.iterations):
                    eps = noise(l, k, iteration, self.h[l - 1, k], learning.sigma)
                    self._descend(
                        l, "inverse", self.inverse_rate, lambda l, e: self.inverse_loss(l, k, e), eps
                    )

    def inverse_loss(self, l: int, k: int, eps: Tensor) -> Tensor:
        noisy = self.h[l - 1, k] + eps
        return (self.g(l, self.f(l, noisy).detach()) - noisy).square().sum(1).mean()

    def target(self, k: int, span: Sequence[int] = ()) -> None:
        for l in reversed(span or list(self.options)):
            if l == self.last:
                logits = self.h[l, k].clone().requires_grad_()
                loss = cross_entropy(logits, self.labels[k])
                self.delta[l, k] = -torch.autograd.grad(loss, logits)[0]
            if l > 1:
                self.delta[l - 1, k] = self._below(l, k)

    def _below(self, l: int, k: int) -> Tensor:
        h_in, h_out, delta = self.h[l - 1, k], self.h[l, k], self.delta[l, k]
        if l == self.last or self.rule.name == "backprop":
            step = self.rule.target_step if self.rule.name != "backprop" else 1.0
            x = h_in.clone().requires_grad_()
            return step * torch.autograd.grad((self.f(l, x) * delta).sum(), x)[0]
        if self.rule.name == "tp":
            return self.g(l, h_out + delta) - h_in
        return self.g(l, h_out + delta) - self.g(l, h_out)

    def update(self, k: int, span: Sequence[int] = (), rate: float | None = None) -> None:
        for l in span or self.options:
            self._descend(l, "forward", self.forward_rate if rate is None else rate, self.forward_loss, k)

    def forward_loss(self, l: int, k: int) -> Tensor:
        """Return the loss that f_l lowers; its gradient is that of the rule's formula."""
        h_in, h_out, delta = self.h[l - 1, k], self.h[l, k], self.delta[l, k]
        stored = self.rule.name != "backprop" and self.rule.stores_jacobian
        y = self._through_stored(l, k) if stored else self.f(l, h_in)
        if l == self.last or self.rule.name == "backprop":
            return -(y * delta).sum()
        anchor = h_out if self.rule.anchor == "stale" else y.detach()
        return (y - (anchor + delta).detach()).square().sum(1).mean()

    def _through_stored(self, l: int, k: int) -> Tensor:
        """Return today's z times the derivative at the z that went out with F: its gradient is 'stored'."""
        z = self.z[l, k].clone().requires_grad_()
        (slope,) = torch.autograd.grad(ACTIVATIONS[self.options[l].activation](z).sum(), z)
        return slope * self._inner(l, "forward", self.h[l - 1, k])

    def _descend(self, l: int, side: str, rate: float, loss_of, argument) -> None:
        for parameter in self.weights[l, side]:
            parameter.requires_grad_()
        loss = loss_of(l, argument)
        gradients = torch.autograd.grad(loss, self.weights[l, side])
        self.losses[l, side] = loss.detach()
        self.weights[l, side] = [
            parameter.detach() - rate * gradient
            for parameter, gradient in zip(self.weights[l, side], gradients, strict=True)
        ]


def values_of(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def plain_pair(input_shape: list[int], units: int = 4) -> tuple[nn.Module, nn.Module]:
    """Dense maps, as a user would write them."""
    width = input_shape[0]
    return (
        nn.Sequential(nn.Linear(width, units), nn.Tanh()),
        nn.Sequential(nn.Linear(units, width), nn.Tanh()),
    )


def normalized_pair(input_shape: list[int], units: int = 4) -> tuple[nn.Module, nn.Module]:
    """Both maps with batch statistics."""
    width = input_shape[0]
    return (
        nn.Sequential(nn.Linear(width, units), nn.BatchNorm1d(units), nn.Tanh()),
        nn.Sequential(nn.Linear(units, width), nn.BatchNorm1d(width), nn.Tanh()),
    )


def dropout_pair(input_shape: list[int], units: int = 4) -> tuple[nn.Module, nn.Module]:
    """Both maps with random numbers of their own."""
    width = input_shape[0]
    return (
        nn.Sequential(nn.Linear(width, units), nn.Dropout(0.5), nn.Tanh()),
        nn.Sequential(nn.Linear(units, width), nn.Dropout(0.3)),
    )


def inplace_pair(input_shape: list[int], units: int = 4) -> tuple[nn.Module, nn.Module]:
    """A forward module that overwrites what it is given."""
    width = input_shape[0]
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(width, units)), nn.Linear(units, width)


class Transposed(nn.Module):
    """A dense map whose weight is stored transposed, so that its memory is not contiguous."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out).t())

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight.T)


def transposed_pair(input_shape: list[int], units: int = 4) -> tuple[nn.Module, nn.Module]:
    return Transposed(input_shape[0], units), Transposed(units, input_shape[0])


def layer_work(layers: Sequence[Any], shapes: Sequence[Any], learned: Any, batch_size: int) -> list[float]:
    """Return the estimated work of each layer per minibatch: F, I, T and U together."""
    return [
        sum(each) for each in zip(*action_work(layers, shapes, learned, batch_size).values(), strict=True)
    ]
