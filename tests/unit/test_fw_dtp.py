"""Fixed-Weight DTP against its formulas written out once more with autograd (Shibuya et al. 2023)."""

import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor
from torch.nn.functional import cross_entropy

from dtp_dist import load_config, train
from dtp_dist.algorithm.layers import DenseOptions, InverseOptions
from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import AdamOptions, SGDOptions
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.state import layer_state
from dtp_dist.config.parse import parse_options
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from networks import (
    BATCH,
    SEED,
    SIZES,
    build,
    exact_step,
    minibatch,
    rule,
    same_bits,
    stages,
    values,
)
from runs import small

STEP, RATE, EPS = 0.7, 0.4, 1e-5
NORMS = pytest.mark.parametrize("norm", ["none", "batch"])


def network(norm: str = "none", sizes=SIZES):
    fixed = InverseOptions(init="uniform", scale=0.5)
    last = len(sizes) - 2
    return [
        DenseOptions(
            units=units,
            activation="linear" if l == last else "tanh",
            bias=False,
            norm=norm,
            inverse=fixed,
        )
        for l, units in enumerate(sizes[1:])
    ]


def layers_of(norm: str = "none", *, delay=0, dtype=torch.float64, **settings):
    options = rule("fw_dtp", target_step=STEP, **settings)
    layers = build(network(norm), options, forward=SGDOptions(lr=RATE), delay=delay, dtype=dtype)
    return layers, options


class Formulas:
    """The network and the rule, from the paper's formulas: ``weights[l]``, ``inverses[l]``, l from 1."""

    def __init__(self, layers, norm: str, anchor: str = "current") -> None:
        self.norm, self.anchor, self.last = norm, anchor, len(layers)
        self.weights = {each.index: next(iter(values([each]))) for each in layers}
        self.inverses = {each.index: each.g.module.weight.detach().clone() for each in layers[1:]}
        self.h: dict[tuple[int, int], Tensor] = {}
        self.delta: dict[tuple[int, int], Tensor] = {}

    def f(self, l: int, x: Tensor, weight: Tensor) -> Tensor:
        z = x @ weight.T
        y = z if l == self.last else torch.tanh(z)
        if self.norm == "none":
            return y
        centred = y - y.mean(0)
        return centred / (centred.square().mean(0) + EPS).sqrt()

    def g(self, l: int, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.inverses[l].T)

    def forward(self, k: int, x: Tensor) -> None:
        self.h[0, k] = x
        for l in range(1, self.last + 1):
            self.h[l, k] = self.f(l, self.h[l - 1, k], self.weights[l])

    def target(self, k: int, labels: Tensor) -> None:
        logits = self.h[self.last, k].clone().requires_grad_()
        loss = cross_entropy(logits, labels, reduction="sum")
        self.delta[self.last, k] = -STEP * torch.autograd.grad(loss, logits)[0]
        for l in range(self.last, 1, -1):
            h, delta = self.h[l, k], self.delta[l, k]
            self.delta[l - 1, k] = self.g(l, h + delta) - self.g(l, h)

    def update(self, k: int) -> None:
        for l in range(1, self.last + 1):
            weight = self.weights[l].clone().requires_grad_()
            y = self.f(l, self.h[l - 1, k], weight)
            anchor = self.h[l, k] if self.anchor == "stale" else y.detach()
            loss = (y - (anchor + self.delta[l, k])).square().sum(1).mean()
            self.weights[l] = self.weights[l] - RATE * torch.autograd.grad(loss, weight)[0]


def assert_moved_alike(layers, before: list[Tensor], formulas: Formulas) -> None:
    for layer, old in zip(layers, before, strict=True):
        assert_near(values([layer])[0] - old, formulas.weights[layer.index] - old)


def test_which_inverses_exist_and_that_none_learns():
    learned = rule("fw_dtp").build(5)
    assert list(learned.inverses()) == [2, 3, 4, 5]
    assert not learned.learned_inverses()
    layers, _ = layers_of()
    assert [layer.inverse is not None for layer in layers] == [False, True, True, True]


@NORMS
def test_displacements(norm):
    layers, options = layers_of(norm)
    learned, formulas = options.build(4), Formulas(layers, norm)
    x, labels = minibatch()
    formulas.forward(0, x)
    formulas.target(0, labels)
    assert_near(learned.output(formulas.h[4, 0], labels, CROSS_ENTROPY), formulas.delta[4, 0])
    for l in (4, 3, 2):
        given = formulas.h[l - 1, 0], formulas.h[l, 0], formulas.delta[l, 0]
        found = learned.propagate(layers[l - 1], *given, Call(Randomness(SEED, l, 0, Phase.BOTH)))
        assert_near(found, formulas.delta[l - 1, 0])


@NORMS
@pytest.mark.parametrize("anchor", ["current", "stale"])
def test_whole_steps(anchor, norm):
    layers, options = layers_of(norm, anchor=anchor)
    formulas, before = Formulas(layers, norm, anchor), [values([layer])[0] for layer in layers]
    (stage,) = stages(layers, options)
    for k in range(3):
        x, labels = minibatch(k)
        exact_step([stage], k, x, labels)
        formulas.forward(k, x)
        formulas.target(k, labels)
        formulas.update(k)
    assert_moved_alike(layers, before, formulas)
    assert not [name for name in stage.meter.means() if "inverse" in name]


@NORMS
@pytest.mark.parametrize("anchor", ["current", "stale"])
def test_two_minibatches_in_flight(anchor, norm):
    """The second one's F comes before the first one's U: stored inputs, derivatives at today's weights."""
    layers, options = layers_of(norm, anchor=anchor, jacobian="current", delay=1)
    formulas, before = Formulas(layers, norm, anchor), [values([layer])[0] for layer in layers]
    (stage,) = stages(layers, options)
    data = [minibatch(k) for k in range(2)]
    for k, (x, labels) in enumerate(data):
        stage.forward(k, x, labels)
        formulas.forward(k, x)
    for k, (_, labels) in enumerate(data):
        stage.inverse(k)
        stage.target(k, None)
        stage.update(k)
        formulas.target(k, labels)
        formulas.update(k)
    assert_moved_alike(layers, before, formulas)


def test_a_local_loss_is_the_displacements_square_in_every_layer():
    layers, options = layers_of()
    formulas = Formulas(layers, "none")
    x, labels = minibatch()
    formulas.forward(0, x)
    formulas.target(0, labels)
    (stage,) = stages(layers, options)
    exact_step([stage], 0, x, labels)
    means = stage.meter.means()
    for l in (1, 2, 3, 4):
        expected = formulas.delta[l, 0].square().sum().item() / BATCH
        assert means[f"layer/{l}/forward_loss"] == pytest.approx(expected, rel=tolerance())


@NORMS
def test_any_partition_gives_the_same_bits_and_fixed_inverses_stay(norm):
    found = []
    for split in ([4], [1, 3], [1, 1, 1, 1]):
        options = rule("fw_dtp", target_step=STEP)
        layers = build(network(norm), options, forward=AdamOptions(lr=0.01), dtype=torch.float32)
        inverses = [layer.g.module.weight.detach().clone() for layer in layers[1:]]
        parts = stages(layers, options, split)
        for k in range(3):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))
        assert same_bits(inverses, [layer.g.module.weight for layer in layers[1:]])
        states = [layer_state(layer) for layer in layers]
        assert not [name for state in states for name in state if name.startswith("inverse.optimizer")]
        found.append([value for state in states for value in state.values()])
    assert all(same_bits(found[0], other) for other in found[1:])


def test_an_inverse_has_its_own_initial_weights():
    own = InverseOptions(init="uniform", scale=0.02, bias=False)
    made = DenseOptions(units=50, inverse=own).maps((40,), torch.Generator().manual_seed(0), inverse=True)
    plain = DenseOptions(units=50).maps((40,), torch.Generator().manual_seed(0), inverse=True)
    assert torch.equal(made[0].module.weight, plain[0].module.weight), "f does not depend on it"
    assert made[0].module.bias is not None
    assert made[1].module.bias is None
    weight = made[1].module.weight.detach()
    assert weight.shape == (40, 50)
    assert 0.0199 < weight.abs().max() <= 0.02
    assert weight.mean().abs() < 0.001
    assert weight.std().item() == pytest.approx(0.02 / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"init": "orthogonal", "scale": 0.1}, "inverse.scale"),
        ({"scale": 0.1}, "inverse.scale"),
        ({"init": "uniform", "scale": 0.0}, "inverse.scale"),
        ({"init": "ones"}, "inverse.init"),
    ],
)
def test_initial_weights_that_make_no_sense_are_refused(settings, key):
    with pytest.raises(ConfigError, match=f"^{key}: "):
        parse_options(DenseOptions, {"units": 3, "inverse": settings})


def test_the_message_names_the_layers_key():
    raw = small()
    raw["model"]["defaults"]["inverse"] = {"scale": 0.1}
    with pytest.raises(
        ConfigError, match=r"^model\.layers\.1\.inverse\.scale: is the bound of init: uniform"
    ):
        load_config(raw)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_pipelined_runs_learn_without_an_inverse_optimizer(norm, tmp_path):
    """Two stages, two minibatches in flight, on the digits."""
    raw = small(rule={"name": "fw_dtp"}, optimizer={"forward": {"name": "sgd", "lr": 1.0}})
    fixed = {"init": "uniform", "scale": 0.3}
    raw["model"]["defaults"] |= {"bias": False, "norm": norm, "inverse": fixed}
    overrides = [f"run_dir={tmp_path / 'run'}", "train.epochs=4", "parallel.stages=2"]
    result, _ = train(load_config(raw, [*overrides, "parallel.in_flight=2", "monitor.tensorboard=false"]))
    assert result["in_flight"] == 2
    assert result["test_error"] < 40
