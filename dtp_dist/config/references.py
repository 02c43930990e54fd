"""References in a configuration, ``${train.epochs}`` or ``${oc.env:HOME}``: OmegaConf resolves them.

Most configurations have none, and it is slow to import: it is asked only where there is something for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dtp_dist.config.layers import without_repeat
from dtp_dist.config.parse import Raw, join, require_section
from dtp_dist.errors import ConfigError

REFERENCE = "${"
_INSIDE = r"(?:\.projection)*\.body"
_NUMBER = r"(?:\.|\[)\d{1,9}\b\]?"
LAYERS = re.compile(rf"model\.layers(?:{_NUMBER}{_INSIDE})*")
"""The layers of the network, or those inside a layer."""
LAYER = re.compile(rf"\bmodel\.layers{_NUMBER}(?:{_INSIDE}{_NUMBER})*")
"""A layer by its number, and layers inside it by theirs; OmegaConf counts from 0 what we count from 1."""

UNSET = re.compile(r"Environment variable '\w+' not found")
PLAIN = (str, int, float, bool, type(None))


def references(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) of every text that OmegaConf would put something else in place of."""
    if isinstance(value, str) and REFERENCE in value:
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from references(item, join(key, str(name)))


def counted(key: str) -> str:
    """Return a key of OmegaConf's with the layer's number, counted from 1."""
    return _shifted(key, 1)


def _shifted(text: str, by: int) -> str:
    """Return a text with every layer's number in it changed."""
    return LAYER.sub(lambda layer: re.sub(_NUMBER, lambda each: f".{_number(each[0]) + by}", layer[0]), text)


def _number(written: str) -> int:
    return int(written.strip(".[]"))


def _from_zero(value: Any) -> Any:
    """Return the same with every layer that a reference names counted from 0."""
    if isinstance(value, str) and REFERENCE in value:
        return _shifted(value, -1)
    if isinstance(value, dict):
        return {name: _from_zero(item) for name, item in value.items()}
    return [_from_zero(item) for item in value] if isinstance(value, list) else value


def from_zero(raw: Raw) -> Raw:
    """Return a configuration whose references count layers as OmegaConf does.

    Raises:
        ConfigError: a reference names layer 0.
    """
    numbers = [
        (key, _number(number))
        for key, text in references(raw)
        for layer in LAYER.findall(text)
        for number in re.findall(_NUMBER, layer)
    ]
    for key, number in numbers:
        if not number:
            raise ConfigError(f"{counted(key)}: refers to layer 0; layers are counted from 1")
    return _from_zero(without_repeat(raw)) if numbers else raw


def resolved(raw: Raw) -> Raw:
    """Return a copy of a configuration, from ``from_zero``, with what its references stand for.

    Raises:
        ConfigError: one can't be resolved, or a value is none that YAML could hold; the line says nothing
            that a reference stands for.
    """
    return _copy(raw) if _is_plain(raw) else _looked_up(_tree(raw))


def _is_plain(value: Any) -> bool:
    """Return whether OmegaConf would give this back as it is."""
    if type(value) is dict:
        return all(type(name) is str and _is_plain(item) for name, item in value.items())
    if type(value) is list:
        return all(map(_is_plain, value))
    return type(value) in PLAIN and not (type(value) is str and REFERENCE in value)


def _copy(value: Any) -> Any:
    """Return plain data of which no two parts are one object, as they are where YAML has aliases."""
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return list(map(_copy, value)) if isinstance(value, list) else value


def _tree(raw: Raw) -> Any:
    """Return a configuration as OmegaConf's tree, in which nothing is resolved yet."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType

    try:
        return OmegaConf.create(raw)
    except OmegaConfBaseException as error:
        key = counted(getattr(error, "full_key", None) or "configuration")
        text = "a value of this type is not allowed; write a number, a word, a list or a section"
        if not isinstance(error, UnsupportedValueType):
            text = "what stands between ${ and } can't be read; write the name of a key, or a value"
        raise ConfigError(f"{key}: {text}") from None


def _looked_up(tree: Any) -> Raw:
    """Return plain data with the references of OmegaConf's tree resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    try:
        return require_section(OmegaConf.to_container(tree, resolve=True), "configuration")
    except OmegaConfBaseException as error:
        key, unset = counted(error.full_key or "configuration"), UNSET.search(str(error))
        if unset:
            text = unset[0]
        elif isinstance(error, InterpolationKeyError):
            named = [counted(name) for name in str(error).splitlines()[0].split("'")[1:2]]
            text = f"there is no key {', '.join(named)} to take its value from; write one that there is"
        else:
            text = "what stands between ${ and } can't be worked out; write the name of a key, or a value"
        raise ConfigError(f"{key}: {text}") from None
    except RecursionError:
        raise ConfigError("configuration: its references are nested too deep") from None


SHORTEST = 6
"""Characters of a value from outside that is remembered, and concealed wherever it is shown later."""

_seen: dict[str, str] = {}


def concealed(text: str, written: Any, found: Any) -> str:
    """Return a message with every value that came from outside, as the environment, as it was written.

    Args:
        text: the message.
        written: the configuration with its references, from ``from_zero``.
        found: the same, resolved.
    """
    return _hidden(text, _outside(written, found))


def remember(written: Any, found: Any) -> None:
    """Remember what came from outside into a configuration (as in ``concealed``), for ``without_seen``."""
    _seen.update({each: by for each, by in _outside(written, found).items() if len(each) >= SHORTEST})


def without_seen(text: str) -> str:
    """Return a text with every value as it was written that came from outside into any configuration here."""
    return _hidden(text, _seen)


def _outside(written: Any, found: Any) -> dict[str, str]:
    """Return the references by the values that came from outside in place of them."""
    hidden: dict[str, str] = {}
    for key, reference in references(written):
        if ":" in reference:  # it calls a resolver
            hidden |= dict.fromkeys(_texts(_at(found, key)), reference)
    return hidden


def _hidden(text: str, hidden: Mapping[str, str]) -> str:
    longest_first = "|".join(re.escape(value) for value in sorted(hidden, key=len, reverse=True))
    return (
        re.sub(rf"(?<!\w)(?:{longest_first})(?!\w)", lambda match: hidden[match[0]], text) if hidden else text
    )


def _at(value: Any, key: str) -> Any:
    if not key or not isinstance(value, (dict, list)):
        return value
    if isinstance(value, dict) and key in value:  # a dotted one, in ``compare``
        return value[key]
    part, _, rest = key.partition(".")
    return _at(value[int(part)] if isinstance(value, list) else value.get(part, {}), rest)


def _texts(value: Any) -> Iterator[str]:
    """Yield how a message may show a value or one within it."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif str(value):
        yield from {str(value), repr(value).strip("'\"")}
