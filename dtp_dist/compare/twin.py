"""The twin of a configuration: the same network, data and epochs by another rule, with rates of its own.

``compare`` in the configuration says what a twin changes, by the name of its rule: dotted keys with values.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from dtp_dist.algorithm.rules import RULES
from dtp_dist.config import Config, parse_config
from dtp_dist.config.load import with_code_dir
from dtp_dist.config.override import lay_value
from dtp_dist.config.parse import Raw, suggest
from dtp_dist.config.source import code_in
from dtp_dist.errors import ConfigError
from dtp_dist.text.dotted import flat

COMPARE = "compare"
EXAMPLE = "{backprop: {optimizer.forward.lr: 1.0e-3}}"
TAKEN = ("name", "run_dir", "seed", COMPARE)
"""Keys that the comparison sets itself."""
IMPORTED = "package.module:Class"


def check_rule(name: object, key: str) -> str:
    """Return the name of a rule; one that is to be imported is not looked for yet.

    Raises:
        ConfigError: there is none of this name.
    """
    if isinstance(name, str) and (name in RULES or ":" in name):
        return name
    near = suggest(str(name), RULES)
    hint = f" ({near})" if near.startswith("did") else ""
    known = ", ".join([*RULES, IMPORTED])
    raise ConfigError(f"{key}: {name!r} is not allowed; it must be one of {known}{hint}")


def entries(raw: Raw) -> dict[str, Raw]:
    """Return what ``compare`` says, by the rules' names.

    Raises:
        ConfigError: it is no mapping of rules to keys with values.
    """
    found = raw.get(COMPARE) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{COMPARE}: {found!r} is not allowed; write rules with their keys, e.g. {EXAMPLE}")
    for rule, entry in found.items():
        check_rule(rule, COMPARE)
        if not isinstance(entry, Mapping | None):
            text = f"{entry!r} is not allowed; write dotted keys with values, e.g. {EXAMPLE}"
            raise ConfigError(f"{COMPARE}.{rule}: {text}")
    return {rule: dict(entry or {}) for rule, entry in found.items()}


def check_entries(raw: Raw, source: Path, *, allow_code: bool = True) -> None:
    """Check every twin that ``compare`` says something of.

    Args:
        raw: a configuration with its references resolved.
        source: its file.
        allow_code: import what a twin names.

    Raises:
        ConfigError: one can't be made, or imports code that may not be imported.
    """
    for rule in entries(raw):
        for path in code_in(_written(raw, rule)) if not allow_code else ():
            text = f"would import {path!r}; add --allow-code if you trust this file"
            raise ConfigError(f"{COMPARE}.{rule}: {text}")
        twin(raw, rule, source)


def twin(raw: Raw, rule: str, source: Path) -> Config:
    """Return the twin by a rule: checked, and without options of inverses where the rule has none.

    Args:
        raw: the configuration with its references resolved.
        rule: its name, or its import path.
        source: the configuration's file.

    Raises:
        ConfigError: ``compare`` has an unknown key or a wrong value, or the network does not suit the rule.
    """
    written = with_code_dir(_written(raw, rule), source)
    try:
        config = parse_config(written)
        inverses = config.build_rule().inverses()
        return config if inverses else parse_config(_without_inverses(written))
    except ConfigError as error:
        key, entry = str(error).partition(":")[0], flat(entries(raw).get(rule, {}))
        mine = any(f"{each}.".startswith(f"{key}.") or key.startswith(f"{each}.") for each in entry)
        told = f"{COMPARE}.{rule}.{error}" if mine else f"{error} (in the twin by {rule})"
        raise ConfigError(told) from None


def _written(raw: Raw, rule: str) -> Raw:
    """Return the twin as plain data, not checked."""
    found = deepcopy({key: value for key, value in raw.items() if key != COMPARE})
    found["rule"] = {"name": rule}
    for key, value in entries(raw).get(rule, {}).items():
        if key.partition(".")[0] in TAKEN:
            raise ConfigError(f"{COMPARE}.{rule}.{key}: the comparison sets it itself; leave it out")
        try:
            lay_value(found, key, value)
        except ConfigError as error:
            raise ConfigError(f"{COMPARE}.{rule}.{error}") from None
    name = found["rule"].get("name") if isinstance(found["rule"], dict) else None
    if name != rule:
        raise ConfigError(
            f"{COMPARE}.{rule}.rule: {found['rule']!r} is another rule; write it under its own name"
        )
    return found


def _without_inverses(raw: Raw) -> Raw:
    return {**raw, **{name: _stripped(raw[name]) for name in ("model", "optimizer")}}


def _stripped(value: Any) -> Any:
    """Return a section without ``inverse``, at any depth but in what is handed to a user's own code."""
    if isinstance(value, Mapping):
        kept = {name: each for name, each in value.items() if name != "inverse"}
        return {name: each if name == "args" else _stripped(each) for name, each in kept.items()}
    return [_stripped(each) for each in value] if isinstance(value, list) else value
