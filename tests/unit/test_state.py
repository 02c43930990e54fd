"""A layer's state: it can be put back anywhere, bit for bit, and its hash is the one the design defines."""

import hashlib

import numpy as np
import pytest
import torch

from dtp_dist.algorithm.layers import DenseOptions, InverseOptions, ModuleOptions
from dtp_dist.algorithm.optimizers.imported import optimizer_class
from dtp_dist.algorithm.optimizers.kinds import (
    AdamOptions,
    AdamWOptions,
    CentredRMSpropOptions,
    MuonOptions,
    RMSpropOptions,
    SGDOptions,
    SOAPOptions,
)
from dtp_dist.algorithm.state import layer_state, load_layer_state, weights_sha256
from dtp_dist.storage.checkpoint import LayerFile, read_layers, write_layer
from networks import SEED, build, dense, exact_step, minibatch, parameters, rule, same_bits, stages, values

OPTIMIZERS = {
    "sgd": SGDOptions(lr=0.05),
    "momentum": SGDOptions(lr=0.05, momentum=0.9, nesterov=True),
    "adam": AdamOptions(lr=0.01),
    "adamw": AdamWOptions(lr=0.01),
    "rmsprop": RMSpropOptions(lr=0.01, momentum=0.5, centered=True),
    "centred_rmsprop": CentredRMSpropOptions(lr=0.01),
    "muon": MuonOptions(lr=0.01),
    "soap": SOAPOptions(lr=0.01, every=2),
    "nadam": optimizer_class("torch.optim:NAdam")(lr=0.01),
    "adagrad": optimizer_class("torch.optim:Adagrad")(lr=0.01),
    "counting": optimizer_class("user_optimizers:Counting")(lr=0.01),
}


def network(optimizer="adam", *, seed: int = SEED, kind: str | None = None, delay: int = 0):
    options = dense(iterations=2)
    if kind:
        options[1] = ModuleOptions(kind=f"networks:{kind}", inverse=InverseOptions(iterations=3))
    chosen = OPTIMIZERS[optimizer]
    optimizers = {"forward": chosen, "inverse": chosen}
    return build(options, rule("dtp"), **optimizers, seed=seed, delay=delay, dtype=torch.float32)


def train(parts, first: int, last: int) -> None:
    for k in range(first, last):
        exact_step(parts, k, *minibatch(k, dtype=torch.float32))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "normalized_pair", "dropout_pair", "transposed_pair"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_fresh_network_goes_on_from_a_saved_state_with_the_same_bits(optimizer, kind):
    layers = network(optimizer, kind=kind)
    parts = stages(layers, rule("dtp"))
    train(parts, 0, 5)
    saved = [layer_state(layer) for layer in layers]
    kept = [{name: value.clone() for name, value in state.items()} for state in saved]
    train(parts, 5, 10)
    for state, before in zip(saved, kept, strict=True):
        assert all(torch.equal(state[name], before[name]) for name in before), "a saved state is a copy"

    fresh = network(optimizer, kind=kind, seed=SEED + 1)
    again = stages(fresh, rule("dtp"), [1, 2, 1])
    for layer, state in zip(fresh, saved, strict=True):
        load_layer_state(layer, state)
    train(again, 5, 10)
    assert same_bits(values(layers), values(fresh))
    for one, other in zip(layers, fresh, strict=True):
        left, right = layer_state(one), layer_state(other)
        assert list(left) == list(right)
        assert same_bits(list(left.values()), list(right.values()))
    for state, before in zip(saved, kept, strict=True):
        assert all(torch.equal(state[name], before[name]) for name in before), "loading copies"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stage_that_looks_ahead_goes_on_from_a_saved_state_with_the_same_bits(optimizer):
    layers, fresh = network(optimizer, delay=1), network(optimizer, delay=1, seed=SEED + 1)
    (stage,) = parts = stages(layers, rule("dtp"), lookahead=1.0)
    (again,) = stages(fresh, rule("dtp"), lookahead=1.0)
    train(parts, 0, 3)
    for layer, other in zip(layers, fresh, strict=True):
        load_layer_state(other, layer_state(layer))
    for each in (stage, again):
        for k in (3, 4):
            each.forward(k, *minibatch(k, dtype=torch.float32))
            each.inverse(k)
        for k in (3, 4):
            each.target(k, None)
            each.update(k)
    assert same_bits(values(layers), values(fresh))


def test_names_of_a_trained_layers_tensors():
    layers = network("adam", kind="normalized_pair")
    parts = stages(layers, rule("dtp"))
    train(parts, 0, 1)
    moments = [
        f"optimizer.{number}.{name}" for number in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")
    ]
    expected = {f"forward.{name}" for name in ("weight", "bias", *moments)}
    assert set(layer_state(layers[0])) == expected
    names = set(layer_state(layers[1]))
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {f"{side}.buffer.1.{name}" for side in ("forward", "inverse") for name in statistics} <= names
    assert {"forward.0.weight", "inverse.1.bias", "inverse.optimizer.3.exp_avg_sq"} <= names
    for state in map(layer_state, layers):
        assert all(value.device.type == "cpu" and value.is_contiguous() for value in state.values())
        assert not any(value.requires_grad for value in state.values())


def test_a_state_from_before_the_first_step_has_no_optimizer_tensors_and_resets_them():
    layers = network("adam")
    start = [layer_state(layer) for layer in layers]
    assert not any("optimizer" in name for state in start for name in state)
    parts = stages(layers, rule("dtp"))
    train(parts, 0, 3)
    once = values(layers)
    for layer, state in zip(layers, start, strict=True):
        load_layer_state(layer, state)
    train(parts, 0, 3)
    assert same_bits(once, values(layers))


def test_loading_keeps_the_strides_and_the_tensors():
    layers = network(kind="transposed_pair")
    stages(layers, rule("dtp"))
    strides = [parameter.stride() for parameter in parameters(layers)]
    places = [parameter.data_ptr() for parameter in parameters(layers)]
    assert not layers[1].f.parameters()[0].is_contiguous()
    other = network(kind="transposed_pair", seed=SEED + 1)
    for layer, one in zip(layers, other, strict=True):
        load_layer_state(layer, layer_state(one))
    assert same_bits(values(layers), values(other))
    assert [parameter.stride() for parameter in parameters(layers)] == strides
    assert [parameter.data_ptr() for parameter in parameters(layers)] == places


def test_a_missing_tensor_and_a_wrong_shape_are_errors():
    layers = network()
    state = layer_state(layers[1])
    with pytest.raises(KeyError, match=r"inverse\.weight"):
        load_layer_state(layers[1], {name: state[name] for name in state if name != "inverse.weight"})
    with pytest.raises(RuntimeError):
        load_layer_state(layers[1], {**state, "forward.weight": torch.zeros(2, 9)})


def test_optimizer_tensors_that_find_no_optimizer_are_an_error():
    """A layer has its optimizers from its stage on; before that its moments would be lost in silence."""
    layers = network("adam")
    train(stages(layers, rule("dtp")), 0, 2)
    fresh = network("adam", seed=SEED + 1)
    with pytest.raises(RuntimeError, match="optimizer"):
        load_layer_state(fresh[1], layer_state(layers[1]))


# The hash


def little_endian(tensor) -> bytes:
    return np.ascontiguousarray(tensor.detach().numpy().astype(np.float32)).astype("<f4").tobytes()


def by_hand(layers) -> str:
    """SHA-256 over all forward parameters in layer order, then all inverse parameters, then buffers."""
    digest = hashlib.sha256()
    for layer in layers:
        for parameter in layer.f.module.parameters():
            digest.update(little_endian(parameter))
    for layer in layers:
        if layer.inverse is not None:
            for parameter in layer.inverse.map.module.parameters():
                digest.update(little_endian(parameter))
    for layer in layers:
        for module in layer.modules().values():
            for buffer in module.buffers():
                digest.update(little_endian(buffer))
    return digest.hexdigest()


@pytest.mark.parametrize("kind", [None, "normalized_pair", "transposed_pair"])
def test_hash_is_the_designs(kind):
    layers = network("adam", kind=kind)
    parts = stages(layers, rule("dtp"))
    untrained = weights_sha256(map(layer_state, layers))
    assert untrained == by_hand(layers)
    train(parts, 0, 2)
    assert weights_sha256(map(layer_state, layers)) == by_hand(layers) != untrained


def test_hash_sees_weights_and_buffers_and_not_optimizers():
    layers = network("momentum", kind="normalized_pair")
    parts = stages(layers, rule("dtp"))
    train(parts, 0, 2)
    states = [layer_state(layer) for layer in layers]
    before = weights_sha256(states)
    for state in states:
        for name in state:
            changed = [dict(each) for each in states]
            target = next(each for each, one in zip(changed, states, strict=True) if one is state)
            target[name] = state[name] + 1
            assert (weights_sha256(changed) == before) == (".optimizer." in name), name


def at_once(states) -> str:
    """Return the hash as it is of states that are all in memory, optimizers and all."""
    digest = hashlib.sha256()
    extra = {name: name.split(".")[1] for state in states for name in state}
    for side, kinds in (("forward.", ()), ("inverse.", ()), ("", ("buffer",))):
        for state in states:
            for name, value in state.items():
                wanted = extra[name] in kinds if kinds else extra[name] not in ("buffer", "optimizer")
                if name.startswith(side) and wanted:
                    digest.update(little_endian(value))
    return digest.hexdigest()


@pytest.mark.parametrize("kind", [None, "normalized_pair", "transposed_pair"])
def test_hash_of_files_is_the_same_and_reads_no_optimizer(tmp_path, monkeypatch, kind):
    layers = network("adam", kind=kind)
    train(stages(layers, rule("dtp")), 0, 2)
    states = [layer_state(layer) for layer in layers]
    for layer, state in zip(layers, states, strict=True):
        write_layer(tmp_path, layer.index, state)
    read, real = [], LayerFile.__getitem__
    monkeypatch.setattr(LayerFile, "__getitem__", lambda file, name: read.append(name) or real(file, name))
    assert weights_sha256(read_layers(tmp_path, len(layers))) == at_once(states) == by_hand(layers)
    weights = [name for state in states for name in state if ".optimizer." not in name]
    assert sorted(read) == sorted(weights), "each once, and of the optimizers nothing"
    assert len(weights) < sum(map(len, states))


def test_hash_of_a_known_network():
    layers = build(
        [DenseOptions(units=2, activation="linear", init="xavier_uniform")],
        rule("backprop"),
        inputs=2,
        dtype=torch.float32,
    )
    with torch.no_grad():
        layers[0].f.module.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layers[0].f.module.bias.copy_(torch.tensor([-1.0, 0.5]))
    raw = bytes.fromhex("0000803f 00000040 00004040 00008040 000080bf 0000003f")
    assert weights_sha256([layer_state(layers[0])]) == hashlib.sha256(raw).hexdigest()
