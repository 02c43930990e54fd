"""From plain data to typed options: pydantic parses and checks, and its errors become one line of ours.

A line names the key, the value and what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dtp_dist.algorithm.options import RangeError, Variants
from dtp_dist.config.hints import allowed, choices, fields_of, hints_of, section_of, type_name
from dtp_dist.errors import ConfigError

Raw = dict[str, Any]
T = TypeVar("T")

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a word or text",
    "list_type": "a list such as [784]",
    "dict_type": "a section of keys",
    "dataclass_type": "a section of keys",
    "literal_error": "auto",
}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}

RENAMED = {
    "sees": "input_transmission",
    "alternate": "update_order",
    "output_step": "target_step",
    "work": "flops",
}
"""What keys and words are called now, by the names that they had."""

CLIPPING = ("clip_norm", "clip_value", "clip_grad_norm", "gradient_clip_val", "max_norm", "max_grad_norm")
"""What the clipping of gradients is called in other places, and where ours is not."""


def join(*parts: str) -> str:
    """Return a dotted key."""
    return ".".join(part for part in parts if part)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known word, or the list of known ones."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a key that is not one of those ``known`` in its section."""
    names = list(known)
    section, _, name = key.rpartition(".")
    if name in CLIPPING and "clip_norm" not in names:
        text = "a norm over the whole network would cross its stages; gradients are clipped layer by layer"
        return ConfigError(f"{key}: {text}: write optimizer.forward.clip_norm, optimizer.inverse.clip_norm")
    now = RENAMED.get(name)
    if now in names:
        return ConfigError(f"{key}: is called {now} now; write {join(section, now)} instead")
    return ConfigError(f"{key}: unknown key; {suggest(name, names)}")


def require_section(raw: Any, key: str) -> Raw:
    """Return ``raw`` if it is a mapping with text keys.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{key}: {raw!r} is not allowed; it must be a section of keys")
    return {str(name): value for name, value in raw.items()}


def range_error(key: str, error: RangeError) -> ConfigError:
    """Return a range error as a configuration error under ``key``."""
    return ConfigError(f"{join(key, error.key)}: {error}")


def parse_options(cls: Callable[..., T], raw: Any) -> T:
    """Return plain data, or an instance whose fields were changed, as a checked instance of ``cls``.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value outside its range.
    """
    try:
        return _parsed(cls, raw)
    except ValidationError as error:
        raise _worded(cls, raw, error.errors(include_url=False)) from None


def _parsed(cls: Callable[..., T], raw: Any) -> T:
    """Return ``parse_options`` as pydantic has it; what lies within, of imported classes, comes here, too."""
    try:
        parsed: T = _adapter(cls).validate_python(raw, context=_parsed)
    except PydanticUserError as error:  # of a class of the user's
        text = " ".join(str(error.message).split())
        raise RangeError("", f"the types of the fields of {cls!r} can't be checked ({text})") from error
    return parsed


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


class _Place(NamedTuple):
    """Where an error is: its keys, layers counted from 1; the field's type, its sentence and its section."""

    keys: list[str]
    hint: Any
    doc: str
    section: Any

    @property
    def key(self) -> str:
        return join(*self.keys)


def _place(cls: Any, raw: Any, path: Sequence[int | str]) -> _Place:
    """Return the field that a path of pydantic's leads to; what is within a list of numbers is the list's."""
    place = _Place([], cls, "", cls)
    for part in path:
        section, known = place.section, fields_of(place.section)
        if part in known:
            hint, doc = hints_of(section)[str(part)], known[str(part)].metadata.get("doc", "")
            place = _Place([*place.keys, str(part)], hint, doc, section_of(hint))
        elif isinstance(section, Variants) and isinstance(part, int):
            place = place._replace(keys=[*place.keys, str(part + 1)])
        elif isinstance(section, Variants):
            place = place._replace(section=_member(section, _value(raw, place.keys)))
        else:
            break
    return place


def _member(variants: Variants, value: Any) -> Any:
    """Return what a value is meant for, None where that can't be imported."""
    try:
        return variants.member_of(value)
    except RangeError:
        return None


def _worded(cls: Any, raw: Any, errors: list[ErrorDetails]) -> ConfigError:
    """Return the most telling of pydantic's errors in our words: an unknown key before all others."""
    first = min(errors, key=lambda one: one["type"] != "unexpected_keyword_argument")
    path = first["loc"]
    if first["type"] == "unexpected_keyword_argument":
        place = _place(cls, raw, path[:-1])
        return unknown_key(join(place.key, str(path[-1])), fields_of(place.section))
    if first["type"] == "missing":
        return _missing(cls, raw, [one["loc"] for one in errors if one["type"] == "missing"])
    place = _place(cls, raw, path)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RangeError):
        return range_error(place.key, cause)
    if first["type"] in ("value_error", "assertion_error"):  # of a class of the user's
        return ConfigError(f"{place.key}: {' '.join(str(cause).split())}")
    if first["type"] == "union_tag_not_found" and isinstance(first["input"], Mapping):
        return _unknown_variant(place, first["input"])
    same = {one["type"] for one in errors if _place(cls, raw, one["loc"]).keys == place.keys}
    return _not_allowed(place, _value(raw, place.keys), same)


def _missing(cls: Any, raw: Any, paths: list[tuple[int | str, ...]]) -> ConfigError:
    """Return the error for the first key that is missing, and for those next to it."""
    *above, _ = paths[0]
    names = [str(path[-1]) for path in paths if list(path[:-1]) == above]
    if above and len(names) > 1:
        return ConfigError(f"{_place(cls, raw, above).key}: needs {', '.join(names)} as well")
    place = _place(cls, raw, paths[0])
    limits = allowed(place.hint)
    told = f"; {place.doc}" if place.doc else ""
    return ConfigError(f"{place.key}: is missing{told}" + (f" ({limits})" if limits else ""))


def _unknown_variant(place: _Place, section: Mapping[str, Any]) -> ConfigError:
    variants: Variants = place.section
    assert variants.tag is not None
    name = section.get(variants.tag)
    near = suggest(str(name), variants.classes)
    hint = f" ({near})" if near.startswith("did") else ""
    names = ", ".join(variants.names)
    return ConfigError(
        f"{join(place.key, variants.tag)}: {name!r} is not allowed; it must be one of {names}{hint}"
    )


def _not_allowed(place: _Place, value: Any, errors: set[str]) -> ConfigError:
    """Return the error for a value of the wrong type or outside its range (pydantic's types of errors)."""
    words, limits = choices(place.hint), allowed(place.hint)
    if isinstance(value, str) and RENAMED.get(value) in words:
        now = RENAMED[value]
        return ConfigError(f"{place.key}: {value!r} is called {now} now; write {now} instead")
    if errors & _BOUNDS or (words and "literal_error" in errors):
        wanted = limits
    elif "finite_number" in errors:
        wanted = ", ".join(filter(None, ("a finite number", limits)))
    elif isinstance(section_of(place.hint), Variants) and errors == {"literal_error"}:
        wanted = f"{_EXPECTED['literal_error']}, null or a section of keys"
    elif errors == {"union_tag_not_found"}:
        wanted = "a section of keys"
    else:
        expected = {**_EXPECTED, "list_type": f"a list such as [{words[0]}]"} if words else _EXPECTED
        wanted = " or ".join(sorted({expected.get(one, type_name(place.hint)) for one in errors}))
    return ConfigError(f"{place.key}: {value!r} is not allowed; it must be {wanted}")


def _value(raw: Any, keys: Sequence[str]) -> Any:
    """Return what stands at a place of plain data or of options."""
    for key in keys:
        if isinstance(raw, Mapping):
            raw = raw[key]
        else:
            raw = raw[int(key) - 1] if isinstance(raw, list) else getattr(raw, key)
    return raw
