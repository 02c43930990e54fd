"""The runs of a comparison: each rule with each seed, and the comparison's folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dtp_dist.compare.twin import COMPARE, check_entries, check_rule, entries, twin
from dtp_dist.config import Config, parse_config, read_config
from dtp_dist.config.batches import ensured
from dtp_dist.config.load import concealing
from dtp_dist.config.parse import Raw
from dtp_dist.errors import ConfigError
from dtp_dist.trials.folder import UNTOLD, open_folder
from dtp_dist.trials.trial import Trial, check_learns, metric_of

FILE = "compare.yaml"
SEEDS = 1000
"""The most that one comparison may have."""
DIGITS = 18
TAKEN = {"seed": "--seeds", "run_dir": "--dir"}
"""Keys that the comparison sets itself, and what says to what."""


def seeds_in(text: str) -> list[int]:
    """Return the seeds in a text such as ``0-4`` or ``0,2,5-7``, each once, in its order.

    Raises:
        ConfigError: it is something else.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(rf"\s*(\d{{1,{DIGITS}}})\s*(?:-\s*(\d{{1,{DIGITS}}})\s*)?", part, re.ASCII)
        if not match:
            raise ConfigError(
                f"--seeds: {text!r} is not allowed; write seeds or ranges of them, e.g. 0-4 or 0,2,5"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"--seeds: {part.strip()!r} ends before it begins; write {last}-{first}")
        if last - first + len(found) >= SEEDS:
            raise ConfigError(f"--seeds: {text!r} are too many; write at most {SEEDS}")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def plan_comparison(
    source: Path, overrides: Sequence[str], rules: Sequence[str], seeds: Sequence[int], folder: Path
) -> list[Trial]:
    """Return all runs, those of one seed side by side; what is missing of the data is fetched.

    Args:
        source: the configuration's file.
        overrides: dotted; for the configuration and its twins.
        rules: those of the twins.
        seeds: of every rule's runs.
        folder: where the runs lie.

    Raises:
        ConfigError: a key is unknown or a value is not allowed, in the configuration or in a twin, or a rule.
        DataError: the data are missing or damaged.
    """
    _refuse_taken(overrides)
    with concealing(source, overrides) as raw:
        configs = _by_rule(raw, rules, source)
    for config in configs.values():
        check_learns(config, "comparison")
    own = next(iter(configs.values()))
    metric = metric_of(own, "valid" if "valid" in ensured(own).batches else "test")
    trials: list[Trial] = []
    for seed in seeds:
        for rule, config in configs.items():
            values, place = {"rule": rule, "seed": seed}, f"{_as_name(rule)}-seed{seed}"
            mine = replace(
                config, seed=seed, name=f"{config.name}-{_as_name(rule)}", run_dir=str(folder / place)
            )
            trials.append(Trial(len(trials), folder / place, values, mine, metric))
    return trials


def _refuse_taken(overrides: Sequence[str]) -> None:
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key in TAKEN:
            raise ConfigError(f"{key}: the comparison sets it itself; write {TAKEN[key]}")


def _by_rule(raw: Raw, rules: Sequence[str], source: Path) -> dict[str, Config]:
    """Return the configuration, first, and its twins, by their rules."""
    own = parse_config({**raw, COMPARE: {}})
    for rule in rules:
        check_rule(rule, "--with")
    check_entries(raw, source)
    if own.rule.name in rules:
        text = f"{own.rule.name} is the configuration's own rule; name another one"
        raise ConfigError(f"--with: {text} to compare it with")
    return {own.rule.name: own, **{rule: twin(raw, rule, source) for rule in rules}}


def _as_name(rule: str) -> str:
    """Return a rule's name, or import path, as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", rule)


def open_comparison(folder: Path, source: Path, overrides: Sequence[str], rules: Sequence[str]) -> None:
    """Make the folder of a comparison, or open that of the same one to continue, maybe with further rules.

    Raises:
        ConfigError: it holds another comparison, or something else.
        StorageError: it can't be written.
    """
    raw = read_config(source, overrides)
    kept = {key: value for key, value in raw.items() if key not in (*UNTOLD, *TAKEN, "monitor")}
    twins = {f"{COMPARE}.{rule}": entries(raw).get(rule, {}) for rule in rules}
    open_folder(folder, FILE, {"config": kept, **twins}, option="--dir", what="comparison")
