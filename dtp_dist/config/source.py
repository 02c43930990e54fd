"""A configuration as it is written: YAML, and what a file from elsewhere may not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dtp_dist.algorithm.options import Options
from dtp_dist.config.layers import without_repeat
from dtp_dist.config.parse import Raw, require_section
from dtp_dist.config.plain import restore_words
from dtp_dist.config.references import counted, references
from dtp_dist.errors import ConfigError
from dtp_dist.text.foreign import TEXT_BYTES, PlainLoader, parse_yaml, read_file


class ConfigLoader(PlainLoader):
    """YAML in which 1e-4 is a number, a day is a word, and no key is written twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse keys that are written twice in one section; one may be merged in (``<<``) as well."""
        if not hasattr(node, "flattened"):
            node.flattened = True  # type: ignore[attr-defined]
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for name in names:
                if names.count(name) > 1 and name != "<<":
                    text = f"found duplicate key {name}"
                    raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
            super().flatten_mapping(node)


NUMBER = re.compile(
    r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
ConfigLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":float")]
    for first, found in ConfigLoader.yaml_implicit_resolvers.items()
}
ConfigLoader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789."))


def read_source(path: Path, *, trusted: bool) -> Raw:
    """Return the mapping in a file as it is written; without ``trusted`` it may refer to nothing.

    Raises:
        ConfigError: the file is missing, too large or not YAML, or no mapping.
    """
    try:
        data = read_file(path, TEXT_BYTES)
        raw = parse_yaml(data, ConfigLoader)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); name a configuration file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not a YAML configuration: {error}") from None
    if not isinstance(raw, dict | None):
        raise ConfigError(f"{path}: is not a configuration; it must have the keys model, rule and optimizer")
    section = require_section(raw or {}, str(path))
    restore_words(section, data.decode())
    if not trusted:
        for key, text in references(without_repeat(section)):
            told = "refers to something else, which is not looked up; add --allow-code if you trust this file"
            raise ConfigError(f"{path}: {counted(key)}: {text!r} {told}")
    return section


CODE = ("model", "rule", "optimizer", "data")
"""The sections in which ``kind`` or ``name`` may be an import path."""


def code_in(config: Raw | Options) -> Iterator[str]:
    """Yield every import path in a configuration, whose references are resolved."""
    sections = vars(config) if isinstance(config, Options) else config
    for name in CODE:
        yield from _import_paths(sections.get(name))


def _import_paths(value: Any) -> Iterator[str]:
    section = vars(value) if isinstance(value, Options) else value
    if isinstance(section, Mapping):
        for key in ("kind", "name"):
            if isinstance(section.get(key), str) and ":" in section[key]:
                yield section[key]
        section = list(section.values())
    for item in section if isinstance(section, list) else []:
        yield from _import_paths(item)
