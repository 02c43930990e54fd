"""Typed, frozen options: the schema of a run, each field with its range and one sentence.

The classes are plain dataclasses, so that the algorithm depends on nothing but torch; the
configuration (``dtp_dist.config``) checks types and unknown keys, this file checks ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar


def option(
    default: Any = MISSING,
    *,
    doc: str,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    one_of: Sequence[str] | None = None,
) -> Any:
    """Return a dataclass field with a sentence ``doc`` (units included) and its allowed range."""
    limits = {"above": above, "at_least": at_least, "below": below, "at_most": at_most, "one_of": one_of}
    metadata = {"doc": doc, **{name: limit for name, limit in limits.items() if limit is not None}}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def allowed(metadata: Any) -> str:
    """Return the allowed values of a field as words, "" where any value of its type will do."""
    if "one_of" in metadata:
        return "one of " + ", ".join(metadata["one_of"])
    words = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
    return " and ".join(f"{words[name]} {metadata[name]:g}" for name in words if name in metadata)


def _fits(value: Any, metadata: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_fits(item, metadata) for item in value)
    if isinstance(value, Mapping):
        return all(_fits(item, metadata) for item in value.values())
    if "one_of" in metadata:
        return bool(value in metadata["one_of"])
    if not isinstance(value, (int, float)):
        return True
    return bool(
        value > metadata.get("above", float("-inf"))
        and value >= metadata.get("at_least", float("-inf"))
        and value < metadata.get("below", float("inf"))
        and value <= metadata.get("at_most", float("inf"))
    )


class RangeError(ValueError):
    """A value outside its range; ``key`` is the field's name within its section."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every section of a configuration.

    Raises:
        RangeError: a field's value is outside the range its ``option`` states.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and not _fits(value, item.metadata):
                limits = allowed(item.metadata) or "a finite number"
                raise RangeError(item.name, f"{value!r} is not allowed; it must be {limits}")
