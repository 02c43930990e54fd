"""What distinguishes two runs: rule, data, learning rates and seed, in few characters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dtp_dist.report.read import Run
from dtp_dist.report.spans import is_number
from dtp_dist.text.numbers import short

SETTINGS = ("rule", "data", "learning_rate", "seed")

NONE = "–"


def settings_of(run: Run) -> dict[str, str | int | None]:
    """Return the main settings by name, None where one is not known."""
    seed = _at(run.config, "seed")
    return {
        "rule": _word(_at(run.config, "rule", "name")),
        "data": _word(_at(run.config, "data", "name")),
        "learning_rate": learning_rate(run.config),
        "seed": int(seed) if is_number(seed) else None,
    }


def learning_rate(config: Mapping[str, Any]) -> str | None:
    """Return forward and inverse rate, one where they are the same; a star where layers have their own."""
    forward, inverse = (_rate(_at(config, "optimizer", side, "lr")) for side in ("forward", "inverse"))
    layers = _at(config, "model", "layers")
    own = any(
        _at(layer, "optimizer", side) is not None
        for layer in (layers if isinstance(layers, list) else [])
        for side in ("forward", "inverse")
    )
    known = list(dict.fromkeys(rate for rate in (forward, inverse) if rate is not None))
    return " / ".join(known) + ("*" if own else "") if known else None


def _rate(value: Any) -> str | None:
    if is_number(value):
        return short(value)
    if isinstance(value, dict):
        start, schedule = (value.get(name) for name in ("start", "schedule"))
        return f"{short(start) if is_number(start) else '?'} {schedule}"
    return None


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def plain(value: Any) -> str:
    """Return a value as a configuration file has it, without quotes: ``dtp``, ``[64, 10]``, ``null``."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {plain(each)}' for key, each in value.items())}}}"
    return json.dumps(value, default=str)
