"""Diagnostics against backpropagation: each angle equals one computed by autograd, and nothing changes."""

from dataclasses import replace

import pytest
import torch
from closeness import angle_tolerance, tolerance
from torch.func import jacrev
from torch.nn.functional import cross_entropy

from dtp_dist import load_config, train
from dtp_dist.algorithm.alignment import angle
from dtp_dist.algorithm.layers import DenseOptions, ResidualOptions
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.phase import Phase
from networks import (
    BATCH,
    SEED,
    Reference,
    ascended,
    build,
    dense,
    minibatch,
    rule,
    same_bits,
    stages,
    values,
)
from runs import read_metrics, small

K = 2
RULES = ["dtp", "tp", "backprop"]


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    """The angle by the half-angle formula, which shares nothing with an arc cosine."""
    a, b = a.flatten() / a.norm(), b.flatten() / b.norm()
    return torch.rad2deg(2 * torch.atan2((a - b).norm(), (a + b).norm())).item()


def flat(tensors) -> torch.Tensor:
    return torch.cat([each.flatten() for each in tensors])


def measured(name: str, split=None, **settings) -> tuple[dict[str, float], Reference]:
    """One minibatch through stages and reference, each up to its T; returns what the stages measured."""
    options, learned = dense(), rule(name, **settings)
    layers = build(options, learned)
    parts, reference = stages(layers, learned, split), Reference(layers, options, learned)
    x, labels = minibatch(K)
    h, delta, descent = x, None, None
    for stage in parts:
        h = stage.forward(K, h, labels)
        stage.inverse(K)
    for stage in reversed(parts):
        delta = stage.target(K, delta)
        descent = stage.align(K, descent)
    assert descent is None
    reference.forward(K, x, labels)
    reference.inverse(K)
    reference.target(K)
    return {name: value for stage in parts for name, value in stage.meter.means().items()}, reference


def true_gradients(reference: Reference) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
    """Return dLoss/dtheta_l and dLoss/dh_l of every layer, by one backward pass through the whole network."""
    weights = [reference.weights[l, "forward"] for l in reference.options]
    h, outputs = reference.h[0, K], []
    for l, parameters in enumerate(weights, 1):
        reference.weights[l, "forward"] = [each.requires_grad_() for each in parameters]
        h = reference.f(l, h)
        outputs.append(h)
    loss = cross_entropy(h, reference.labels[K])
    found = torch.autograd.grad(loss, [*flat_list(weights), *outputs])
    counts = [len(parameters) for parameters in weights]
    return list_of(found, counts), list(found[sum(counts) :])


def flat_list(lists):
    return [each for one in lists for each in one]


def list_of(flat_tensors, counts):
    rest = iter(flat_tensors)
    return [[next(rest) for _ in range(count)] for count in counts]


def scale_of(name: str, reference: Reference, l: int) -> float:
    """What dLoss/dtheta_l is multiplied by with transposed inverses: eta, the square's 2, the mean's B."""
    return 1.0 if name == "backprop" or l == reference.last else 2 * reference.rule.target_step / BATCH


@pytest.mark.parametrize("name", RULES)
def test_updates_and_displacements_are_compared_with_autograds(name):
    found, reference = measured(name)
    gradients, outputs = true_gradients(reference)
    for l in reference.options:
        loss = reference.forward_loss(l, K)
        ours = torch.autograd.grad(loss, reference.weights[l, "forward"])
        expected = degrees(flat(ours), flat(gradients[l - 1]))
        assert found[f"layer/{l}/update_angle"] == pytest.approx(expected, abs=angle_tolerance())
        for kind, f, g in zip(("weight", "bias"), ours, gradients[l - 1], strict=True):
            assert found[f"layer/{l}/{kind}_update_angle"] == pytest.approx(
                degrees(f, g), abs=angle_tolerance()
            )
            f = f / scale_of(name, reference, l)
            distance = ((f - g).norm() / f.norm()).item()
            near = {"rel": tolerance(torch.float64), "abs": tolerance(torch.float64)}
            assert found[f"layer/{l}/{kind}_update_distance"] == pytest.approx(distance, **near)
        pairs = zip(reference.delta[l, K], -outputs[l - 1], strict=True)
        mean = sum(degrees(a, b) for a, b in pairs) / len(reference.labels[K])
        assert found[f"layer/{l}/target_angle"] == pytest.approx(mean, abs=angle_tolerance())
    exact = reference.options if name == "backprop" else [reference.last, reference.last - 1]
    for l in reference.options:
        assert (found[f"layer/{l}/update_angle"] < angle_tolerance()) == (l in exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dtp", "tp"])
def test_inverses_are_compared_with_whole_jacobians(name):
    found, reference = measured(name)
    inverted = [l for l in reference.options if (l, "inverse") in reference.weights]
    assert [l for l in reference.options if f"layer/{l}/jacobian_angle" in found] == inverted == [2, 3]
    for l in inverted:
        h_in, h_out = reference.h[l - 1, K], reference.h[l, K]
        key = derive_seed(SEED, l, K, Phase.BOTH, "alignment", 0)
        v = torch.empty_like(h_out).normal_(generator=torch.Generator().manual_seed(key))
        g = [jacrev(lambda y, l=l: reference.g(l, y))(y) @ each for y, each in zip(h_out, v, strict=True)]
        f = [jacrev(lambda x, l=l: reference.f(l, x))(x).T @ each for x, each in zip(h_in, v, strict=True)]
        assert found[f"layer/{l}/jacobian_angle"] == pytest.approx(
            degrees(flat(g), flat(f)), abs=angle_tolerance()
        )
        error = (reference.g(l, h_out) - h_in).norm() / h_in.norm()
        assert found[f"layer/{l}/reconstruction_error"] == pytest.approx(
            error.item(), rel=tolerance(torch.float64)
        )


@pytest.mark.parametrize("name", ["dtp", "ldrl", "fw_dtp", "backprop"])
def test_with_transposed_inverses_there_is_no_distance_in_any_layer(name):
    """Linear layers: the rule's gradient is the true one but for its step, which is taken off."""
    learned = rule(name)
    layers = build(dense(activation="linear", inverse="linear"), learned)
    with torch.no_grad():
        for layer in layers:
            if layer.inverse is not None:
                layer.g.module.weight.copy_(layer.f.module.weight.T)
    (stage,) = stages(layers, learned)
    stage.forward(K, *minibatch(K))
    stage.target(K, None)
    stage.align(K, None)
    found = {key: value for key, value in stage.meter.means().items() if key.endswith("distance")}
    assert len(found) == 2 * len(layers)
    assert max(found.values()) < tolerance(torch.float64)


def test_parameters_of_a_kind_are_compared_each_by_itself():
    """A residual layer of two weights and a bias: the mean over its weights, and its bias."""
    inside = [DenseOptions(units=5), DenseOptions(units=5, activation="linear", bias=False)]
    options = [DenseOptions(units=5), ResidualOptions(body=inside), dense()[-1]]
    learned = rule("ldrl", target_step=0.5)
    layers = build(options, learned)
    parts = stages(layers, learned, [1, 1, 1])
    x, labels = minibatch(K)
    h = ascended(parts, K, x, labels)
    delta = parts[2].target(K, None)
    parts[1].target(K, delta)
    parts[1].align(K, parts[2].align(K, None))
    call = Call(Randomness(SEED, 2, K, Phase.BOTH))
    call = replace(call, context=layers[1].f.with_context(h[1], call)[1])
    ours = learned.build(3).forward_step(layers[1], h[1], h[2], delta, call).gradients
    network = torch.nn.Sequential(*(each for layer in layers for each in layer.f.torch_modules()))
    true = torch.autograd.grad(cross_entropy(network(x), labels), layers[1].f.parameters())
    found, kinds = parts[1].meter.means(), ["weight", "bias", "weight"]
    for kind in ("weight", "bias"):
        pairs = [(f, g) for f, g, own in zip(ours, true, kinds, strict=True) if own == kind]
        angles = [degrees(f, g) for f, g in pairs]
        mean = sum(angles) / len(angles)
        assert found[f"layer/2/{kind}_update_angle"] == pytest.approx(mean, abs=angle_tolerance())
        distances = [((f / 0.5 - g).norm() / (f / 0.5).norm()).item() for f, g in pairs]
        mean = sum(distances) / len(distances)
        assert found[f"layer/2/{kind}_update_distance"] == pytest.approx(mean, rel=tolerance(torch.float64))


def test_codes_of_an_autoencoder_have_no_distance():
    learned = rule("autoencoder")
    (stage,) = stages(build(dense(), learned), learned)
    stage.forward(K, *minibatch(K))
    stage.target(K, None)
    stage.align(K, None)
    found = {key for key in stage.meter.means() if key.endswith("distance")}
    assert found == {"layer/4/weight_update_distance", "layer/4/bias_update_distance"}


def test_an_inverse_that_is_the_transpose_has_no_angle():
    learned = rule("dtp")
    layers = build(dense(activation="linear", inverse="linear"), learned)
    (stage,) = stages(layers, learned)
    with torch.no_grad():
        layers[1].g.module.weight.copy_(layers[1].f.module.weight.T)
        layers[2].g.module.weight.copy_(-layers[2].f.module.weight.T)
    stage.forward(K, *minibatch(K))
    stage.target(K, None)
    stage.align(K, None)
    found = stage.meter.means()
    assert found["layer/2/jacobian_angle"] == pytest.approx(0.0, abs=angle_tolerance())
    assert found["layer/3/jacobian_angle"] == pytest.approx(180.0, abs=angle_tolerance())


@pytest.mark.parametrize("split", [[1, 2, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize("name", RULES)
def test_the_partition_does_not_matter(name, split):
    assert measured(name, split)[0] == measured(name)[0]


def test_bits_alone_have_no_reconstruction():
    learned = rule("dtp")
    _, upper = stages(build(dense(), learned), learned, [1, 3])
    x, labels = minibatch(K, inputs=5)
    upper.forward(K, x, labels)
    upper.target(K, None)
    upper.align(K, None, knows_input=False)
    found = upper.meter.means()
    assert {"layer/2/jacobian_angle", "layer/3/reconstruction_error"} <= set(found)
    assert "layer/2/reconstruction_error" not in found


def test_a_jump_has_no_jacobian():
    options = dense()
    options[2] = dense(inverse_sees="sign")[2]
    learned = rule("dtp")
    (stage,) = stages(build(options, learned), learned)
    stage.forward(K, *minibatch(K))
    stage.target(K, None)
    stage.align(K, None)
    found = stage.meter.means()
    assert {"layer/2/jacobian_angle", "layer/3/reconstruction_error"} <= set(found)
    assert "layer/3/jacobian_angle" not in found


def test_measuring_changes_nothing():
    learned, found = rule("dtp"), []
    for measures in (False, True):
        layers = build(dense(), learned)
        (stage,) = stages(layers, learned)
        for k in range(3):
            stage.forward(k, *minibatch(k))
            stage.inverse(k)
            stage.target(k, None)
            if measures:
                stage.align(k, None)
            stage.update(k)
        found.append(values(layers))
    assert same_bits(*found)


def test_an_update_of_zeros_is_as_far_as_can_be_told():
    learned = rule("ldrl")
    layers = build(dense(activation="relu"), learned)
    with torch.no_grad():
        layers[2].f.module.weight.zero_()
        layers[2].f.module.bias.fill_(-1.0)
    (stage,) = stages(layers, learned)
    stage.forward(K, *minibatch(K))
    stage.target(K, None)
    stage.align(K, None)
    found = stage.meter.means()
    for kind in ("weight", "bias"):
        assert found[f"layer/3/{kind}_update_distance"] == 1.0
        assert found[f"layer/3/{kind}_update_angle"] == pytest.approx(90.0)


def test_angles():
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [-3e-30, 0.0]])
    y = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1e30], [1.0, 1.0], [1e-30, 0.0]])
    assert angle(x, y).tolist() == pytest.approx([0.0, 45.0, 90.0, 90.0, 180.0], abs=angle_tolerance())


def lines(tmp_path, *overrides: str) -> tuple[str, list[dict[str, float]]]:
    """Train 11 minibatches; returns the weights' hash and, line by line, what was measured of the layers."""
    run_dir = tmp_path / str(len(list(tmp_path.iterdir())))
    raw = small(monitor={"every": 5, "tensorboard": False}, train={"epochs": 1, "max_steps": 11})
    result = train(load_config(raw, [*overrides, f"run_dir={run_dir}"])).result
    told = [{k: v for k, v in line.items() if k.startswith("layer/")} for line in read_metrics(run_dir)]
    return result["weights_sha256"], [line for line in told if line]


@pytest.mark.slow
def test_runs_measure_the_same_in_any_partition_and_learn_as_if_they_did_not(tmp_path):
    quiet, without = lines(tmp_path)
    one, alone = lines(tmp_path, "monitor.alignment_every=5")
    three, together = lines(tmp_path, "monitor.alignment_every=5", "parallel.stages=3")
    assert quiet == one == three
    assert alone == together
    assert "angle" not in str(without)
    assert [sum("angle" in name for name in line) for line in alone] == [23, 23]
    pipelined = ("parallel.stages=3", "parallel.in_flight=3")
    assert lines(tmp_path, *pipelined)[0] == lines(tmp_path, *pipelined, "monitor.alignment_every=1")[0]
