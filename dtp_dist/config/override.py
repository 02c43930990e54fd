"""Dotted overrides, laid over a configuration as plain data: ``model.layers.1.units=16``.

Layers are counted from 1, as they are with ``repeat`` written out, and so are layers inside a layer
(``model.layers.3.body.1.units=16``): so they are written out before one of them is set, and the others of a
repeated layer stay as they are. Entries of other lists, such as the stages of ``parallel.partition``, are
counted from 0.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

from dtp_dist.config.layers import without_repeat
from dtp_dist.config.plain import as_word
from dtp_dist.config.references import LAYERS
from dtp_dist.config.source import ConfigLoader
from dtp_dist.errors import ConfigError
from dtp_dist.text.foreign import parse_yaml

EXAMPLE = "train.epochs=3"
SHOWN = 60
"""Characters of a value that an error shows."""
DIGITS = 10
"""More than any number of an entry has."""
_KEY = re.compile(r"[^.\[\]\s]+(\.[^.\[\]\s]+|\[\d+\])*")


def lay_over(raw: dict[str, Any], text: str) -> None:
    """Set one override in ``raw``; a section is merged into one that is there.

    Raises:
        ConfigError: it is not ``key=value``, or there is no such place; says what to write.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{text!r}: an override is written key=value, e.g. {EXAMPLE}")
    parts = _parts(key)
    _set_in(raw, parts, as_word(key, value.strip(), _parsed(key, value)))


def lay_value(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set what a dotted key names in ``raw``, as ``lay_over`` does, to a value that is plain data.

    Raises:
        ConfigError: it is no key, or there is no such place.
    """
    _set_in(raw, _parts(key), value)


def _parts(key: str) -> list[str]:
    if not _KEY.fullmatch(key):
        words = "is no key; write names with dots between them, e.g. train.epochs or model.layers.1.units"
        raise ConfigError(f"{key}: {words}")
    return re.split(r"[.\[]", key.replace("]", ""))


def _set_in(raw: dict[str, Any], parts: list[str], value: Any) -> None:
    if len(parts) > 2 and _are_layers(parts[:2]):
        raw |= without_repeat(raw)
    _set(raw, parts, value)


def _parsed(key: str, value: str) -> Any:
    """Return a value as YAML reads it."""
    if not value.strip():
        raise ConfigError(f"{key}: has no value; write {key}=VALUE, null where it may have none")
    try:
        return parse_yaml(value, ConfigLoader)
    except ValueError:
        text = "is no value; close every bracket and quote in it, or put all of it in quotes"
        raise ConfigError(f"{key}: {textwrap.shorten(value, SHOWN)!r} {text}") from None


def _set(raw: dict[str, Any], parts: list[str], value: Any) -> None:
    place: Any = raw
    for number, part in enumerate(parts[:-1]):
        found = _step(place, parts[:number], part)
        if found is None:
            found = {}
            _put(place, parts[:number], part, found)
        place = found
    above = _step(place, parts[:-1], parts[-1])
    _put(place, parts[:-1], parts[-1], _merged(above, value))


def _step(place: Any, path: list[str], part: str) -> Any:
    """Return what ``part`` names in a section or a list, None where a section has no such key."""
    where = ".".join(path)
    if isinstance(place, dict):
        return place.get(part, place.get(int(part)) if _is_number(part) else None)
    if not isinstance(place, list):
        text = f"is {place!r}, no section; it has no {part!r} to set"
        raise ConfigError(f"{where}: {text}; write {where}=VALUE to replace it")
    return place[_index(place, path, part)]


def _is_number(part: str) -> bool:
    return part.isdecimal() and len(part) < DIGITS


def _index(place: list[Any], path: list[str], part: str) -> int:
    """Return where in a list the entry is that ``part`` names."""
    first = 1 if _are_layers(path) else 0
    last = first + len(place) - 1
    if _is_number(part) and first <= int(part) <= last:
        return int(part) - first
    allowed = f"{first} to {last}, as {len(place)} are written" if place else "none: it is empty"
    text = f"is no entry of the list; its entries are {allowed}"
    if _are_layers(path) and place:
        text = f"is no layer; layers are counted from 1 to {last}, as they are with repeat written out"
    raise ConfigError(f"{'.'.join(path)}.{part}: {part!r} {text}")


def _are_layers(path: list[str]) -> bool:
    """Return whether a list's entries are layers, which are counted from 1."""
    return LAYERS.fullmatch(".".join(path)) is not None


def _put(place: Any, path: list[str], part: str, value: Any) -> None:
    place[_index(place, path, part) if isinstance(place, list) else part] = value


def _merged(under: Any, over: Any) -> Any:
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return {**under, **{name: _merged(under.get(name), value) for name, value in over.items()}}
