"""Angles between L-DRL's displacements and the negative gradient in a small conv net, before and after I.

    python benchmarks/ldrl_angle.py

The forward weights stay as they are; the inverses alone learn, K iterations in each of a few minibatches.
Angles are means over the examples of a minibatch that was not learned from, in degrees.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from dtp_dist.algorithm.build import build_layer, layer_shapes
from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.algorithm.layers import ConvOptions, DenseOptions, FlattenOptions, InverseOptions, Layer
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import AdamOptions, OptimizerOptions, SGDOptions
from dtp_dist.algorithm.optimizers.schedules import Cosine
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.rules import RULES, Rule
from dtp_dist.algorithm.stage import Stage
from dtp_dist.phase import Phase

SHAPE, CLASSES, BATCH = (3, 12, 12), 10, 64


def network(
    seed: int, iterations: int, sigma: float, optimizer: OptimizerOptions
) -> tuple[list[Layer], Rule]:
    """Return two conv layers with overlapping max-pooling, flatten and two dense layers, ELU."""
    learning = InverseOptions(activation="elu", activation_of="input", iterations=iterations, sigma=sigma)
    linear = InverseOptions(activation="linear", iterations=iterations, sigma=sigma)
    image = {"kernel": 3, "padding": 1, "pool": "max", "pool_kernel": 3, "pool_stride": 2, "pool_padding": 1}
    options = [
        ConvOptions(channels=8, **image, inverse=learning),
        ConvOptions(channels=16, **image, inverse=learning),
        FlattenOptions(),
        DenseOptions(units=32, activation="elu", init="uniform", inverse=learning),
        DenseOptions(units=CLASSES, activation="linear", init="uniform", inverse=linear),
    ]
    rule = RULES["ldrl"](name="ldrl").build(len(options))
    shapes = layer_shapes(SHAPE, options)
    optimizers = (SGDOptions(lr=0.0), optimizer)
    layers = [
        build_layer(each, index, shapes, rule, optimizers, seed=seed) for index, each in enumerate(options, 1)
    ]
    return layers, rule


def minibatch(number: int) -> tuple[Tensor, Tensor]:
    """Return images of noise and labels."""
    generator = torch.Generator().manual_seed(number)
    return (
        torch.randn(BATCH, *SHAPE, generator=generator),
        torch.randint(0, CLASSES, (BATCH,), generator=generator),
    )


def angles(layers: list[Layer], rule: Rule, x: Tensor, labels: Tensor) -> dict[int, float]:
    """Return, per hidden layer, the mean angle between delta_l and -dLoss/dh_l over the examples, degrees."""
    h, contexts = [x.clone().requires_grad_()], []
    for layer in layers:
        context = layer.f.with_context(h[-1].detach(), Call(Randomness(0, layer.index, 0, "both")))[1]
        contexts.append(context)
        h.append(nn.Sequential(*layer.f.torch_modules())(h[-1]))
    gradients = torch.autograd.grad(cross_entropy(h[-1], labels), h[1:-1])
    values = [each.detach() for each in h]
    delta, found = rule.output(values[-1], labels), {}
    for layer in reversed(layers[1:]):
        call = Call(Randomness(0, layer.index, 0, "both"), context=contexts[layer.index - 1])
        delta = rule.propagate(layer, values[layer.index - 1], values[layer.index], delta, call)
        gradient = gradients[layer.index - 2]
        cosine = cosine_similarity(delta.flatten(1), -gradient.flatten(1)).clamp(-1.0, 1.0)
        found[layer.index - 1] = torch.rad2deg(torch.acos(cosine)).mean().item()
    return dict(sorted(found.items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=20, help="K")
    parser.add_argument("--minibatches", type=int, default=20)
    parser.add_argument("--sigma", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=0.01)
    options = parser.parse_args()
    rate = Cosine(start=options.lr, length=options.minibatches + 1, unit="minibatch")
    layers, rule = network(options.seed, options.iterations, options.sigma, AdamOptions(lr=rate))
    stage = Stage(layers, rule, seed=options.seed, remedies=DelayOptions())
    held_out = minibatch(0)
    before = angles(layers, rule, *held_out)
    stage.begin(Phase.INVERSE, 0)
    for k in range(1, options.minibatches + 1):
        stage.forward(k, *minibatch(k))
        stage.inverse(k)
    after = angles(layers, rule, *held_out)
    print("layer  before  after (degrees)")
    for index, angle in before.items():
        print(f"{index:5d}  {angle:6.1f}  {after[index]:5.1f}")


if __name__ == "__main__":
    main()
