"""Nested sections as dotted keys."""

from __future__ import annotations

from typing import Any


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested sections as dotted keys; lists of numbers are values, lists of sections are numbered."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = {str(number): item for number, item in enumerate(value, 1)}.items()
    else:
        return {key: value}
    return {
        name: leaf for part, item in items for name, leaf in flat(item, f"{key}.{part}".lstrip(".")).items()
    }
