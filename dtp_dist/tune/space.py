"""A space of settings: dotted keys of the configuration, each with a distribution."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dtp_dist.config.parse import suggest
from dtp_dist.errors import ConfigError
from dtp_dist.text.foreign import TEXT_BYTES, parse_yaml, read_file

Values = dict[str, Any]


class Distribution(Protocol):
    """What a setting is drawn from."""

    def draw(self, source: random.Random) -> Any:
        """Return one value."""


@dataclass(frozen=True)
class Uniform:
    """Even between ``low`` and ``high``."""

    low: float
    high: float

    def draw(self, source: random.Random) -> float:
        """Return a number."""
        return _rounded(source.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform:
    """Even in the logarithm between ``low`` and ``high``, both above 0."""

    low: float
    high: float

    def draw(self, source: random.Random) -> float:
        """Return a number."""
        return _rounded(math.exp(source.uniform(math.log(self.low), math.log(self.high))))


@dataclass(frozen=True)
class IntUniform:
    """Even among the whole numbers from ``low`` to ``high``, both included."""

    low: int
    high: int

    def draw(self, source: random.Random) -> int:
        """Return a whole number."""
        return source.randint(self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """Even among listed values of any type."""

    values: tuple[Any, ...]

    def draw(self, source: random.Random) -> Any:
        """Return one of them."""
        return source.choice(self.values)


def _rounded(value: float) -> float:
    """Return a number with four digits: more can't be told apart by training, but have to be read."""
    return float(f"{value:.4g}")


RANGES: dict[str, type[Any]] = {"uniform": Uniform, "log_uniform": LogUniform, "int_uniform": IntUniform}
KNOWN = (*RANGES, "choice")
TAKEN = ("run_dir", "name")
"""Keys that the search sets itself."""


@dataclass(frozen=True)
class Space:
    """Distributions by dotted key."""

    settings: Mapping[str, Distribution]

    def draw(self, seed: int, trial: int) -> Values:
        """Return the settings of a trial: from (seed, trial, key) alone, whatever else is in the space."""
        return {key: each.draw(_source(seed, trial, key)) for key, each in self.settings.items()}


def _source(seed: int, trial: int, key: str) -> random.Random:
    digest = hashlib.sha256(json.dumps([seed, trial, key]).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "little"))


def read_space(path: Path) -> Space:
    """Return the space in a YAML file, ``key: {distribution: [...]}`` a line.

    Raises:
        ConfigError: the file is missing or not YAML, or a distribution is unknown or has wrong bounds.
    """
    try:
        raw = parse_yaml(read_file(path, TEXT_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); name a space with --space") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(raw, dict) or not raw:
        example = "optimizer.forward.lr: {log_uniform: [1.0e-4, 1.0e-1]}"
        raise ConfigError(f"{path}: is not a space; write keys with distributions, e.g. {example}")
    return Space({str(key): _distribution(str(key), value) for key, value in raw.items()})


def _distribution(key: str, raw: Any) -> Distribution:
    if key in TAKEN:
        raise ConfigError(f"{key}: the search sets it itself; leave it out of the space")
    if not isinstance(raw, dict) or len(raw) != 1:
        raise ConfigError(f"{key}: {raw!r} is not a distribution; write one of {', '.join(KNOWN)}: [...]")
    ((name, given),) = raw.items()
    if name not in KNOWN:
        raise ConfigError(f"{key}: {name!r} is not a distribution; {suggest(str(name), KNOWN)}")
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{key}.{name}: {given!r} is not allowed; it must be a list")
    return Choice(tuple(given)) if name == "choice" else _range(key, str(name), given)


def _range(key: str, name: str, given: list[Any]) -> Distribution:
    whole = name == "int_uniform"
    numbers = [value for value in given if isinstance(value, int if whole else (int, float))]
    what = "two whole numbers" if whole else "two numbers"
    if len(given) != 2 or len(numbers) != 2 or any(isinstance(value, bool) for value in given):
        hint = "; YAML needs a point in 1.0e-4" if any(isinstance(value, str) for value in given) else ""
        raise ConfigError(f"{key}.{name}: {given!r} is not allowed; it must be {what}, [low, high]{hint}")
    low, high = numbers
    lowest = 0.0 if name == "log_uniform" else -math.inf
    if not lowest < low < high < math.inf:
        bounds = "0 < low < high" if name == "log_uniform" else "low < high"
        raise ConfigError(f"{key}.{name}: {given!r} is not allowed; it must be [low, high] with {bounds}")
    found: Distribution = RANGES[name](low, high)
    return found


def as_overrides(values: Values) -> list[str]:
    """Return settings as dotted overrides of a configuration."""
    return [f"{key}={json.dumps(value, default=str)}" for key, value in values.items()]
