"""Simplified DTP against algorithm 1 of Bartunov et al. 2018, written out in plain torch."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_near
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from dtp_dist.algorithm.losses import CROSS_ENTROPY, LOSSES, Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.prediction import PredictionInverse
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.phase import Phase
from networks import (
    BATCH,
    SEED,
    SIZES,
    build,
    dense,
    exact_step,
    minibatch,
    noise,
    rule,
    stages,
    values,
)

SDTP = rule("sdtp", target_step=1.0)
K, SIGMA = 3, 0.3
PREDICTIONS = {
    "cross_entropy": lambda z: z.softmax(1),
    "binary_cross_entropy": torch.sigmoid,
    "mse": lambda z: z,
}


def own_loss(name: str, logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the output layer's loss, a mean over the minibatch."""
    if name == "cross_entropy":
        return cross_entropy(logits, wanted)
    if name == "mse":
        return (logits - wanted).square().sum(1).mean()
    p = logits.sigmoid()
    return -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum(1).mean()


class Paper:
    """Layers 1 to 4 and inverses 2 to 4, each by autograd of its own loss, with plain SGD."""

    def __init__(self, layers, loss: str) -> None:
        self.loss, self.predicted = loss, PREDICTIONS[loss]
        self.theta = {l: self._copied(layers[l - 1].f) for l in (1, 2, 3, 4)}
        self.omega = {l: self._copied(layers[l - 1].g) for l in (2, 3, 4)}

    def _copied(self, map_) -> list[Tensor]:
        return [each.detach().clone().requires_grad_() for each in map_.parameters()]

    def f(self, l: int, x: Tensor) -> Tensor:
        z = x @ self.theta[l][0].T + self.theta[l][1]
        return torch.tanh(z) if l < 4 else self.predicted(z)

    def g(self, l: int, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.omega[l][0].T + self.omega[l][1])

    def step(self, k: int, x: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            h = [x]
            for l in (1, 2, 3, 4):
                h.append(self.f(l, h[-1]))
        for l in (2, 3, 4):
            for iteration in range(K):
                corrupted = h[l - 1] + noise(l, k, iteration, h[l - 1], SIGMA)
                loss = (h[l - 1] - self.g(l, self.f(l, corrupted).detach())).square().sum(1).mean()
                self._descend(self.omega[l], loss, 0.1)
        with torch.no_grad():
            target = {4: one_hot(labels, SIZES[-1]).double()}
            for l in (4, 3, 2):
                target[l - 1] = h[l - 1] - self.g(l, h[l]) + self.g(l, target[l])
        wanted = labels if self.loss == "cross_entropy" else target[4]
        logits = h[3] @ self.theta[4][0].T + self.theta[4][1]
        losses = {l: (self.f(l, h[l - 1]) - target[l]).square().sum(1).mean() for l in (1, 2, 3)}
        for l, loss in {**losses, 4: own_loss(self.loss, logits, wanted)}.items():
            self._descend(self.theta[l], loss, 1.0)

    def _descend(self, parameters: list[Tensor], loss: Tensor, rate: float) -> None:
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= rate * gradient

    def parameters(self) -> list[Tensor]:
        found = [[*self.theta[l], *self.omega.get(l, [])] for l in (1, 2, 3, 4)]
        return [each.detach() for layer in found for each in layer]


@pytest.mark.parametrize("split", [[4], [2, 1, 1]])
@pytest.mark.parametrize("loss", LOSSES)
def test_two_whole_steps_are_those_of_the_paper(loss, split):
    of: Loss = CROSS_ENTROPY if loss == "cross_entropy" else LOSSES[loss]()
    layers = build(dense(iterations=K, sigma=SIGMA), SDTP, loss=of)
    paper = Paper(layers, loss)
    parts = stages(layers, SDTP, split, loss=of)
    for k in range(2):
        exact_step(parts, k, *minibatch(k))
        paper.step(k, *minibatch(k))
    before = values(build(dense(iterations=K, sigma=SIGMA), SDTP, loss=of))
    assert len(before) == 14
    for start, found, expected in zip(before, values(layers), paper.parameters(), strict=True):
        assert_near(found - start, expected - start, 100)
        assert not torch.equal(found, start)


def test_a_linear_network_whose_inverses_are_transposes_takes_twice_backpropagations_step_below_its_output():
    """The output layer takes that step itself; other losses are squared, without 1/2."""
    options, found = dense(activation="linear", inverse="linear", iterations=0, bias=False), []
    for name in ("sdtp", "backprop"):
        settings = SDTP if name == "sdtp" else rule(name)
        layers = build(options, settings, scrambled=False)
        for layer in layers[1:] if name == "sdtp" else ():
            with torch.no_grad():
                layer.g.module.weight.copy_(layer.f.module.weight.T)
        before = [layer.f.module.weight.detach().clone() for layer in layers]
        exact_step(stages(layers, settings), 0, *minibatch())
        found.append(
            [layer.f.module.weight.detach() - old for layer, old in zip(layers, before, strict=True)]
        )
    for l, (mine, theirs) in enumerate(zip(*found, strict=True), 1):
        assert_near(mine, theirs * (2 if l < 4 else 1))


def test_the_target_below_the_output_does_not_depend_on_the_output_layers_weights():
    """Given h_L: no gradient goes through f_L, as it does in dtp."""
    layers = build(dense(), SDTP)
    learned = SDTP.build(4)
    generator = torch.Generator().manual_seed(2)
    h_in, h_out, delta = (
        torch.randn(BATCH, size, generator=generator, dtype=torch.float64) for size in (5, 3, 3)
    )
    given = (layers[3], h_in, h_out, delta, Call(Randomness(SEED, 4, 0, Phase.BOTH)))
    before = learned.propagate(*given)
    with torch.no_grad():
        for parameter in layers[3].f.parameters():
            parameter.zero_()
    assert torch.equal(learned.propagate(*given), before)
    assert before.abs().max() > 0.1


def test_the_inverse_of_the_output_layer_reads_probabilities_and_pulls_through_them():
    inverse = build(dense(), SDTP)[3].g
    assert isinstance(inverse, PredictionInverse)
    call = Call(Randomness(SEED, 4, 0, Phase.BOTH)).inverse()
    weight, bias = inverse.parameters()
    y = torch.randn(
        BATCH, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True
    )
    expected = torch.tanh(y.softmax(1) @ weight.T + bias)
    cotangent = torch.randn(BATCH, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    pullback = inverse.linearize(y.detach(), call)
    assert_near(inverse(y.detach(), call), expected.detach())
    assert_near(pullback.output, expected.detach())
    by_hand = torch.autograd.grad((expected * cotangent).sum(), [y, weight, bias])
    for found, one in zip([pullback.input(cotangent), *pullback.parameters(cotangent)], by_hand, strict=True):
        assert_near(found, one)


def test_a_shorter_target_step_shortens_the_way_to_the_label_and_nothing_in_the_output_layer():
    for step in (1.0, 0.25):
        layers = build(dense(), rule("sdtp", target_step=step))
        before = [each.detach().clone() for each in layers[3].f.parameters()]
        (stage,) = stages(layers, rule("sdtp", target_step=step))
        x, labels = minibatch()
        outputs = stage.forward(0, x, labels)
        expected = step * (one_hot(labels, 3) - outputs.softmax(1))
        assert_near(stage.rule.output(outputs, labels, CROSS_ENTROPY), expected)
        stage.target(0, None)
        stage.update(0)
        moved = [new.detach() - old for new, old in zip(layers[3].f.parameters(), before, strict=True)]
        if step == 1.0:
            whole = moved
        for found, one in zip(moved, whole, strict=True):
            assert_near(found, one)
