"""From plain dictionaries to typed options, with one-line errors that name the key and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dtp_dist.algorithm.options import RangeError, allowed
from dtp_dist.errors import ConfigError

Raw = dict[str, Any]
T = TypeVar("T")

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "dict_type": "a section of keys",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a word or text",
    "list_type": "a list such as [784]",
    "dataclass_type": "a section of keys",
    "literal_error": "auto",
}


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def join(*parts: str) -> str:
    """Return a dotted key."""
    return ".".join(part for part in parts if part)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest known word, or the list of known ones."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a key that no section has."""
    return ConfigError(f"{key}: unknown key; {suggest(key.rpartition('.')[2], known)}")


def require_section(raw: Any, key: str) -> Raw:
    """Return ``raw`` if it is a mapping with text keys.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{key}: {raw!r} is not allowed; it must be a section of keys")
    return {str(name): value for name, value in raw.items()}


def parse_options(cls: type[T], raw: Any, key: str) -> T:
    """Return ``raw`` as an instance of the options class ``cls``.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value outside its range.
    """
    section = require_section(raw, key)
    try:
        parsed: T = _adapter(cls).validate_python(_mark_booleans(cls, section))
        return parsed
    except ValidationError as error:
        raise ConfigError(_describe(error.errors(), cls, key)) from None
    except RangeError as error:
        raise range_error(key, error) from None


class _Boolean:
    """True or false where a number is due: pydantic would take it for 1 or 0, this it refuses."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def _mark_booleans(hint: Any, value: Any) -> Any:
    """Return ``value``, with a ``_Boolean`` wherever the type ``hint`` asks for a number."""
    members = get_args(hint) or (hint,)
    if isinstance(value, bool):
        numeric = (int in members or float in members) and bool not in members
        return _Boolean(value) if numeric else value
    if isinstance(value, list):
        return [_mark_booleans(members[0], item) for item in value]
    if isinstance(value, Mapping) and isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return {name: _mark_booleans(hints.get(name), item) for name, item in value.items()}
    return value


def range_error(key: str, error: RangeError) -> ConfigError:
    """Return a range error as a configuration error under ``key``."""
    return ConfigError(f"{join(key, error.key)}: {error}")


def parse_variant(registry: Callable[[str], Any] | Mapping[str, Any], tag: str, raw: Any, key: str) -> Any:
    """Return a section whose ``tag`` (``name``, ``kind``) chooses its class in a registry.

    Raises:
        ConfigError: the tag is missing or unknown, or the section does not fit its class.
    """
    section = require_section(raw, key)
    name = section.get(tag)
    look = registry.get if isinstance(registry, Mapping) else registry
    cls = look(name) if isinstance(name, str) else None
    if cls is None:
        names = ", ".join(registry) if isinstance(registry, Mapping) else ""
        near = suggest(str(name), registry) if isinstance(registry, Mapping) and "," in names else ""
        hint = f" ({near})" if near.startswith("did") else ""
        raise ConfigError(f"{join(key, tag)}: {name!r} is not allowed; it must be one of {names}{hint}")
    return parse_options(cls, section, key)


def _describe(errors: list[ErrorDetails], cls: type[Any], key: str) -> str:
    """Return one line for the most telling of pydantic's errors (an unknown key before all others)."""
    errors.sort(
        key=lambda one: one["type"] != "extra_forbidden" and one["type"] != "unexpected_keyword_argument"
    )
    first = errors[0]
    path = [str(part) for part in first["loc"] if str(part) in _names(cls) or not _is_type_name(part)]
    where = join(key, *path)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return str(unknown_key(where, _known_names(cls, path[:-1])))
    if first["type"] == "missing":
        return f"{where}: is missing; {_field_doc(cls, path)}"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RangeError):
        return str(range_error(where, cause))
    same_place = [one for one in errors if [str(p) for p in one["loc"]][: len(path)] == path]
    wanted = {_EXPECTED.get(one["type"], one["msg"]) for one in same_place}
    return f"{where}: {first['input']!r} is not allowed; it must be {' or '.join(sorted(wanted))}"


def _is_type_name(part: object) -> bool:
    """Whether a piece of pydantic's path names a branch of a union, not a key."""
    return str(part) in ("int", "float", "bool", "str") or "[" in str(part)


def _names(cls: type[Any]) -> list[str]:
    return [item.name for item in fields(cls)]


def _known_names(cls: type[Any], path: list[str]) -> list[str]:
    for name in path:
        nested = _adapter_field(cls, name)
        if nested is None:
            return []
        cls = nested
    return _names(cls)


def _adapter_field(cls: type[Any], name: str) -> type[Any] | None:
    found = get_type_hints(cls).get(name)
    return found if hasattr(found, "__dataclass_fields__") else None


def _field_doc(cls: type[Any], path: list[str]) -> str:
    for item in fields(cls):
        if item.name == path[0]:
            limits = allowed(item.metadata)
            return str(item.metadata.get("doc", "")) + (f" ({limits})" if limits else "")
    return ""
