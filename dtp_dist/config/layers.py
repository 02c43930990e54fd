"""The layers of a configuration written out: ``repeat``, defaults, ``inverse: auto`` are ways of writing."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from dtp_dist.algorithm.layers import LAYER_VARIANTS
from dtp_dist.algorithm.layers.residual import OF_SUM, OF_WHOLE
from dtp_dist.config.hints import fields_of
from dtp_dist.config.parse import Raw, require_section, unknown_key
from dtp_dist.config.schema import ModelConfig
from dtp_dist.errors import ConfigError

MAX_LAYERS = 1000
"""The most layers there may be, those inside layers included."""
AUTO = "auto"
BODY, PROJECTION = "body", "projection"
"""What holds layers inside a layer."""
LINEAR: Raw = {"activation": "linear", "inverse": {"activation": "linear"}}
"""Defaults of a projection, whatever others there are."""


def written_out(model: Any) -> Raw:
    """Return a model section with each layer in its place, its defaults in it.

    Raises:
        ConfigError: what is to be written out is not what it must be.
    """
    raw = require_section(model, "model")
    known = [*fields_of(ModelConfig), "defaults"]
    for key in raw:
        if key not in known:
            raise unknown_key(f"model.{key}", known)
    if not isinstance(raw.get("weights"), Mapping | None):
        raw["weights"] = {"file": raw["weights"]}
    elif raw.get("weights") is None:
        raw.pop("weights", None)
    defaults = _Defaults(raw.pop("defaults", None), "model.defaults")
    layers = each_in_place(raw.get("layers"))
    filled = [defaults.laid_under(each, f"model.layers.{place}") for place, each in enumerate(layers, 1)]
    defaults.refuse_unknown()
    return {**raw, "layers": filled}


def without_repeat(raw: Raw) -> Raw:
    """Return a configuration with an entry for each layer, as far as it has layers at all.

    Raises:
        ConfigError: as ``each_in_place``.
    """
    model = raw.get("model")
    layers = model.get("layers") if isinstance(model, dict) else None
    return {**raw, "model": {**model, "layers": each_in_place(layers)}} if model and layers else raw


def each_in_place(written: Any, key: str = "model.layers") -> list[Any]:
    """Return layers as they are written as a list with an entry for each, so that layer l is entry l - 1.

    The same is done to layers inside layers.

    Raises:
        ConfigError: there is none or too many, or a ``repeat`` is no number of times.
    """
    if not isinstance(written, list) or not written:
        raise ConfigError(f"{key}: must be a list of at least one layer")
    layers: list[Any] = []
    for entry in written:
        place = f"{key}.{len(layers) + 1}"
        section = dict(entry) if isinstance(entry, Mapping) else entry
        repeat = section.pop("repeat", 1) if isinstance(section, dict) else 1
        if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
            text = f"{repeat!r} is not allowed; it must be a whole number of at least 1"
            raise ConfigError(f"{place}.repeat: {text}")
        section = _inside_in_place(section, place)
        if _count(layers) + repeat * _count([section]) > MAX_LAYERS:
            text = f"{repeat!r} makes more than {MAX_LAYERS} layers, the most there may be"
            raise ConfigError(f"{place}.repeat: {text}")
        layers += [deepcopy(section) for _ in range(repeat)]
    return layers


def _inside_in_place(section: Any, key: str) -> Any:
    """Return a layer with an entry for each layer inside it."""
    if not isinstance(section, Mapping):
        return section
    found = dict(section)
    if isinstance(found.get(BODY), list):
        found[BODY] = each_in_place(found[BODY], f"{key}.{BODY}")
    if isinstance(found.get(PROJECTION), Mapping):
        found[PROJECTION] = _inside_in_place(found[PROJECTION], f"{key}.{PROJECTION}")
    return found


def _count(layers: list[Any]) -> int:
    """Return how many layers there are, those inside layers included."""
    bodies = [each[BODY] for each in layers if isinstance(each, Mapping) and isinstance(each.get(BODY), list)]
    return len(layers) + sum(map(_count, bodies))


class _Defaults:
    """Keys for all layers whose kind has them, a kind among them; those that no layer has are refused."""

    def __init__(self, written: Any, key: str, outer: _Defaults | None = None) -> None:
        own = _with_auto(require_section(written or {}, key))
        self._own, self._key, self._outer = list(own), key, outer
        self._all: Raw = _merge(outer._all, own) if outer else own
        self._known: set[str] = set()

    def refuse_unknown(self) -> None:
        """Refuse a key that none of the layers could have."""
        for name in self._own:
            if self._known and name not in self._known:
                raise unknown_key(f"{self._key}.{name}", sorted(self._known))

    def laid_under(self, layer: Any, key: str, *, inside: bool = False, over: Raw | None = None) -> Raw:
        """Return a layer with the defaults that its kind has.

        Args:
            inside: whether it is inside a layer, which has what the layer as a whole has not.
            over: what is laid over the defaults.
        """
        section = _with_auto(require_section(layer, key))
        kind = section.get("kind", self._all.get("kind"))
        mine = fields_of(LAYER_VARIANTS.member(kind))
        self._know(set(mine))
        holds = BODY in mine
        under = _merge(self._all, over or {})
        under = _allowed({name: under[name] for name in under if name in mine}, inside=inside, holds=holds)
        own = section.pop("defaults", None) if holds else None
        found = {"kind": kind, **_merge(under, section)}
        return self._filled(found, own, key) if holds else found

    def _know(self, names: set[str]) -> None:
        self._known |= names
        if self._outer:
            self._outer._know(names)

    def _filled(self, section: Raw, own: Any, key: str) -> Raw:
        """Return a layer with the defaults in the layers inside it, its ``own`` among them."""
        defaults = _Defaults(own, f"{key}.defaults", self)
        if BODY in section:
            layers = each_in_place(section[BODY], f"{key}.{BODY}")
            section[BODY] = [
                defaults.laid_under(each, f"{key}.{BODY}.{place}", inside=True)
                for place, each in enumerate(layers, 1)
            ]
        given = section.get(PROJECTION)
        if isinstance(given, Mapping):
            section[PROJECTION] = defaults.laid_under(given, f"{key}.{PROJECTION}", inside=True, over=LINEAR)
        defaults.refuse_unknown()
        return section


def _allowed(defaults: Raw, *, inside: bool, holds: bool) -> Raw:
    """Return defaults without what a layer inside a layer, or one that holds layers, does not have."""
    found = dict(defaults)
    for name in ("optimizer", "weights") if inside else ():
        found.pop(name, None)
    inverse = found.get("inverse")
    if isinstance(inverse, Mapping):
        kept = [name for name in inverse if not (inside and name in OF_WHOLE)]
        found["inverse"] = {name: inverse[name] for name in kept if not holds or name in OF_SUM}
    return found


def _with_auto(section: Raw) -> Raw:
    """Return a section with ``inverse: auto`` written out."""
    return {**section, "inverse": {AUTO: True}} if section.get("inverse") == AUTO else section


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
