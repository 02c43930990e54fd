"""Reading a configuration: YAML, dotted overrides, defaults written out, everything checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dtp_dist.algorithm.layers import KINDS, LayerOptions, layer_kind
from dtp_dist.algorithm.optimizers import OPTIMIZERS
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config.check import check
from dtp_dist.config.parse import (
    Raw,
    join,
    parse_options,
    parse_variant,
    require_section,
    suggest,
    unknown_key,
)
from dtp_dist.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    MonitorConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainConfig,
)
from dtp_dist.errors import ConfigError

SECTIONS = {
    "train": TrainConfig,
    "data": DataConfig,
    "parallel": ParallelConfig,
    "monitor": MonitorConfig,
}
MODEL_KEYS = ("input", "defaults", "layers")


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Return the configuration in a YAML file or a mapping, with dotted overrides (``train.epochs=3``).

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value is not allowed, or the
            parts do not fit one another; one line that names the key, the value and what is allowed.
    """
    return parse_config(read_config(source, overrides))


def read_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Raw:
    """Return what ``load_config`` checks: plain data with overrides in place and interpolations resolved.

    Raises:
        ConfigError: the file is missing or not YAML, or an override can't be set.
    """
    if isinstance(source, Mapping):
        return _override(dict(source), overrides)
    path = Path(source)
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); name a configuration file") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not a YAML configuration: {text}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: is not a configuration; it must have the keys model, rule and optimizer")
    section = require_section(raw, str(path))
    section.setdefault("name", path.stem)
    return _override(section, overrides)


def parse_config(raw: Raw) -> Config:
    """Return a checked configuration from a plain mapping.

    Raises:
        ConfigError: as ``load_config``.
    """
    known = [item.name for item in fields(Config)]
    for key in raw:
        if key not in known:
            raise unknown_key(key, known)
    for key in ("model", "rule", "optimizer"):
        if raw.get(key) is None:
            raise ConfigError(f"{key}: is missing; a configuration needs model, rule and optimizer")
    parts: Raw = {name: parse_options(cls, raw.get(name) or {}, name) for name, cls in SECTIONS.items()}
    parts["model"] = _model(require_section(raw["model"], "model"))
    parts["rule"] = parse_variant(RULES, "name", raw["rule"], "rule")
    parts["optimizer"] = _optimizer(require_section(raw["optimizer"], "optimizer"))
    config = parse_options(Config, {**{name: raw[name] for name in raw if name not in parts}, **parts}, "")
    check(config)
    return config


def to_dict(config: Config) -> Raw:
    """Return the configuration as plain data; ``parse_config`` gives it back."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=110)


def _override(raw: Raw, overrides: Sequence[str]) -> Raw:
    tree = OmegaConf.create(raw)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{text!r}: an override is written key=value, e.g. train.epochs=3")
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
            OmegaConf.update(tree, key, parsed["value"], merge=True, force_add=True)  # type: ignore[index, call-overload]
        except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"{key}: {value!r} can't be set: {text}") from None
    try:
        return require_section(OmegaConf.to_container(tree, resolve=True), "configuration")
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {' '.join(str(error).split())}") from None


def _optimizer(raw: Raw) -> OptimizerConfig:
    raw = dict(raw)
    if "forward" not in raw:
        raise ConfigError("optimizer.forward: is missing; optimizer of the forward maps")
    raw["inverse"] = raw.get("inverse") or raw["forward"]
    for side in ("forward", "inverse"):
        raw[side] = parse_variant(OPTIMIZERS, "name", raw[side], f"optimizer.{side}")
    return parse_options(OptimizerConfig, raw, "optimizer")


def _model(raw: Raw) -> ModelConfig:
    for key in raw:
        if key not in MODEL_KEYS:
            raise unknown_key(f"model.{key}", MODEL_KEYS)
    written = raw.get("layers")
    if not isinstance(written, list) or not written:
        raise ConfigError("model.layers: must be a list of at least one layer")
    defaults = require_section(raw.get("defaults") or {}, "model.defaults")
    layers: list[LayerOptions] = []
    used: set[str] = set()
    for entry in written:
        key = f"model.layers.{len(layers) + 1}"
        section = require_section(entry, key)
        repeat = section.pop("repeat", 1)
        if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
            raise ConfigError(
                f"{key}.repeat: {repeat!r} is not allowed; it must be a whole number of at least 1"
            )
        layers += [_layer(section, defaults, key, used)] * repeat
    for name in defaults:
        if name not in used:
            raise unknown_key(f"model.defaults.{name}", _layer_keys(layers))
    return parse_options(ModelConfig, {"input": raw.get("input"), "layers": layers}, "model")


def _layer(section: Raw, defaults: Raw, key: str, used: set[str]) -> LayerOptions:
    kind = section.get("kind", defaults.get("kind"))
    cls = layer_kind(kind) if isinstance(kind, str) else None
    if cls is None:
        near = suggest(str(kind), KINDS)
        text = f"one of {', '.join(KINDS)}, or package.module:function ({near})"
        raise ConfigError(f"{join(key, 'kind')}: {kind!r} is not allowed; it must be {text}")
    names = {item.name for item in fields(cls)}
    mine = {name: value for name, value in defaults.items() if name in names}
    used |= set(mine)
    merged = _merge(mine, section)
    own = require_section(merged.get("optimizer") or {}, join(key, "optimizer"))
    for side in ("forward", "inverse"):
        if own.get(side) is not None:
            own[side] = parse_variant(OPTIMIZERS, "name", own[side], join(key, "optimizer", side))
    merged["optimizer"] = own
    parsed: LayerOptions = parse_options(cls, merged, key)
    return parsed


def _layer_keys(layers: Sequence[LayerOptions]) -> list[str]:
    return sorted({item.name for layer in layers for item in fields(layer)})


def _merge(under: Raw, over: Raw) -> Raw:
    """Return ``over`` laid over ``under``; sections merge, but a variant of another name replaces."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        if both and value.get("name", below.get("name")) == below.get("name"):  # type: ignore[union-attr]
            merged[name] = _merge(dict(below), dict(value))  # type: ignore[arg-type]
        else:
            merged[name] = value
    return merged
