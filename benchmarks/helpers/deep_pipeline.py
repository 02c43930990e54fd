"""32 stages with 32 minibatches in flight, their square layers computed at once: for ``depth_search.py``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.layered import BIASES, MOVERS, Adam, Tensors, columns

STAGES, BATCH = 32, 100
MIDDLE = STAGES - 2
"""Square layers, each with an inverse; a layer of 784 inputs below and one of 10 outputs above them."""
TARGET_STEP, BETA1 = 0.33, 0.9


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a search run has of its own.

    ``deep``: S = D = 32, else D = 1; ``cosine``: the rate falls to 0 over the run; ``inverse_cosine``: that
    of the inverses.
    """

    optimizer: str = "adam"
    lr: float = 1e-4
    power: float = 0.3
    memory: float = 0.5
    lookahead: float = 1.0
    deep: bool = True
    cosine: bool = False
    inverse_lr: float = 1e-3
    inverse_cosine: bool = False
    iterations: int = 1
    sigma: float = 0.36


@dataclass
class Data:
    """MNIST's training and validation examples: pixels in [0, 1] ``[N, 784]``, labels ``[N]``."""

    x: Tensor
    y: Tensor
    valid_x: Tensor
    valid_y: Tensor
    seed: int

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield minibatches without end, in a new order each epoch."""
        epoch = 0
        while True:
            generator = torch.Generator().manual_seed(1000 + 100 * self.seed + epoch)
            order = torch.randperm(len(self.x), generator=generator)
            for chosen in order.split(BATCH):
                yield self.x[chosen], self.y[chosen]
            epoch += 1


def orthogonal(rows: int, inputs: int, generator: torch.Generator) -> Tensor:
    """Return an orthogonal weight, drawn as ``init: orthogonal`` is."""
    bound = math.sqrt(6 / (rows + inputs))
    u, _, vh = torch.linalg.svd(
        torch.empty(rows, inputs).uniform_(-bound, bound, generator=generator), full_matrices=False
    )
    return u @ vh


class Network:
    """All 32 layers with their inverses, their optimizers, and what is in flight.

    Shapes: ``first [n, 784]``, ``middle [30, n, n]``, ``last [10, n]``, each with its bias; activations of
    the square layers at one tick ``[30, B, n]``.
    """

    def __init__(self, variant: Variant, width: int, seed: int, steps: int) -> None:
        self.variant, self.steps, self.ticks = variant, steps, 0
        self.generator = torch.Generator().manual_seed(seed)
        square = [(width, width)] * MIDDLE
        first, *middle = (orthogonal(*shape, self.generator) for shape in [(width, 784), *square])
        last = orthogonal(10, width, self.generator)
        inverses = torch.stack([orthogonal(*shape, self.generator) for shape in square])
        row = torch.zeros(MIDDLE, 1, width)
        self.forward: Tensors = {
            "first": first,
            "first bias": torch.zeros(width),
            "middle": torch.stack(middle),
            "middle bias": row,
            "last": last,
            "last bias": torch.zeros(10),
        }
        self.inverse: Tensors = {"inverse": inverses, "inverse bias": row.clone()}
        self.before = {name: value.clone() for name, value in self.forward.items()}
        self.updates = 0
        top = STAGES - 1
        self.delays: Tensors = {
            name: torch.tensor(0.0) if "last" in name else torch.tensor(float(top)) for name in self.forward
        }
        between = columns(torch.arange(top - 1, 0, -1, dtype=torch.float32))
        self.delays |= {"middle": between, "middle bias": between}
        if not variant.deep:
            self.delays = {name: torch.zeros_like(each) for name, each in self.delays.items()}
        mover = MOVERS[variant.optimizer]
        self.movers = {
            name: (Adam if name in BIASES or (name == "last" and variant.optimizer == "muon") else mover)(
                value, 1 - (1 - BETA1) / (1 + self.delays[name]) ** variant.memory
            )
            for name, value in self.forward.items()
        }
        self.learners = {name: Adam(value, torch.tensor(BETA1)) for name, value in self.inverse.items()}

    def ahead(self, name: str) -> Tensor:
        """Return a parameter where F takes it to be when its update comes."""
        value = self.forward[name]
        if not (self.variant.deep and self.variant.lookahead and self.updates):
            return value
        return torch.lerp(self.before[name], value, 1 + self.variant.lookahead * self.delays[name])

    def outputs(self, x: Tensor) -> Tensor:
        """Return the logits by today's weights."""
        return self.through(x)[1][-1] @ self.forward["last"].T + self.forward["last bias"]

    def through(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and outputs of the square layers, one after another."""
        h = [torch.tanh(x @ self.forward["first"].T + self.forward["first bias"])]
        for weight, bias in zip(self.forward["middle"], self.forward["middle bias"], strict=True):
            h.append(torch.tanh(torch.addmm(bias, h[-1], weight.T)))
        return torch.stack(h[:-1]), torch.stack(h[1:])

    def learn_inverses(self, h: Tensor) -> None:
        """I of every square layer, each with the input of its own minibatch."""
        self.ticks += 1
        rate = self.variant.inverse_lr
        if self.variant.inverse_cosine:
            rate *= self._cosine(self.ticks)
        for _ in range(self.variant.iterations):
            self._learn_inverses_once(h, rate)

    def _learn_inverses_once(self, h: Tensor, rate: float) -> None:
        noisy = h + torch.randn(h.shape, generator=self.generator) * self.variant.sigma
        f = torch.tanh(
            torch.baddbmm(self.forward["middle bias"], noisy, self.forward["middle"].transpose(1, 2))
        )
        y = torch.tanh(
            torch.baddbmm(self.inverse["inverse bias"], f, self.inverse["inverse"].transpose(1, 2))
        )
        residual = (y - noisy) * (2 / BATCH) * (1 - y * y)
        gradients = {"inverse": residual.transpose(1, 2) @ f, "inverse bias": residual.sum(1, keepdim=True)}
        for name, gradient in gradients.items():
            self.learners[name].step(gradient, rate)

    def learn(
        self, x: Tensor, labels: Tensor, first: Tensor, h_in: Tensor, h_out: Tensor, top: Tensor
    ) -> int:
        """T and U of one minibatch in every layer; return how many outputs were wrong.

        ``first``: the first layer's output; ``h_in``, ``h_out``: of the square ones; ``top``: the last input.
        """
        outputs = top @ self.forward["last"].T + self.forward["last bias"]
        gap = torch.softmax(outputs, 1)
        gap[range(BATCH), labels] -= 1
        delta = -gap / BATCH
        below = (delta @ self.forward["last"]) * TARGET_STEP
        weights, biases = self.inverse["inverse"], self.inverse["inverse bias"]
        without = torch.tanh(torch.baddbmm(biases, h_out, weights.transpose(1, 2)))
        found: list[Tensor] = []
        for layer in reversed(range(MIDDLE)):
            found.append(below)
            below = (
                torch.tanh(torch.addmm(biases[layer], h_out[layer] + below, weights[layer].T))
                - without[layer]
            )
        middle = torch.stack(found[::-1]) * (-2 / BATCH) * (1 - h_out * h_out)
        lowest = below * (-2 / BATCH) * (1 - first * first)
        self._step(
            {
                "first": lowest.T @ x,
                "first bias": lowest.sum(0),
                "middle": middle.transpose(1, 2) @ h_in,
                "middle bias": middle.sum(1, keepdim=True),
                "last": -delta.T @ top,
                "last bias": -delta.sum(0),
            }
        )
        return int((outputs.argmax(1) != labels).sum())

    def _step(self, gradients: Tensors) -> None:
        self.updates += 1
        lr = self.variant.lr * (self._cosine(self.updates) if self.variant.cosine else 1.0)
        for name, gradient in gradients.items():
            self.before[name].copy_(self.forward[name])
            rate = lr * (1 + self.delays[name]) ** -self.variant.power
            self.movers[name].step(gradient, rate)

    def _cosine(self, t: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, t / self.steps)))


def exact(network: Network, data: Data) -> Iterator[int]:
    """Train with one minibatch in flight; yield the wrong outputs of each."""
    for x, labels in data.minibatches():
        h_in, h_out = network.through(x)
        network.learn_inverses(h_in)
        yield network.learn(x, labels, h_in[0], h_in, h_out, h_out[-1])


def pipeline(network: Network, data: Data) -> Iterator[int]:
    """Train with 32 in flight; yield the wrong outputs of each minibatch.

    At tick t stage s computes F(t - s); after it T and U of minibatch t - 31 go down all stages.
    """
    width = len(network.forward["first"])
    inputs, outputs = (torch.zeros(STAGES, MIDDLE, BATCH, width) for _ in range(2))
    flights: list[tuple[Tensor, Tensor, Tensor]] = []
    current, top = torch.zeros(MIDDLE, BATCH, width), torch.zeros(BATCH, width)
    places = range(MIDDLE)
    for tick, (x, labels) in enumerate(data.minibatches()):
        first = torch.tanh(x @ network.ahead("first").T + network.ahead("first bias"))
        flights.append((x, labels, first))
        weight, bias = network.ahead("middle"), network.ahead("middle bias")
        out = torch.tanh(torch.baddbmm(bias, current, weight.transpose(1, 2)))
        inputs[tick % STAGES], outputs[tick % STAGES] = current, out
        network.learn_inverses(current)
        due, top = top, out[-1]
        current = torch.cat([first.unsqueeze(0), out[:-1]])
        if tick >= STAGES - 1:
            rows = [(tick - (STAGES - 2 - place)) % STAGES for place in places]
            x, labels, first = flights.pop(0)
            yield network.learn(x, labels, first, inputs[rows, places], outputs[rows, places], due)
