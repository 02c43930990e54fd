"""The trials of a search: their settings, their folders, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dtp_dist.config import Config, parse_config, read_config, to_dict
from dtp_dist.config.batches import label_columns
from dtp_dist.errors import ConfigError
from dtp_dist.report.read import Run, read_run
from dtp_dist.storage.files import write_file
from dtp_dist.storage.lock import is_empty
from dtp_dist.storage.run_files import RESULT
from dtp_dist.text.dotted import flat
from dtp_dist.text.foreign import TEXT_BYTES, is_regular, parse_json, parse_yaml, read_file
from dtp_dist.text.numbers import error_rate, short
from dtp_dist.tune.space import Space, Values, as_overrides

SEARCH = "tune.yaml"
UNTOLD = ("name", "run_dir", "code_dir")
ERROR, LOSS = "valid_error", "valid_loss"


@dataclass(frozen=True)
class Trial:
    """One trial: an ordinary run in a folder of the search.

    Attributes:
        number: from 0.
        folder: its run directory.
        values: what was drawn for it.
        config: its configuration, checked.
        metric: what trials are compared by, the less the better.
    """

    number: int
    folder: Path
    values: Values
    config: Config
    metric: str = ERROR

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def record(self) -> Path:
        """The file that says how the search ended it, if the search did."""
        return self.folder.with_suffix(".json")


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: done, stopped (by the scheduler), failed, or open.
        message: why it failed, in one line.
        run: its folder as it was read.
        final: whether it is left as it is when the search goes on.
    """

    trial: Trial
    state: str
    message: str
    run: Run
    final: bool

    @property
    def reached(self) -> float | None:
        """What it is compared by, as measured last."""
        return self.run.last(self.trial.metric)

    @property
    def said(self) -> str:
        """The same in words."""
        return in_words(self.trial.metric, self.reached)


def in_words(metric: str, value: float | None) -> str:
    """Return what trials are compared by in words: ``valid error 2.02 %``, ``valid loss 0.25``."""
    name = metric.replace("_", " ")
    if value is None:
        return f"no {name}"
    return f"{name} {error_rate(value)} %" if metric == ERROR else f"{name} {short(value)}"


def plan_trials(
    source: Path, overrides: Sequence[str], space: Space, count: int, seed: int, folder: Path
) -> list[Trial]:
    """Return all trials; every configuration is checked, so that no mistake shows up hours later.

    Raises:
        ConfigError: a key is unknown, or a drawn value is not allowed; names the trial and the key.
    """
    trials: list[Trial] = []
    for number in range(count):
        values, name = space.draw(seed, number), f"trial_{number:04d}"
        try:
            config = parse_config(read_config(source, [*overrides, *as_overrides(values)]))
        except ConfigError as error:
            raise ConfigError(f"{error} (in {name} of the search)") from None
        config = replace(config, name=f"{config.name}-{name}", run_dir=str(folder / name))
        _check(config)
        metric = trials[0].metric if trials else metric_of(config)
        trials.append(Trial(number, folder / name, values, config, metric))
    return trials


def metric_of(config: Config) -> str:
    """Return what trials of a configuration are compared by: the error of classes, the loss of numbers."""
    return ERROR if label_columns(config) is None else LOSS


def _check(config: Config) -> None:
    if config.parallel.runtime == "ray":
        text = "ray is not allowed in a search, whose trials are Ray's already; write local or inprocess"
        raise ConfigError(f"parallel.runtime: {text}")
    if config.data.valid_examples == 0:
        raise ConfigError("data.valid_examples: 0 leaves nothing to compare trials by; write at least 1")
    if config.parallel.virtual:
        raise ConfigError("parallel.virtual_costs: virtual devices learn nothing to compare; write null")
    if any(layer.kind == "instance" for layer in config.model.options):
        raise ConfigError("model.layers: a module instance can't be searched over; name an import path")


def open_search(folder: Path, source: Path, overrides: Sequence[str], space: Path, seed: int) -> None:
    """Make the folder of a search, or open that of the same one to go on.

    Raises:
        ConfigError: it holds another search, or something else.
        StorageError: it can't be written.
    """
    asked = {
        "search_seed": seed,
        "config": {key: value for key, value in read_config(source, overrides).items() if key not in UNTOLD},
        "space": parse_yaml(read_file(space, TEXT_BYTES)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = parse_yaml(read_file(folder / SEARCH, TEXT_BYTES)) if is_regular(folder / SEARCH) else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out: {folder} can't be used ({error}); name another folder") from None
    if known is None and not is_empty(folder):
        raise ConfigError(f"--out: {folder} exists and holds no search; name another folder")
    if known is None:
        write_file(folder / SEARCH, yaml.safe_dump(asked, sort_keys=False).encode())
        return
    before, now = flat(known), flat(asked)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            values = f"{key.removeprefix('config.')} was {before.get(key)!r}, now {now.get(key)!r}"
            raise ConfigError(f"--out: {folder} holds another search: {values}; name another folder")


def outcome_of(trial: Trial) -> Outcome:
    """Return what became of a trial, from its folder and the search's record of it."""
    run = read_run(trial.folder, trace=False)
    if run.result and (trial.folder / RESULT).is_file():
        return Outcome(trial, "done", "", run, final=True)
    try:
        known: Any = parse_json(read_file(trial.record, TEXT_BYTES))
        return Outcome(trial, known["state"], known["message"], run, final=known["final"])
    except (OSError, ValueError, KeyError, TypeError):
        return Outcome(trial, "open", "", run, final=False)


def record(path: Path, state: str, message: str = "", *, final: bool) -> None:
    """Write how a trial ended: stopped by the scheduler, or failed.

    Raises:
        StorageError: it can't be written.
    """
    write_file(path, json.dumps({"state": state, "message": message, "final": final}).encode())


def best_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the trial that comes first by its metric: among those that are done, if any is."""
    known = [each for each in outcomes if each.reached is not None and each.state != "failed"]
    done = [each for each in known if each.state == "done"]
    return min(done or known, key=lambda each: each.reached or 0.0, default=None)


def as_config(outcome: Outcome, name: str) -> str:
    """Return a trial's configuration as a file that ``train`` takes."""
    raw = {**to_dict(outcome.trial.config), "name": name, "run_dir": None}
    head = f"# {outcome.trial.name} of a search, {outcome.state}, {outcome.said}\n"
    return head + yaml.safe_dump(raw, sort_keys=False, default_flow_style=None, width=110)
