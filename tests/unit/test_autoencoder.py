"""The autoencoder rule against autograd of its formulas, in any partition and with minibatches in flight."""

from dataclasses import replace

import pytest
import torch
from closeness import assert_near
from torch.nn.functional import cross_entropy

from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.schedules import Cosine
from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.algorithm.rules.targets.autoencoder import AutoencoderOptions
from dtp_dist.config.parse import parse_options
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from networks import (
    BATCH,
    SEED,
    Reference,
    build,
    dense,
    exact_step,
    minibatch,
    rule,
    same_bits,
    stages,
    values,
)
from networks import noise as inverse_noise

BOTH_TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
NOISES = pytest.mark.parametrize("noise", [0.0, 0.4], ids=["plain", "denoising"])
FADED_IN = Cosine(start=0.0, end=1.2, length=2)  # 0, 0.6 and 1.2 in epochs 0, 1, 2


def network(noise: float = 0.4, sigma: float = 0.0, iterations: int = 1):
    """Return the options of 6-5-4-5-3, noise on the input of every hidden layer."""
    options = dense(sigma=sigma, iterations=iterations)
    return [*(replace(each, noise=noise) for each in options[:-1]), options[-1]]


class AutoencoderReference(Reference):
    """The rule written out; ``step`` is the output step of now.

    ``f`` is the layer as it is evaluated; F and U of a minibatch see its input with the same noise, and each
    ``iteration`` of I with another.
    """

    step, iteration = 1.5, 0

    def noisy(self, l, k, phase=Phase.BOTH, iteration=0):
        h = self.h[l - 1, k]
        if not self.options[l].noise:
            return h
        generator = torch.Generator().manual_seed(derive_seed(SEED, l, k, phase, "input noise", iteration))
        return h + torch.empty_like(h).normal_(0.0, self.options[l].noise, generator=generator)

    def forward(self, k, x, labels, span=()):
        self.labels[k] = labels
        self.h.setdefault((0, k), x)
        for l in span or self.options:
            self.z[l, k] = self._inner(l, "forward", self.noisy(l, k))
            self.h[l, k] = self.f(l, self.noisy(l, k))

    def inverse_loss(self, l, k, eps):
        code = self.h[l, k]
        if self.options[l].inverse.sigma:
            code = self.f(l, self.noisy(l, k, iteration=self.iteration) + eps).detach()
        self.iteration += 1
        return (self.g(l, code) - self.h[l - 1, k]).square().sum(1).mean()

    def inverse(self, k, span=()):
        for l in span or self.options:
            self.iteration = 0
            super().inverse(k, [l])

    def _below(self, l, k):
        h_in, h_out, delta = self.h[l - 1, k], self.h[l, k], self.delta[l, k]
        if l < self.last:
            return self.g(l, h_out + delta) - self.g(l, h_out)
        x = h_in.clone().requires_grad_()
        return -self.step * torch.autograd.grad(cross_entropy(self.f(l, x), self.labels[k]), x)[0]

    def forward_loss(self, l, k):
        if l == self.last:
            return -(self.f(l, self.h[l - 1, k]) * self.delta[l, k]).sum()
        x, h, delta = self.h[l - 1, k], self.h[l, k], self.delta[l, k]
        gap = self.f(l, x) - self.f(l, self.g(l, h))
        z = self.z[l, k].clone().requires_grad_()
        (slope,) = torch.autograd.grad(torch.tanh(z).sum(), z)  # stored: that of F
        y = slope * self._inner(l, "forward", self.noisy(l, k))
        return (y - (y + gap + delta).detach()).square().sum(1).mean()


def call(l: int, k: int = 0, epoch: int = 0) -> Call:
    return Call(Randomness(SEED, l, k, Phase.BOTH), epoch=epoch)


def setting(dtype=torch.float64, step=1.5, **more):
    """Return layers, the rule, and a reference that has run F and T of minibatch 0."""
    options, chosen = network(**more), rule("autoencoder", target_step=step)
    layers = build(options, chosen, dtype=dtype)
    reference = AutoencoderReference(layers, options, chosen)
    reference.forward(0, *minibatch(dtype=dtype))
    reference.target(0)
    return layers, chosen.build(len(layers)), reference


# Losses, gradients, targets


@BOTH_TYPES
@NOISES
def test_encoders_learn_towards_the_difference_target_of_their_reconstruction(noise, dtype):
    layers, learned, reference = setting(dtype, noise=noise)
    for l in (1, 2, 3):
        h_in, h_out, delta = reference.h[l - 1, 0], reference.h[l, 0], reference.delta[l, 0]
        mine = [each.requires_grad_() for each in reference.weights[l, "forward"]]
        y = reference.f(l, reference.noisy(l, 0))
        assert_near(y.detach(), h_out)
        target = h_out + reference.f(l, h_in) - reference.f(l, reference.g(l, h_out)) + delta
        loss = (y - target.detach()).square().sum() / BATCH
        step = learned.forward_step(layers[l - 1], h_in, h_out, delta, call(l))
        assert_near(step.loss, loss.detach())
        for found, expected in zip(step.gradients, torch.autograd.grad(loss, mine), strict=True):
            assert_near(found, expected)


@BOTH_TYPES
@NOISES
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_decoders_learn_to_give_the_clean_input_back(sigma, noise, dtype):
    layers, learned, reference = setting(dtype, noise=noise, sigma=sigma)
    for l, iteration in ((1, 0), (3, 2)):
        h_in, h_out = reference.h[l - 1, 0], reference.h[l, 0]
        mine = [each.requires_grad_() for each in reference.weights[l, "inverse"]]
        reference.iteration = iteration
        loss = reference.inverse_loss(l, 0, inverse_noise(l, 0, iteration, h_in, sigma))
        step = learned.inverse_step(layers[l - 1], h_in, h_out, sigma, call(l).inverse(iteration))
        assert_near(step.loss, loss.detach())
        for found, expected in zip(step.gradients, torch.autograd.grad(loss, mine), strict=True):
            assert_near(found, expected)


@BOTH_TYPES
def test_labels_come_down_by_the_output_step_of_now_and_through_the_decoders(dtype):
    layers, learned, reference = setting(dtype, FADED_IN)
    for epoch, step in ((1, 0.6), (2, 1.2)):
        reference.step = step
        reference.target(0)
        for l in (4, 3, 2):
            given = (reference.h[l - 1, 0], reference.h[l, 0], reference.delta[l, 0])
            assert_near(
                learned.propagate(layers[l - 1], *given, call(l, epoch=epoch)), reference.delta[l - 1, 0]
            )
    for l in (4, 3, 2):
        given = (reference.h[l - 1, 0], reference.h[l, 0], reference.delta[l, 0])
        assert torch.equal(learned.propagate(layers[l - 1], *given, call(l)), torch.zeros_like(given[0]))


def test_every_hidden_layer_has_a_decoder_the_first_too():
    assert [layer.inverse is not None for layer in build(dense(), rule("autoencoder"))] == [True] * 3 + [
        False
    ]


def test_an_output_step_below_zero_or_of_no_known_schedule_is_refused():
    for wrong in (-0.1, {"schedule": "sudden"}):
        with pytest.raises(ConfigError, match=r"^target_step"):
            parse_options(AutoencoderOptions, {"target_step": wrong})


# Whole steps


@BOTH_TYPES
@NOISES
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_whole_step_changes_every_weight_by_its_gradient(epoch, noise, dtype):
    layers, _, reference = setting(dtype, noise=noise, sigma=0.3, iterations=2)
    (stage,) = stages(layers, rule("autoencoder", target_step=FADED_IN))
    before = values(layers)
    stage.begin(Phase.BOTH, epoch)
    exact_step([stage], 0, *minibatch(dtype=dtype))
    reference.step = 0.6 * epoch
    for action in (reference.inverse, reference.target, reference.update):
        action(0)
    assert len(before) == 14
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        assert_near(new - old, expected - old)


def test_without_labels_codes_are_the_same_whatever_the_labels_and_the_softmax_layer_is_not():
    found = []
    for shift in (0, 1):
        layers = build(network(), rule("autoencoder", target_step=0.0))
        (stage,) = stages(layers, rule("autoencoder", target_step=0.0))
        for k in range(2):
            x, labels = minibatch(k)
            exact_step([stage], k, x, (labels + shift) % 3)
        found.append((values(layers[:3]), values(layers[3:])))
    assert same_bits(found[0][0], found[1][0])
    assert not same_bits(found[0][1], found[1][1])


def test_any_partition_gives_the_same_bits():
    found = []
    for split in ([4], [1, 3], [1, 1, 1, 1]):
        chosen = rule("autoencoder", target_step=1.5)
        layers = build(network(sigma=0.2, iterations=2), chosen, dtype=torch.float32)
        parts = stages(layers, chosen, split)
        for k in range(3):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))
        found.append(values(layers))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_a_pipeline_of_two_stages_follows_the_formulas_at_its_own_delays():
    options, chosen = network(), rule("autoencoder")
    layers = build(options, chosen, delay=[1, 1, 0, 0])
    before, reference = values(layers), AutoencoderReference(layers, options, chosen)
    parts, spans = stages(layers, chosen, [2, 2]), ([1, 2], [3, 4])
    h, delta = {}, {}
    lower = ["F0 I0 F1 I1", "T0 U0 F2 I2", "T1 U1", "T2 U2"]
    upper = ["F0 I0 T0 U0", "F1 I1 T1 U1", "F2 I2 T2 U2", ""]
    for line in range(4):
        for s, part in enumerate((lower[line], upper[line])):
            for action, k in ((each[0], int(each[1])) for each in part.split()):
                if action == "F":
                    x, labels = minibatch(k)
                    h[s, k] = parts[s].forward(k, h[s - 1, k].clone() if s else x, labels)
                    reference.forward(k, x, labels, spans[s])
                elif action == "I":
                    parts[s].inverse(k)
                    reference.inverse(k, spans[s])
                elif action == "T":
                    delta[s, k] = parts[s].target(k, delta.get((s + 1, k)))
                    reference.target(k, spans[s])
                else:
                    parts[s].update(k)
                    reference.update(k, spans[s])
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        assert_near(new - old, expected - old)
