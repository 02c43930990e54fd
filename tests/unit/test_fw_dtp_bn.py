"""FW-DTP with batch normalisation against the path of its authors' code, FWDTP-BN, and what it refuses."""

import pytest
import torch
from closeness import assert_near
from torch import Tensor
from torch.nn.functional import cross_entropy

from dtp_dist import load_config, train
from dtp_dist.algorithm.layers import DenseOptions, InverseOptions
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from networks import SIZES, build, exact_step, rule, same_bits, stages, values
from runs import small

STEP, RATE = 0.04, 0.1
LINEAR_LAST = ("tanh", "tanh", "tanh", "linear")


def layers_of(dtype: torch.dtype = torch.float64, delay: int = 0):
    """The published network in small: weights as they start, g's at U(-1e-3, 1e-3)."""
    fixed = InverseOptions(init="uniform", scale=1e-3, norm="minibatch")
    options = [
        DenseOptions(units=units, activation=activation, bias=False, norm="minibatch", inverse=fixed)
        for units, activation in zip(SIZES[1:], LINEAR_LAST, strict=True)
    ]
    learning = rule("fw_dtp", target_step=STEP, normalize_targets=True)
    forward = SGDOptions(lr=RATE)
    return build(options, learning, forward=forward, delay=delay, dtype=dtype, scrambled=False), learning


def batch_normalization(x: Tensor) -> Tensor:
    return (x - torch.mean(x, dim=0)) / (torch.std(x, dim=0) + 1e-12)


class Authors:
    """A minibatch as their code does it: W of layers 0 .. depth - 1, B of those above the first."""

    def __init__(self, layers) -> None:
        self.depth = len(layers)
        self.weights = [layer.f.parameters()[0].detach().clone() for layer in layers]
        self.feedback = [None, *[layer.g.parameters()[0].detach().clone() for layer in layers[1:]]]

    def layer(self, d: int, x: Tensor, weight: Tensor) -> Tensor:
        z = x @ weight.T
        return batch_normalization(z if d == self.depth - 1 else torch.tanh(z))

    def backward_function_1(self, d: int, y: Tensor) -> Tensor:
        return batch_normalization(torch.tanh(y @ self.feedback[d].T))

    def backward_function_2(self, d: int, plane: Tensor, original: Tensor) -> Tensor:
        upper = self.layer(d, original, self.weights[d])
        difference = original - self.backward_function_1(d, upper)
        return batch_normalization(plane + difference)

    def forward(self, x: Tensor, weights: list[Tensor]) -> list[Tensor]:
        outputs = []
        for d in range(self.depth):
            x = self.layer(d, x, weights[d])
            outputs.append(x)
        return outputs

    def targets(self, x: Tensor, labels: Tensor) -> list[Tensor]:
        outputs = self.forward(x, self.weights)
        last = outputs[-1].requires_grad_()
        gradient = torch.autograd.grad(cross_entropy(last, labels, reduction="sum"), last)[0]
        found = [last.detach() - STEP * gradient]
        for d in reversed(range(1, self.depth)):
            found.append(self.backward_function_2(d, self.backward_function_1(d, found[-1]), outputs[d - 1]))
        return found[::-1]

    def update(self, x: Tensor, targets: list[Tensor]) -> None:
        """Each layer's loss, summed, in the graph of the whole network; all from the weights as they were."""
        weights = [weight.clone().requires_grad_() for weight in self.weights]
        outputs = self.forward(x, weights)
        for d in range(self.depth):
            loss = (targets[d] - outputs[d]).square().sum()
            gradient = torch.autograd.grad(loss, weights[d], retain_graph=True)[0]
            self.weights[d] = self.weights[d] - RATE / len(x) * gradient


def minibatch(k: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Minibatch k; the last of an epoch is smaller."""
    generator = torch.Generator().manual_seed(3000 + k)
    examples = 5 if k == 2 else 16
    x = torch.randn(examples, SIZES[0], generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, SIZES[-1], (examples,), generator=generator)


def test_displacements_are_the_authors_targets_less_the_outputs():
    layers, learning = layers_of()
    authors, (x, labels) = Authors(layers), minibatch(0)
    outputs, targets = authors.forward(x, authors.weights), authors.targets(x, labels)
    parts = stages(layers, learning, [1] * len(layers))
    h = x
    for part in parts:
        h = part.forward(0, h, labels)
    delta = parts[-1].rule.output(h, labels, parts[-1].loss)
    for part, output, target in reversed(list(zip(parts, outputs, targets, strict=True))):
        assert_near(delta, target - output)
        delta = part.target(0, None if part.last else delta)
    assert delta is None


def test_weights_after_several_minibatches_are_the_authors():
    layers, learning = layers_of()
    authors, start = Authors(layers), values(layers)
    (stage,) = stages(layers, learning)
    for k in range(6):
        x, labels = minibatch(k)
        authors.update(x, authors.targets(x, labels))
        exact_step([stage], k, x, labels)
    for layer, expected in zip(layers, authors.weights, strict=True):
        assert_near(layer.f.parameters()[0].detach(), expected)
        first = start.pop(0)
        assert (expected - first).abs().max() > 1e-3 * first.abs().max(), "nothing was learned"
        if layer.inverse is not None:
            assert torch.equal(layer.g.parameters()[0], start.pop(0)), "a fixed inverse moved"


def test_with_delay_a_target_is_of_the_output_that_went_out():
    """Two minibatches in flight: the second one's target is of its own F, its update at today's weights."""
    layers, learning = layers_of(delay=1)
    authors, data = Authors(layers), [minibatch(k) for k in range(2)]
    inputs = [[x, *authors.forward(x, authors.weights)] for x, _ in data]
    displacements = [
        [target - output for target, output in zip(authors.targets(x, labels), h[1:], strict=True)]
        for (x, labels), h in zip(data, inputs, strict=True)
    ]
    (stage,) = stages(layers, learning)
    for k, (x, labels) in enumerate(data):
        stage.forward(k, x, labels)
    for k in range(2):
        stage.target(k, None)
        stage.update(k)
        for d in range(authors.depth):
            weight = authors.weights[d].clone().requires_grad_()
            y = authors.layer(d, inputs[k][d], weight)
            loss = (y - (y.detach() + displacements[k][d])).square().sum()
            (gradient,) = torch.autograd.grad(loss, weight)
            authors.weights[d] = authors.weights[d] - RATE / len(y) * gradient
    for layer, expected in zip(layers, authors.weights, strict=True):
        assert_near(layer.f.parameters()[0].detach(), expected)


def test_any_partition_gives_the_same_bits():
    found = []
    for split in ([4], [1, 3], [1, 1, 1, 1]):
        layers, learning = layers_of(torch.float32)
        parts = stages(layers, learning, split)
        for k in range(3):
            exact_step(parts, k, *minibatch(k, torch.float32))
        found.append(values(layers))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_a_normalised_target_needs_the_whole_output_below():
    for normalizes in (True, False):
        learning = rule("fw_dtp", normalize_targets=normalizes).build(4)
        read = [learning.reads_input(layer, Phase.BOTH) for layer in (1, 2, 3, 4)]
        assert read == [False, normalizes, normalizes, normalizes]


def published(*overrides: str):
    raw = small(rule={"name": "fw_dtp", "normalize_targets": True, "target_step": STEP})
    raw["model"]["defaults"] |= {"bias": False, "norm": "minibatch"}
    raw["model"]["defaults"]["inverse"] = {"init": "uniform", "scale": 1e-3, "norm": "minibatch"}
    raw["optimizer"] = {"forward": {"name": "sgd", "lr": 0.5}}
    return load_config(raw, ["monitor.tensorboard=false", "train.epochs=3", *overrides])


def test_it_learns_the_digits_and_evaluates_by_the_minibatchs_statistics(tmp_path):
    first = train(published(f"run_dir={tmp_path / 'one'}", "data.eval_batch_size=397"))
    assert first.result["test_error"] < 20
    again = train(published(f"run_dir={tmp_path / 'two'}", "data.eval_batch_size=8"))
    assert again.result["weights_sha256"] == first.result["weights_sha256"]
    assert again.result["test_error"] != first.result["test_error"], "evaluated one with the other"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.layers.3.norm=none", r"layer 3's are not; write norm: minibatch, after the activation"),
        ("model.layers.3.norm=batch", r"layer 3's are not; write norm: minibatch, after the activation"),
        ("model.layers.1.norm_place=before_activation", r"layer 1's are not; write norm: minibatch"),
    ],
)
def test_outputs_that_are_not_normalised_are_refused(override, words):
    with pytest.raises(ConfigError, match=rf"^rule\.normalize_targets: true needs .*{words}"):
        published(override)


def test_the_last_layer_need_not_be_normalised():
    published("model.layers.5.norm=none")
