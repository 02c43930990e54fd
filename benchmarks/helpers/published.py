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
KAO = "Kao and Hariharan 2024, arXiv 2409.19841"
BARTUNOV = "Bartunov et al. 2018, arXiv 1807.04587"
MEULEMANS = "Meulemans et al. 2020, arXiv 2006.14331"
NOKLAND = "Nøkland 2016, arXiv 1609.01596"
RERUN = "re-run by others, MLP, 100 epochs"
ERNOULT_TWIN = f"{ERNOULT}, with rate 0.05 and no decay"
TWIN = "its twin by backpropagation"


@dataclass(frozen=True)
class Experiment:
    """One config of ``configs/``: its published test error, if one is known, and the source of it.

    Attributes:
        title: the rule and the network.
        data: the data set that the error is of, as texts call it ("Fashion-MNIST").
        published: the test error in percent, of this network trained in this way; none where none is known.
        twin: the config, here too, of the same network by backpropagation; empty for such a twin itself.
    """

    title: str
    data: str = "MNIST"
    published: float | None = None
    source: str = ""
    how: str = ""
    twin: str = ""


FASHION, CIFAR = "Fashion-MNIST", "CIFAR-10"
EXPERIMENTS = {
    "lee2015_continuous": Experiment(
        "DTP, 784-7x240-10 tanh", "MNIST", 1.94, LEE, "recalled", twin="lee2015_continuous_backprop"
    ),
    "lee2015_continuous_backprop": Experiment(TWIN, "MNIST", 1.86, LEE, "recalled"),
    "lee2015_discrete": Experiment(
        "DTP, signs between layers, 784-500-500-10", twin="lee2015_discrete_backprop"
    ),
    "lee2015_discrete_backprop": Experiment("our own straight-through twin"),
    "lee2015_stochastic": Experiment(
        "DTP, binary samples, 784-200-200-10",
        "MNIST",
        1.54,
        LEE,
        "recalled",
        twin="lee2015_stochastic_backprop",
    ),
    "lee2015_stochastic_backprop": Experiment("its straight-through twin"),
    "lee2015_autoencoder": Experiment(
        "denoising autoencoder 784-1000, softmax on its code, tuned by labels",
        twin="lee2015_autoencoder_backprop",
    ),
    "lee2015_autoencoder_code": Experiment(
        "the same without labels in its code", twin="lee2015_autoencoder_backprop"
    ),
    "lee2015_autoencoder_backprop": Experiment("twin of both: the same network by backpropagation"),
    "lee2015_cifar10": Experiment(
        "DTP, 3072-3x1000-10 tanh", CIFAR, 49.29, LEE, "recalled", twin="lee2015_cifar10_backprop"
    ),
    "lee2015_cifar10_backprop": Experiment(TWIN, CIFAR, 46.28, LEE, "recalled"),
    "ernoult2022_mlp_mnist": Experiment(
        "L-DRL, 784-5x256-10 tanh", "MNIST", 6.71, RERUN, "read", twin="ernoult2022_mlp_mnist_backprop"
    ),
    "ernoult2022_mlp_mnist_backprop": Experiment(TWIN, "MNIST", 1.81, RERUN, "read"),
    "ernoult2022_mlp_fashion_mnist": Experiment(
        "L-DRL, 784-5x256-10 tanh",
        FASHION,
        16.40,
        RERUN,
        "read",
        twin="ernoult2022_mlp_fashion_mnist_backprop",
    ),
    "ernoult2022_mlp_fashion_mnist_backprop": Experiment(TWIN, FASHION, 10.42, RERUN, "read"),
    "ernoult2022_lenet_cifar10": Experiment("L-DRL, LeNet", CIFAR, twin="ernoult2022_lenet_cifar10_backprop"),
    "ernoult2022_lenet_cifar10_backprop": Experiment(TWIN, CIFAR),
    "ldrl_mnist": Experiment(
        "L-DRL, mirrored noise of a quarter", "MNIST", twin="ernoult2022_mlp_mnist_backprop"
    ),
    "ldrl_lenet_cifar10": Experiment(
        "L-DRL, LeNet, inverses solved", CIFAR, twin="ldrl_lenet_cifar10_backprop"
    ),
    "ldrl_lenet_cifar10_backprop": Experiment(TWIN, CIFAR),
    "ernoult2022_vgg_cifar10": Experiment(
        "L-DRL, VGG-like", CIFAR, 10.62, ERNOULT, "read", twin="ernoult2022_vgg_cifar10_backprop"
    ),
    "ernoult2022_vgg_cifar10_backprop": Experiment(TWIN, CIFAR, 10.93, ERNOULT_TWIN, "read"),
    "shibuya2023_mnist": Experiment(
        "FW-DTP without batch norm, 784-5x256-10", "MNIST", twin="shibuya2023_mnist_backprop"
    ),
    "shibuya2023_mnist_bn": Experiment(
        "FW-DTP with batch norm, 784-5x256-10",
        "MNIST",
        2.80,
        RERUN,
        "read",
        twin="shibuya2023_mnist_bn_backprop",
    ),
    "shibuya2023_mnist_bn_backprop": Experiment(TWIN, "MNIST", 1.81, RERUN, "read"),
    "shibuya2023_mnist_backprop": Experiment(TWIN, "MNIST", 1.81, RERUN, "read"),
    "shibuya2023_fashion_mnist": Experiment(
        "FW-DTP without batch norm, 784-5x256-10", FASHION, twin="shibuya2023_fashion_mnist_backprop"
    ),
    "shibuya2023_fashion_mnist_backprop": Experiment(TWIN, FASHION, 10.42, RERUN, "read"),
    "shibuya2023_cifar10": Experiment(
        "FW-DTP with batch norm, 3072-3x1024-10",
        CIFAR,
        54.09,
        KAO,
        "read",
        twin="shibuya2023_cifar10_backprop",
    ),
    "shibuya2023_cifar10_backprop": Experiment(TWIN, CIFAR, 49.97, KAO, "read"),
    "ccl2024_mnist": Experiment(
        "CCL, 784-5x256-10 elu", "MNIST", 1.87, KAO, "read", twin="ccl2024_mnist_backprop"
    ),
    "ccl2024_mnist_backprop": Experiment(TWIN, "MNIST", 1.81, KAO, "read"),
    "ccl2024_fashion_mnist": Experiment(
        "CCL, 784-5x256-10 elu", FASHION, 11.42, KAO, "read", twin="ccl2024_fashion_mnist_backprop"
    ),
    "ccl2024_fashion_mnist_backprop": Experiment(TWIN, FASHION, 10.42, KAO, "read"),
    "ccl2024_cifar10": Experiment(
        "CCL, 3072-3x1024-10 elu", CIFAR, 47.27, KAO, "read", twin="ccl2024_cifar10_backprop"
    ),
    "ccl2024_cifar10_backprop": Experiment(TWIN, CIFAR, 49.97, KAO, "read"),
    "bartunov2018_sdtp_mnist": Experiment(
        "SDTP in parallel, 784-5x256-10 tanh",
        "MNIST",
        3.52,
        BARTUNOV,
        "read",
        twin="bartunov2018_sdtp_mnist_backprop",
    ),
    "bartunov2018_sdtp_alternating_mnist": Experiment(
        "SDTP alternating, 784-5x256-10 tanh",
        "MNIST",
        2.28,
        BARTUNOV,
        "read",
        twin="bartunov2018_sdtp_mnist_backprop",
    ),
    "bartunov2018_sdtp_mnist_backprop": Experiment("twin of both", "MNIST", 1.48, BARTUNOV, "read"),
    "meulemans2020_ddtp_linear_mnist": Experiment(
        "DDTP-linear, 784-5x256-10 tanh",
        "MNIST",
        2.04,
        MEULEMANS,
        "recalled",
        twin="meulemans2020_ddtp_linear_mnist_backprop",
    ),
    "meulemans2020_ddtp_linear_mnist_backprop": Experiment(TWIN, "MNIST", 1.98, MEULEMANS, "recalled"),
    "dfa_mnist": Experiment(
        "DFA, 784-2x800-10 tanh", "MNIST", 1.74, NOKLAND, "recalled", twin="dfa_mnist_backprop"
    ),
    "feedback_alignment_mnist": Experiment(
        "FA, 784-2x800-10 tanh", "MNIST", 1.64, NOKLAND, "recalled", twin="dfa_mnist_backprop"
    ),
    "dfa_mnist_backprop": Experiment("twin of both", "MNIST", 1.60, NOKLAND, "recalled"),
}
