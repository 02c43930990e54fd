"""The types of options: what their metadata allows, in words."""

from __future__ import annotations

from dataclasses import Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from dtp_dist.algorithm.options import OneOf, Variants

_LIMITS = {Gt: "above {0.gt:g}", Ge: "at least {0.ge:g}", Lt: "below {0.lt:g}", Le: "at most {0.le:g}"}


@cache
def hints_of(cls: Any) -> dict[str, Any]:
    """Return the types of a section's fields, with their metadata."""
    return get_type_hints(cls, include_extras=True)


def fields_of(section: Any) -> dict[str, Field[Any]]:
    """Return the fields of a section's class by name, none of anything else."""
    return {item.name: item for item in fields(section)} if is_dataclass(section) else {}


def metadata_of(hint: Any) -> list[Any]:
    """Return the metadata of a type and of those that it is made of, each once."""
    found = list(getattr(hint, "__metadata__", ()))
    inner = [each.plain for each in found if isinstance(each, Variants)]
    for part in (*get_args(hint), *inner):
        found += [each for each in metadata_of(part) if each not in found]
    return found


def section_of(hint: Any) -> Any:
    """Return what has the keys of a field of this type: its class, its ``Variants``, or None."""
    variants = [each for each in metadata_of(hint) if isinstance(each, Variants)]
    return variants[0] if variants else hint if is_dataclass(hint) else None


def choices(hint: Any) -> tuple[str, ...]:
    """Return the words that a type allows, () where any will do."""
    return next((each.names for each in metadata_of(hint) if isinstance(each, OneOf)), ())


def allowed(hint: Any) -> str:
    """Return the allowed values of a type in words, "" where any value of it will do."""
    found = metadata_of(hint)
    words = next((each for each in found if isinstance(each, OneOf)), None)
    if words is not None:
        return f"one of {words.allowed}"
    return " and ".join(
        words.format(limit) for kind, words in _LIMITS.items() for limit in found if isinstance(limit, kind)
    )


def type_name(hint: Any) -> str:
    """Return a type as the reference names it: ``int or null``."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_name(parts[0])
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, parts))
    if origin in (list, dict) and parts[-1] is not Any:
        return f"{origin.__name__}[{', '.join(map(type_name, parts))}]"
    if hint is NoneType:
        return "null"
    return hint.__name__ if hint in (int, float, bool, str) else "section"
