"""Every loss against torch's own, every rule's step along it, and what outputs are measured by."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from dtp_dist.algorithm.losses import CROSS_ENTROPY, LOSSES, CrossEntropy, Loss
from dtp_dist.algorithm.losses.metrics import R2Sums
from dtp_dist.algorithm.losses.output import OutputMeasure
from dtp_dist.algorithm.rules import RULES
from networks import BATCH, SIZES, build, dense, exact_step, minibatch, stages, values

K = SIZES[-1]
MSE, BINARY = LOSSES["mse"](), LOSSES["binary_cross_entropy"]()
STEPS: dict[str, float] = dict.fromkeys(
    ("dtp", "tp", "backprop", "feedback_alignment", "dfa", "autoencoder"), 1 / BATCH
)
"""What a rule multiplies the gap of an example by; that of all others is their target_step."""


def outputs(dtype: torch.dtype = torch.float64, columns: int = K) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return (torch.randn(BATCH, columns, generator=generator, dtype=torch.float64) * 2).to(dtype)


def numbers(columns: int = K) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(BATCH, columns, generator=generator) * 3


def present(columns: int = K) -> Tensor:
    return (numbers(columns) > 0).float()


def classes() -> Tensor:
    return minibatch()[1]


def one_hot(dtype: torch.dtype) -> Tensor:
    return torch.eye(K, dtype=dtype)[classes()]


def theirs(of: Tensor, labels: Tensor, loss: str, smoothing: float = 0.0) -> Tensor:
    """Return torch's own loss, summed over units and examples."""
    if loss == "cross_entropy":
        return cross_entropy(of, labels, label_smoothing=smoothing, reduction="sum")
    wanted = one_hot(of.dtype) if labels.dim() == 1 else labels.to(of.dtype)
    if loss == "mse":
        return mse_loss(of, wanted, reduction="sum")
    return binary_cross_entropy_with_logits(of, wanted, reduction="sum")


CASES: dict[str, tuple[Loss, Tensor, str, float]] = {
    "classes": (CROSS_ENTROPY, classes(), "cross_entropy", 0.0),
    "smoothed classes": (CrossEntropy(0.3), classes(), "cross_entropy", 0.3),
    "numbers": (MSE, numbers(), "mse", 0.0),
    "classes as numbers": (MSE, classes(), "mse", 0.0),
    "several labels": (BINARY, present(), "binary_cross_entropy", 0.0),
    "soft labels": (BINARY, numbers().sigmoid(), "binary_cross_entropy", 0.0),
    "each class against the others": (BINARY, classes(), "binary_cross_entropy", 0.0),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES)
EVERY_TYPE = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


@EVERY_CASE
@EVERY_TYPE
def test_the_gap_is_minus_the_gradient_of_each_examples_loss(case, dtype):
    loss, labels, name, smoothing = CASES[case]
    at = outputs(dtype).requires_grad_()
    before = labels.clone()
    (gradient,) = torch.autograd.grad(theirs(at, labels, name, smoothing), at)
    assert_near(loss.gap(at.detach(), labels), -gradient)
    assert torch.equal(labels, before)


@EVERY_CASE
@EVERY_TYPE
def test_the_value_is_torchs_summed_over_units_and_averaged_over_the_minibatch(case, dtype):
    loss, labels, name, smoothing = CASES[case]
    expected = theirs(outputs(dtype), labels, name, smoothing) / BATCH
    assert_near(loss.mean(outputs(dtype), labels), expected)


def test_torchs_own_means_are_over_units_too():
    """As docs/losses.md has it: K times theirs."""
    at, wanted = outputs(), numbers().double()
    assert_near(MSE.mean(at, numbers()), K * mse_loss(at, wanted))
    found = BINARY.mean(at, present())
    assert_near(found, K * binary_cross_entropy_with_logits(at, present().double()))


def test_the_gap_of_narrow_outputs_is_computed_in_float32():
    at = outputs(torch.bfloat16)
    for loss, labels, _, _ in CASES.values():
        found = loss.gap(at, labels)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, loss.gap(at.float(), labels).bfloat16())


def test_labels_of_another_width_are_no_data():
    for loss in (MSE, BINARY):
        with pytest.raises(AssertionError, match="labels"):
            loss.gap(outputs(), torch.zeros(BATCH, 1))


@EVERY_CASE
@pytest.mark.parametrize("name", [*STEPS, "ldrl", "fw_dtp", "sdtp"])
def test_a_rules_output_target_is_its_own_step_along_the_gradient(name, case):
    """dtp, tp, backprop and autoencoder take that of the minibatch's mean, all others each example's own."""
    loss, labels, own, smoothing = CASES[case]
    options = RULES[name]()
    at = outputs().requires_grad_()
    (gradient,) = torch.autograd.grad(theirs(at, labels, own, smoothing), at)
    step = STEPS.get(name) or options.target_step
    if (name, own) == ("sdtp", "mse"):
        step /= 2  # to the label itself
    assert_near(options.build(4).output(at.detach(), labels, loss), -step * gradient)


def test_the_published_output_targets_are_those_of_cross_entropy():
    """Lee 2015: down the mean's gradient; Ernoult 2022, Shibuya 2023: each example's own step."""
    at, labels = outputs(), classes()
    probabilities = at.exp() / at.exp().sum(1, keepdim=True)
    error = one_hot(torch.float64) - probabilities
    found = {
        name: RULES[name]().build(4).output(at, labels, CROSS_ENTROPY)
        for name in ("dtp", "ldrl", "fw_dtp", "sdtp")
    }
    assert_near(found["dtp"], error / BATCH)
    assert_near(found["ldrl"], 0.5 * error)
    assert_near(found["fw_dtp"], 0.04 * error)
    assert_near(found["sdtp"], error)


@pytest.mark.parametrize("case", ["numbers", "classes as numbers", "several labels", "smoothed classes"])
@pytest.mark.parametrize("split", [[4], [2, 2]])
def test_backpropagation_as_a_rule_is_loss_backward_with_any_loss(case, split):
    loss, labels, name, smoothing = CASES[case]
    options = RULES["backprop"]()
    layers = build(dense(), options)
    network = nn.Sequential(
        *(module for layer in build(dense(), options) for module in layer.f.torch_modules())
    )
    x = minibatch()[0]
    (theirs(network(x), labels, name, smoothing) / BATCH).backward()
    before = values(layers)
    parts = stages(layers, options, split, loss=loss)
    exact_step(parts, 0, x, labels)
    for old, new, parameter in zip(before, values(layers), network.parameters(), strict=True):
        assert_near(new - old, -parameter.grad)


# What outputs are measured by


def measured(loss: Loss, at: Tensor, labels: Tensor, **more: Any) -> dict[str, float]:
    found = OutputMeasure(loss, **more)(at, labels)
    assert found is not None
    return found


def test_classes_are_measured_by_error_and_with_more_than_five_by_the_five_largest():
    at = outputs(columns=9)
    labels = at.argsort(1, descending=True)[torch.arange(BATCH), torch.tensor([0, 1, 4, 5, 8, 0, 5])]
    for loss in (CROSS_ENTROPY, MSE, BINARY):
        found = measured(loss, at, labels)
        assert found.keys() == {"loss", "error", "top_5_error"}
        assert (found["error"], found["top_5_error"]) == (100 * 5 / 7, 100 * 3 / 7)
    assert measured(MSE, outputs(columns=5), classes()).keys() == {"loss", "error"}


def test_of_equal_outputs_the_first_counts_as_larger():
    found = measured(CROSS_ENTROPY, torch.zeros(10, 10), torch.arange(10))
    assert (found["error"], found["top_5_error"]) == (90.0, 50.0)


def test_numbers_are_measured_by_their_mean_absolute_error():
    found = measured(MSE, outputs(), numbers())
    assert found.keys() == {"loss", "mean_absolute_error"}
    expected = (outputs() - numbers()).abs().mean().item()
    assert found["mean_absolute_error"] == pytest.approx(expected, rel=tolerance())


def test_several_labels_are_measured_by_what_is_wrong_and_by_what_is_wholly_right():
    at = torch.tensor([[3.0, -1.0, 0.1], [0.0, -2.0, 5.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.4, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    found = measured(BINARY, at, labels)
    assert found.keys() == {"loss", "hamming_distance", "exact_match"}
    assert found["hamming_distance"] == pytest.approx(2 / 12)
    assert found["exact_match"] == 0.75


def r2_as_defined(at: Tensor, labels: Tensor) -> float:
    at, labels = at.double(), labels.double()
    spread = (labels - labels.mean(0)).square().sum(0)
    return (1 - (labels - at).square().sum(0) / spread).mean().item()


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_r2_is_that_of_the_whole_split_however_it_is_cut(shift):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randn(500, 2, generator=generator) * torch.tensor([1.0, 30.0]) + shift
    at = labels + torch.randn(500, 2, generator=generator)
    for size in (500, 70):
        measure = OutputMeasure(MSE, whole=True)
        for part, of in zip(at.split(size), labels.split(size), strict=True):
            measure(part, of)
        assert measure.of_split()["r2_score"] == pytest.approx(r2_as_defined(at, labels), abs=1e-9)


def test_r2_is_of_whole_splits_of_numbers_alone():
    for whole, loss, labels in ((False, MSE, numbers()), (True, MSE, classes()), (True, BINARY, present())):
        measure = OutputMeasure(loss, whole=whole)
        measure(outputs(), labels)
        assert measure.of_split() == {}


@pytest.mark.parametrize(("off", "score"), [(0.0, 1.0), (0.5, 0.5)])
def test_r2_of_labels_that_are_all_alike_is_a_number(off, score):
    """A constant column has 1 where it is met and 0 where not; the other one is met."""
    labels = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    sums = R2Sums()
    sums.add(labels + torch.tensor([0.0, off]), labels)
    assert sums.score() == score


@EVERY_CASE
def test_an_evaluation_of_several_passes_judges_the_mean_prediction(case):
    loss, labels, name, smoothing = CASES[case]
    passes = [outputs(), outputs() + 1.5, -outputs()]
    if name == "cross_entropy":
        mean = sum(each.softmax(1) for each in passes) / 3
        wanted = (1 - smoothing) * one_hot(torch.float64) + smoothing / K
        expected = -(wanted * mean.log()).sum(1).mean().item()
    else:
        wanted = one_hot(torch.float64) if labels.dim() == 1 else labels.double()
        mean = sum(passes if name == "mse" else (each.sigmoid() for each in passes)) / 3
        each = (mean - wanted).square()
        if name != "mse":
            each = -(wanted * mean.log() + (1 - wanted) * (1 - mean).log())
        expected = each.sum(1).mean().item()
    measure = OutputMeasure(loss, 3)
    for _ in range(2):  # it begins again for the next minibatch
        assert [measure(at, labels) for at in passes[:2]] == [None, None]
        found = measure(passes[2], labels)
        assert found["loss"] == pytest.approx(expected, rel=tolerance())


def test_probabilities_that_are_0_or_1_are_averaged_to_a_finite_loss():
    certain = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    for loss, labels in (
        (CROSS_ENTROPY, torch.tensor([1, 0])),
        (BINARY, torch.tensor([[0.0, 1.0], [1.0, 0.0]])),
    ):
        measure = OutputMeasure(loss, 2)
        measure(certain, labels)
        assert math.isfinite(measure(certain, labels)["loss"])


def test_each_loss_says_which_numbers_may_be_labels():
    assert CROSS_ENTROPY.of_numbers is None
    found = torch.tensor([[0.0, 1.0, 0.5, -0.1, 1.1, 1e9, math.nan, math.inf]])
    assert MSE.allowed(found).tolist() == [[True] * 6 + [False] * 2]
    assert BINARY.allowed(found).tolist() == [[True] * 3 + [False] * 5]
