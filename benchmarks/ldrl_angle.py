"""Angles between L-DRL's targets and the negative gradient on fixed weights, before and after I.

    python benchmarks/ldrl_angle.py                                        a small convolutional network
    python benchmarks/ldrl_angle.py configs/resnet18_cifar10.yaml data.root=../shared/data --minibatches 30
    python benchmarks/ldrl_angle.py configs/resnet18_cifar10.yaml data.name=synthetic \
        "data.options={shape: [3, 32, 32], examples: 6000}" --minibatches 30      the same on made-up images
    python benchmarks/ldrl_angle.py --pooling ../shared/data              a layer that pools by maximum, alone

The forward weights stay as they are; the inverses alone learn, K iterations in each of a few minibatches.
Angles are means over the examples of a minibatch that was not learned from, in degrees.

With --pooling it is the angle between the Jacobian of g and the transpose of that of f (docs/diagnostics.md)
of a 3x3 convolution from 32 to 32 channels, padded by 1, with ELU and pooling, behind a first layer that is
the same, from 3 to 32 channels, without pooling. K = 20 in 25 minibatches of 32 of standardized CIFAR-10: 500
updates by SGD with rate 1e-4 and momentum 0.9; sigma 0.4, ELU on the inverse's input. All weights start as
torch's own, the same in each line of what is printed.
"""

from __future__ import annotations

import argparse
from typing import Any

from dtp_dist import load_config
from dtp_dist.config.batches import load_batches
from dtp_dist.data import Batches
from dtp_dist.phase import Phase
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.stage.worker import StageWorker
from helpers.measuring import machine

MAX_POOL = {"pool": "max", "pool_kernel": 3, "pool_stride": 2, "pool_padding": 1}
FALLING = {"schedule": "cosine", "start": 0.01, "length": 21, "unit": "minibatch"}
SMALL: dict[str, Any] = {
    "model": {
        "input": [3, 12, 12],
        "defaults": {
            "activation": "elu",
            "init": "uniform",
            "kernel": 3,
            "padding": 1,
            "inverse": {"activation": "elu", "activation_of": "input", "iterations": 20, "sigma": 0.1},
        },
        "layers": [
            {"kind": "conv", "channels": 8, **MAX_POOL},
            {"kind": "conv", "channels": 16, **MAX_POOL},
            {"kind": "flatten"},
            {"kind": "dense", "units": 32},
            {"kind": "dense", "units": 10, "activation": "linear", "inverse": {"activation": "linear"}},
        ],
    },
    "rule": {"name": "ldrl", "places": "clean"},  # which a sigma as small as this one is for
    "optimizer": {"forward": {"name": "sgd", "lr": 0.1}, "inverse": {"name": "adam", "lr": FALLING}},
    "data": {"name": "synthetic", "options": {"shape": [3, 12, 12]}, "batch_size": 64},
}
"""Two conv layers with overlapping max-pooling, flatten and two dense layers, ELU; made-up images."""
POOLINGS = {"2/2": (2, 0), "3/2/1": (3, 1)}
"""Kernel and padding; the stride is 2."""
POOLED_MINIBATCHES = 25
ONE_STAGE = ("parallel.stages=1", "parallel.runtime=inprocess", "parallel.in_flight=1")


def pooled(name: str, places: str, root: str, batch_size: int) -> dict[str, Any]:
    """Return the configuration in which layer 2 is one that pools by maximum."""
    images = {"kind": "conv", "channels": 32, "padding": 1}
    kernel, padding = POOLINGS[name]
    pooling = {"pool": "max", "pool_kernel": kernel, "pool_stride": 2, "pool_padding": padding}
    inverse = {"activation": "elu", "activation_of": "input", "iterations": 20, "sigma": 0.4}
    return {
        "model": {
            "input": [3, 32, 32],
            "layers": [
                images,
                {**images, **pooling, "inverse": inverse},
                {"kind": "flatten"},
                {"kind": "dense", "units": 10, "activation": "linear", "inverse": {"iterations": 0}},
            ],
        },
        "rule": {"name": "ldrl", "places": places},
        "optimizer": {
            "forward": {"name": "sgd", "lr": 0.1},
            "inverse": {"name": "sgd", "lr": 1e-4, "momentum": 0.9},
        },
        "data": {"name": "cifar10", "root": root, "batch_size": batch_size, "normalize": "standardize"},
    }


def measured(worker: StageWorker, batches: Batches) -> dict[str, float]:
    """Return the diagnostics of minibatch 0."""
    stage = worker.stage
    stage.begin(Phase.FORWARD, 0)
    stage.forward(0, *batches.minibatch(0, 0))
    stage.target(0, None)
    stage.align(0, None)
    stage.abandon()
    return stage.meter.take().means()


def angles(worker: StageWorker, batches: Batches) -> list[float]:
    """Return, per hidden layer, the mean angle between delta_l and -dLoss/dh_l over minibatch 0, degrees."""
    means = measured(worker, batches)
    return [means[f"layer/{index}/target_angle"] for index in range(1, len(worker.stage.layers))]


def learn(worker: StageWorker, batches: Batches, minibatches: int) -> None:
    """Let the inverses learn in minibatches 1, 2, ... of epoch 0."""
    worker.stage.begin(Phase.INVERSE, 0)
    for k in range(1, minibatches + 1):
        worker.stage.forward(k, *batches.minibatch(0, k))
        worker.stage.inverse(k)


def pooling_angles(root: str, batch_size: int) -> None:
    """Measure and print the angles of layers that pool."""
    print("pooling  rule.places  before  after (degrees)")
    for places in ("own", "clean"):
        for name in POOLINGS:
            config = resolve(load_config(pooled(name, places, root, batch_size), ONE_STAGE))
            batches = load_batches(config)["train"]
            worker = StageWorker(config, 0, {"train": batches}, lambda report: None)
            old = measured(worker, batches)["layer/2/jacobian_angle"]
            learn(worker, batches, POOLED_MINIBATCHES)
            new = measured(worker, batches)["layer/2/jacobian_angle"]
            print(f"{name:>7}  {places:>11}  {old:6.1f}  {new:5.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", help="a configuration of rule ldrl; a small network without")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--minibatches", type=int, default=20, help="to learn from")
    parser.add_argument("--pooling", metavar="ROOT", help="a layer that pools; where CIFAR-10 is")
    parser.add_argument("--batch-size", type=int, default=32, help="with --pooling")
    options = parser.parse_args()
    if options.pooling:
        print(machine())
        pooling_angles(options.pooling, options.batch_size)
        return
    config = resolve(load_config(options.config or SMALL, [*options.overrides, *ONE_STAGE]))
    batches = load_batches(config)["train"]
    if options.minibatches >= batches.count:
        parser.error(
            f"--minibatches {options.minibatches} is too many; an epoch has {batches.count} with one held out"
        )
    worker = StageWorker(config, 0, {"train": batches}, lambda report: None)
    print(machine())
    before = angles(worker, batches)
    learn(worker, batches, options.minibatches)
    print("layer      kind  before  after (degrees)")
    pairs = zip(config.model.options, before, angles(worker, batches), strict=False)
    for index, (layer, old, new) in enumerate(pairs, 1):
        print(f"{index:5d}  {layer.kind:>8}  {old:6.1f}  {new:5.1f}")


if __name__ == "__main__":
    main()
