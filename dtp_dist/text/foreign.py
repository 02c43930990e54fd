"""Reading what anybody may have written: regular files of a bounded size, JSON and YAML of a bounded depth.

A file in a folder that came from elsewhere may be a pipe, a device or endless, and text of a few bytes may
stand for gigabytes. Here such things are refused in one line before they cost time or memory.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, cast

import yaml

TEXT_BYTES = 16 * 2**20
"""Of a configuration, a space, a result, a manifest."""

LOG_BYTES = 256 * 2**20
"""Of what grows with a run: ``metrics.jsonl`` and ``trace.json``."""

DEPTH = 40
"""Sections and lists within one another; a configuration has six."""

NODES = 100_000
"""Values of a YAML document, with every alias written out."""

INT_BITS = 64

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading, never waiting for what is none.

    Raises:
        OSError: it can't be opened, or is a folder, pipe, socket or device.
    """
    return os.fdopen(_regular(path, os.O_RDONLY), "rb")


def read_file(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: it can't be read, is no regular file, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
        return file.read(size)


def open_log(path: Path) -> FileIO:
    """Open a regular file, which is made where it is missing, to append to it; never one elsewhere by a link.

    Raises:
        OSError: it can't be opened, is a link, or is a pipe, socket or device.
    """
    return FileIO(_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW), "a+")


def _regular(path: Path, flags: int) -> int:
    """Return a descriptor of a regular file; a pipe without another end is not waited for."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def is_regular(path: Path) -> bool:
    """Whether there is a regular file, as far as one may look."""
    try:
        return path.is_file()
    except OSError:
        return False


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON document holds.

    Raises:
        ValueError: it is not JSON, or nested deeper than ``DEPTH``.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [found]
    for _ in range(DEPTH + 1):
        level = [item for each in level if isinstance(each, (dict, list)) for item in _items(each)]
        if not level:
            return found
    raise ValueError("it is nested too deep")


def _items(value: dict[str, Any] | list[Any]) -> list[Any]:
    return value if isinstance(value, list) else list(value.values())


class _RefusedError(ValueError):
    """A document that is not even made."""


class PlainLoader(_Base):  # type: ignore[misc]
    """YAML's texts, flags, lists, sections and numbers, but for numbers that nothing can count with."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number of at most ``INT_BITS`` bits."""
        if len(node.value) <= 4 * INT_BITS:
            found: int = super().construct_yaml_int(node)
            if found.bit_length() <= INT_BITS:
                return found
        text = f"found a whole number of more than {INT_BITS} bits"
        raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)


_TAG = "tag:yaml.org,2002:"
_TAGS = {None, *(_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map"))}
PlainLoader.yaml_constructors = {
    tag: each for tag, each in PlainLoader.yaml_constructors.items() if tag in _TAGS
}
PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _TAG + "timestamp"]
    for first, found in PlainLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_constructor(_TAG + "int", PlainLoader.construct_yaml_int)


def parse_yaml(text: str | bytes, loader: type[Any] = PlainLoader) -> Any:
    """Return what a YAML document holds, read by ``loader``.

    Raises:
        ValueError: it is not YAML, nested deeper than ``DEPTH``, or has more than ``NODES`` values.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        _measure(text)
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except _RefusedError:
        raise
    # What stands behind a tag is made by Python's own functions, each with exceptions of its own.
    except Exception as error:
        raise ValueError(f"a value can't be read ({' '.join(str(error).split())})") from None


def _measure(text: str) -> None:
    """Check depth and number of values by the document's events, of which nothing is made yet."""
    total = 0
    open_: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.AliasEvent):
            total += _size_of(event, sizes)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            open_.append((event.anchor, total))
            total += 1
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            anchor, before = open_.pop()
            sizes |= {anchor: total - before} if anchor is not None else {}
        if len(open_) > DEPTH or total > NODES:
            what = f"deeper than {DEPTH} levels" if len(open_) > DEPTH else f"more than {NODES} values"
            raise _RefusedError(f"it is too large: {what}")


def _size_of(alias: yaml.AliasEvent, sizes: dict[str, int]) -> int:
    name = cast(str, alias.anchor)
    if name not in sizes:
        raise _RefusedError(f"*{name} stands for nothing before it, or for itself")
    return sizes[name]
