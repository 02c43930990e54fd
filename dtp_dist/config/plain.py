"""What users write, as the plain data that a configuration is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_type_hints

import yaml

from dtp_dist.config.hints import choices, hints_of
from dtp_dist.config.schema import Config
from dtp_dist.text.foreign import PlainLoader

Raw = dict[str, Any]
VARIED = ("model", "rule", "optimizer")
"""Sections of which another class may take the place; none has a key for any word."""


def plain(value: Any) -> Any:
    """Return the same with keys and paths as text, tuples as lists, and NumPy's values as Python's."""
    if isinstance(value, Mapping):
        return {str(plain(name)): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


@cache
def word_keys() -> dict[str, bool]:
    """Return the dotted keys that take any word (names, folders), and whether each may be null."""
    return dict(_words(Config, ""))


def _words(cls: Any, start: str) -> Sequence[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    hints, annotated = get_type_hints(cls), hints_of(cls)
    for item in fields(cls):
        hint = hints[item.name]
        members = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if str in members and not choices(annotated[item.name]):
            found.append((f"{start}{item.name}", type(None) in members))
        elif isinstance(hint, type) and is_dataclass(hint) and item.name not in VARIED:
            found += _words(hint, f"{start}{item.name}.")
    return found


def as_word(key: str, text: str, value: Any) -> Any:
    """Return what stands for ``key``: the ``text`` itself where it is a word that YAML reads as a number."""
    nullable = word_keys().get(key)
    if nullable is None or isinstance(value, (str, Mapping, list)) or not text:
        return value
    return value if value is None and nullable else text


def restore_words(raw: Raw, text: str) -> None:
    """Put back, in what YAML has made of ``text``, words that it took for numbers (``name: 007``)."""
    written = yaml.compose(text, Loader=PlainLoader)
    for key in word_keys():
        *path, name = key.split(".")
        place: Any = raw
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and name in place:
            place[name] = as_word(key, _as_written(written, key.split(".")), place[name])


def _as_written(node: yaml.Node | None, path: Sequence[str]) -> str:
    """Return the text of a value in a document, "" where there is none."""
    for part in path:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in entries if key.value == part), None)
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
