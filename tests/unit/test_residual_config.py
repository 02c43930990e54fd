"""Residual layers in a configuration: layers inside are written, set, referred to and refused like others."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from dtp_dist import load_config
from dtp_dist.config import Config, parse_config, read_config, shapes_of, to_dict
from dtp_dist.errors import ConfigError
from runs import small, write_config

CONV = {"kind": "conv", "padding": 1}
MODEL: dict[str, Any] = {
    "input": [1, 8, 8],
    "layers": [
        {**CONV, "channels": 4},
        {"kind": "residual", "body": [{**CONV, "channels": 6, "stride": 2}, {**CONV, "channels": 6}]},
        {"kind": "flatten"},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ],
}


def config_of(*overrides: str, residual: dict[str, Any] | None = None, **model: Any) -> Config:
    """Return MODEL as a configuration, with further keys in its residual layer and in the model."""
    raw = small(model={**deepcopy(MODEL), **model}, rule={"name": "ldrl"})
    raw["model"]["layers"][1] |= residual or {}
    return load_config(raw, overrides)


def body_of(config: Config) -> Any:
    return config.model.layers[1].body  # type: ignore[attr-defined]


def test_a_configuration_is_the_same_written_out():
    config = config_of(residual={"projection": {**CONV, "channels": 6, "stride": 2}})
    assert parse_config(to_dict(config)) == config
    assert shapes_of(config) == [(1, 8, 8), (4, 8, 8), (6, 4, 4), (96,), (10,)]


def test_layers_inside_are_repeated_and_take_defaults():
    defaults = {"kernel": 5, "inverse": {"init": "uniform", "scale": 0.1, "sigma": 0.2, "iterations": 3}}
    own = {"kind": "conv", "padding": 2, "activation": "tanh"}
    body = [{"channels": 4, "repeat": 2}, {"channels": 4, "kernel": 3, "padding": 1}]
    config = config_of(defaults=defaults, residual={"defaults": own, "body": body, "repeat": 2})
    assert len(config.model.layers) == 5
    residual: Any = config.model.layers[2]
    assert [each.kernel for each in residual.body] == [5, 5, 3]
    assert {each.activation for each in residual.body} == {"tanh"}
    assert config.model.layers[0].kernel == 5, "what is next to body is for the body alone"  # type: ignore[attr-defined]
    assert config.model.layers[0].activation == residual.activation == "elu"  # type: ignore[attr-defined]
    assert (residual.inverse.sigma, residual.inverse.iterations, residual.inverse.scale) == (0.2, 3, None)
    inside = residual.body[0].inverse
    assert (inside.sigma, inside.iterations, inside.scale) == (0.36, 1, 0.1)


def test_a_projection_is_linear_unless_it_says_otherwise():
    defaults = {"activation": "tanh", "inverse": {"activation": "tanh", "scale": 0.1, "init": "uniform"}}
    projection = {**CONV, "kernel": 1, "padding": 0, "stride": 2, "channels": 6}
    given: Any = config_of(defaults=defaults, residual={"projection": projection}).model.layers[1]
    assert (given.projection.activation, given.projection.inverse.activation) == ("linear", "linear")
    assert given.projection.inverse.scale == 0.1
    projection = {**projection, "activation": "relu"}
    given = config_of(defaults=defaults, residual={"projection": projection}).model.layers[1]
    assert given.projection.activation == "relu"


def test_overrides_and_references_count_layers_inside_from_one():
    config = config_of("model.layers.2.body.2.channels=8", "model.layers.2.body[1].channels=7")
    assert [each.channels for each in body_of(config)] == [7, 8]
    config = config_of("model.layers.2.body=[{kind: conv, channels: 4, padding: 1, repeat: 3}]")
    assert len(body_of(config)) == 3
    config = config_of(
        "model.layers.2.body=[{kind: conv, channels: 4, padding: 1, repeat: 3}]",
        "model.layers.2.body.2.kernel=1",
        "model.layers.2.body.2.padding=0",
    )
    assert [each.kernel for each in body_of(config)] == [3, 1, 3]
    config = config_of(
        "model.layers.1.channels=${model.layers.2.body.1.channels}",
        "model.layers.2.body.2.channels=${model.layers[1].channels}",
        "model.layers.2.body.1.channels=9",
    )
    assert [each.channels for each in body_of(config)] == [9, 9]
    nested = {"body": [{"kind": "residual", "body": [{**CONV, "channels": 4}]}]}
    config = config_of("model.layers.2.body.1.body.1.bias=false", residual=nested)
    assert body_of(config)[0].body[0].bias is False
    projected = {"projection": {"kind": "residual", "body": [{**CONV, "channels": 6, "stride": 2}]}}
    config = config_of("model.layers.2.projection.body.1.bias=false", residual=projected)
    assert config.model.layers[1].projection.body[0].bias is False  # type: ignore[attr-defined]


def test_a_list_in_the_arguments_of_a_module_is_no_body():
    mine = {"kind": "user_layers:listed", "args": {"body": [3, 4]}}
    config = config_of("model.layers.2.body.1.args.body.0=5", residual={"body": [mine]})
    assert body_of(config)[0].args == {"body": [5, 4]}


@pytest.mark.parametrize(
    ("residual", "override", "words"),
    [
        ({}, "model.layers.2.body.1.units=8", "model.layers.2.body.1.units: unknown key"),
        (
            {},
            "model.layers.2.body.3.units=8",
            "model.layers.2.body.3: '3' is no layer; layers are counted from 1 to 2",
        ),
        ({}, "model.layers.2.body.0.units=8", "model.layers.2.body.0: '0' is no layer"),
        ({}, "model.layers.2.body.1.kernel=large", "model.layers.2.body.1.kernel: 'large' is not allowed"),
        ({}, "model.layers.2.body.1.kind=cnv", "model.layers.2.body.1.kind: 'cnv' is not allowed"),
        ({}, "model.layers.2.body.1.channels=${model.layers.2.body.0.channels}", "refers to layer 0"),
        (
            {},
            "model.layers.2.body.1.channels=${model.layers.2.body.9.channels}",
            "there is no key model.layers.2.body.9.channels",
        ),
        ({"projection": None}, "", "model.layers.2.projection: the shortcut gives [4, 8, 8] and the body"),
        (
            {"projection": "none"},
            "",
            "model.layers.2.projection: 'none' is not allowed; it must be auto, null or a",
        ),
        (
            {"projection": {"kind": "conv", "chanels": 5}},
            "",
            "model.layers.2.projection.chanels: unknown key; did",
        ),
        (
            {"projection": {"kind": "dense", "units": 5}},
            "",
            "model.layers.2.projection.kind: a dense layer needs",
        ),
        ({"body": []}, "", "model.layers.2.body: must be a list of at least one layer"),
        ({"body": {"kind": "conv"}}, "", "model.layers.2.body: must be a list of at least one layer"),
        ({"body": None}, "", "model.layers.2.body: must be a list of at least one layer"),
        ({"body": [3]}, "", "model.layers.2.body.1: 3 is not allowed; it must be a section of keys"),
        (
            {"body": [{"kind": "instance"}]},
            "",
            "model.layers.2.body.1.kind: a module instance can't be inside",
        ),
        (
            {},
            "model.layers.2.body.1.optimizer.forward={name: sgd, lr: 1}",
            "model.layers.2.body.1.optimizer: a",
        ),
        (
            {},
            "model.layers.2.body.2.inverse.sigma=0.1",
            "model.layers.2.body.2.inverse.sigma: the inverse learns",
        ),
        (
            {},
            "model.layers.2.inverse.init=uniform",
            "model.layers.2.inverse.init: is one of the layers in the body",
        ),
        (
            {},
            "model.layers.2.defaults={kernl: 3}",
            "model.layers.2.defaults.kernl: unknown key; did you mean kernel",
        ),
        ({}, "model.defaults={kernl: 3}", "model.defaults.kernl: unknown key; did you mean kernel?"),
        ({}, "model.layers.1.defaults={kernel: 3}", "model.layers.1.defaults: unknown key"),
        ({}, "model.layers.2.body.1.repeat=0", "model.layers.2.body.1.repeat: 0 is not allowed"),
        (
            {},
            "model.layers.2.body.1.repeat=1000",
            "makes more than 1000 layers, the most there may be",
        ),
        ({}, "model.layers.2.repeat=400", "model.layers.2.repeat: 400 makes more than 1000 layers"),
        (
            {},
            "model.layers.2.body.1.kind='no.such:thing'",
            "unknown key; known here: kind, inverse, optimizer,",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(residual, override, words):
    with pytest.raises(ConfigError) as caught:
        config_of(*filter(None, [override]), residual=residual)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_module_inside_without_an_inverse_is_named_and_auto_makes_one():
    alone = {"body": [{**CONV, "channels": 1}, {"kind": "user_layers:images", "args": {"channels": 4}}]}
    first = {**CONV, "channels": 1}
    layers = [{"kind": "residual", "body": [first]}, {"kind": "residual", **alone}, *MODEL["layers"][2:]]
    with pytest.raises(
        ConfigError, match=r"^model.layers.2.body.2.kind: .* write inverse: auto for a small one$"
    ):
        config_of(layers=layers)
    config_of("model.layers.2.body.2.inverse=auto", layers=layers)
    config_of(defaults={"inverse": "auto"}, layers=layers)
    config_of("rule.name=backprop", layers=layers)


def test_code_inside_a_layer_is_asked_about(tmp_path):
    mine = {"kind": "residual", "body": [{"kind": "user_layers:tied"}]}
    path = write_config(tmp_path, small(model={"input": [64], "layers": [mine, MODEL["layers"][-1]]}))
    with pytest.raises(ConfigError, match=r"would import 'user_layers:tied'; add --allow-code"):
        read_config(path, trusted=False)


def test_a_configuration_nested_without_end_is_refused_in_one_line(tmp_path):
    text = "{kind: residual, body: [" * 3000 + "{kind: dense, units: 3}" + "]}" * 3000
    path = tmp_path / "deep.yaml"
    path.write_text(f"model:\n  input: [3]\n  layers: [{text}]\nrule: {{name: dtp}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value).splitlines()) == 1
