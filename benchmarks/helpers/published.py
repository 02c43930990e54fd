"""The experiments that have a config each, and what was published about them, with where that is from.

``how``: "read" in the source itself (its code, or the paper), or "recalled" and not read again. Errors are
percent. A figure of another network or another way to train is not listed: 1.71 of a straight-through
estimator and 1.35 of an autoencoder, as recalled from Lee et al. 2015, are such.
"""

from __future__ import annotations

from dataclasses import dataclass

LEE = "Lee et al. 2015, arXiv 1412.7525"
ERNOULT = "Ernoult et al. 2022, arXiv 2201.13415"
SHIBUYA = "Shibuya et al. 2023, arXiv 2212.10352"
AUGMENTED = "with flips, crops and settings that the config names"
RERUN = "re-run by others, MLP, 100 epochs"

CIFAR_SHAPED = (
    "data.name=synthetic",
    "data.options={examples: 740, shape: [3, 32, 32]}",  # 518 to learn from: 4 minibatches of the VGG-like
    "train.epochs=1",
    "train.evaluate_every=1",
)


@dataclass(frozen=True)
class Experiment:
    """One config of ``configs/``: its published test error, if one is known, and the source of it.

    Attributes:
        data: the data set that the error is of.
        stand_in: overrides for made-up data of the right shape, where the data set is not at hand.
    """

    title: str
    data: str = "MNIST"
    published: float | None = None
    source: str = ""
    how: str = ""
    stand_in: tuple[str, ...] = ()


EXPERIMENTS = {
    "lee2015_continuous": Experiment("DTP, 784-7x240-10 tanh", "MNIST", 1.94, LEE, "recalled"),
    "lee2015_continuous_backprop": Experiment("its backprop twin", "MNIST", 1.86, LEE, "recalled"),
    "lee2015_discrete": Experiment("DTP, signs between layers, 784-500-500-10"),
    "lee2015_discrete_backprop": Experiment("our own straight-through twin"),
    "lee2015_stochastic": Experiment("DTP, binary samples, 784-200-200-10", "MNIST", 1.54, LEE, "recalled"),
    "lee2015_stochastic_backprop": Experiment("its straight-through twin"),
    "lee2015_autoencoder": Experiment("denoising autoencoder 784-1000, softmax on its code, tuned by labels"),
    "lee2015_autoencoder_code": Experiment("the same without labels in its code"),
    "lee2015_cifar10": Experiment(
        "DTP, 3072-3x1000-10 tanh", "CIFAR-10", 49.29, LEE, "recalled", CIFAR_SHAPED
    ),
    "lee2015_cifar10_backprop": Experiment(
        "its backprop twin", "CIFAR-10", 46.28, LEE, "recalled", CIFAR_SHAPED
    ),
    "ernoult2022_mlp_mnist": Experiment("L-DRL, 784-5x256-10 tanh", "MNIST", 6.71, RERUN, "read"),
    "ernoult2022_mlp_fashion_mnist": Experiment(
        "L-DRL, 784-5x256-10 tanh", "Fashion-MNIST", 16.40, RERUN, "read"
    ),
    "ernoult2022_mlp_mnist_backprop": Experiment("its backprop twin", "MNIST", 1.81, RERUN, "read"),
    "ernoult2022_mlp_fashion_mnist_backprop": Experiment(
        "its backprop twin", "Fashion-MNIST", 10.42, RERUN, "read"
    ),
    "ernoult2022_lenet_cifar10": Experiment("L-DRL, LeNet", "CIFAR-10", stand_in=CIFAR_SHAPED),
    "ernoult2022_lenet_cifar10_backprop": Experiment("its backprop twin", "CIFAR-10", stand_in=CIFAR_SHAPED),
    "ernoult2022_vgg_cifar10": Experiment(
        "L-DRL, VGG-like", "CIFAR-10", 10.62, f"{ERNOULT}, {AUGMENTED}", "read", CIFAR_SHAPED
    ),
    "ernoult2022_vgg_cifar10_backprop": Experiment(
        "its backprop twin", "CIFAR-10", 10.93, f"{ERNOULT}, {AUGMENTED}", "read", CIFAR_SHAPED
    ),
    "shibuya2023_mnist": Experiment("FW-DTP, 6 layers of 256", "MNIST", 2.80, RERUN, "read"),
    "shibuya2023_mnist_bn": Experiment("FW-DTP, batch-normalised forward maps", "MNIST"),
    "shibuya2023_mnist_backprop": Experiment("its backprop twin", "MNIST", 1.81, RERUN, "read"),
    "shibuya2023_fashion_mnist": Experiment("FW-DTP, 6 layers of 256", "Fashion-MNIST", 12.22, RERUN, "read"),
    "shibuya2023_fashion_mnist_bn": Experiment("FW-DTP, batch-normalised forward maps", "Fashion-MNIST"),
    "shibuya2023_fashion_mnist_backprop": Experiment(
        "its backprop twin", "Fashion-MNIST", 10.42, RERUN, "read"
    ),
}
