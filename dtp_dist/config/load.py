"""Reading a configuration: YAML, dotted overrides, defaults written out, everything checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import yaml

from dtp_dist.config.check import check
from dtp_dist.config.hints import fields_of
from dtp_dist.config.layers import written_out
from dtp_dist.config.override import lay_over
from dtp_dist.config.parse import Raw, parse_options, unknown_key
from dtp_dist.config.plain import plain
from dtp_dist.config.references import concealed, from_zero, remember, resolved
from dtp_dist.config.schema import Config
from dtp_dist.config.source import code_in, read_source
from dtp_dist.errors import ConfigError
from dtp_dist.import_path import admit
from dtp_dist.system.named import named_file
from dtp_dist.system.paths import expanded

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SECTIONS = ("model", "rule", "optimizer", "train", "data", "parallel", "monitor", "compare")


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Return the configuration in a YAML file or a mapping, with dotted overrides (``train.epochs=3``).

    ``source`` may be the name of one that comes with the package (``digits_dtp``).
    It is trusted: its references are resolved, and functions that it names are imported and called.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value is not allowed, or the
            parts do not fit one another; one line that names the key, the value and what is allowed.
    """
    with concealing(source, overrides) as raw:
        return parse_config(raw)


@contextmanager
def concealing(source: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Iterator[Raw]:
    """Give a block what ``read_config`` returns of a trusted file.

    Raises:
        ConfigError: as ``read_config``, or the block's, in which references are shown as they are written.
    """
    written = _written(source, overrides, trusted=True)
    raw = with_code_dir(resolved(written), source)
    remember(written, raw)
    try:
        yield raw
    except ConfigError as error:
        raise ConfigError(concealed(str(error), written, raw)) from None


def read_config(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    trusted: bool = True,
    of_run: bool = False,
) -> Raw:
    """Return what ``load_config`` checks: plain data with overrides in place and references resolved.

    Without ``trusted`` a file may refer to nothing (``${...}``), and name no code; overrides may. No module
    lies next to the file ``of_run``, which says itself where those are that it names.

    Raises:
        ConfigError: the file is missing or not YAML, has what it may not have, or an override can't be set.
    """
    written = _written(source, overrides, trusted=trusted)
    raw = resolved(written)
    remember(written, raw)
    if not trusted:
        for path in code_in(raw):
            raise ConfigError(f"{source}: would import {path!r}; add --allow-code if you trust this file")
    return raw if of_run else with_code_dir(raw, source)


def with_code_dir(raw: Raw, source: str | Path | Mapping[str, Any]) -> Raw:
    """Return a configuration that names code with the folder of its file, unless it names another one."""
    if isinstance(source, Mapping) or raw.get("code_dir") is not None or not any(code_in(raw)):
        return raw
    return {**raw, "code_dir": str(Path(source).absolute().parent)}


def _written(source: str | Path | Mapping[str, Any], overrides: Sequence[str], *, trusted: bool) -> Raw:
    """Return a configuration with overrides in place, and its references as OmegaConf reads them."""
    if isinstance(source, Mapping):
        raw: Raw = plain(source)
    else:
        path = named_file(source)
        raw = read_source(path, trusted=trusted)
        raw.setdefault("name", path.stem)
    for text in [overrides] if isinstance(overrides, str) else overrides:
        lay_over(raw, text)
    return from_zero(raw)


def parse_config(raw: Raw) -> Config:
    """Return a checked configuration from a plain mapping.

    Raises:
        ConfigError: as ``load_config``.
    """
    given = {name: value for name, value in plain(raw).items() if value is not None or name not in _SECTIONS}
    for key in given:
        if key not in fields_of(Config):
            raise unknown_key(key, fields_of(Config))
    for key in ("model", "rule", "optimizer"):
        if key not in given:
            raise ConfigError(f"{key}: is missing; a configuration needs model, rule and optimizer")
    return checked({**given, "model": written_out(given["model"])})


def checked(config: Config | Raw) -> Config:
    """Return a configuration that Python code may have changed (``dataclasses.replace``), checked as a whole.

    Raises:
        ConfigError: as ``load_config``.
    """
    given = plain(vars(config)) if isinstance(config, Config) else config
    if any(code_in(given)):
        folder = given.get("code_dir")
        admit(expanded("code_dir", folder) if isinstance(folder, str) else None)
    parsed = parse_options(Config, given)
    check(parsed)
    return parsed


def to_dict(config: Config) -> Raw:
    """Return the configuration as plain data; ``parse_config`` gives it back."""
    return cast(Raw, plain(asdict(config)))


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML."""
    return str(
        yaml.dump(to_dict(config), Dumper=_DUMPER, sort_keys=False, default_flow_style=None, width=110)
    )
