"""The trials of a search or a comparison: their settings, their folders, and what became of each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtp_dist.config import Config
from dtp_dist.config.batches import label_columns
from dtp_dist.errors import ConfigError
from dtp_dist.report.read import Run, read_run
from dtp_dist.storage.files import write_file
from dtp_dist.storage.run_files import RESULT
from dtp_dist.text.foreign import TEXT_BYTES, parse_json, read_file
from dtp_dist.text.numbers import error_rate, short

Values = dict[str, Any]
ERROR, LOSS = "error", "loss"


@dataclass(frozen=True)
class Trial:
    """One trial: an ordinary run in a folder of the search, or of the comparison.

    Attributes:
        number: from 0.
        folder: its run directory.
        values: what distinguishes it from the others: what was drawn for it, or its rule and its seed.
        config: its configuration, checked.
        metric: what trials are compared by, the less the better.
    """

    number: int
    folder: Path
    values: Values
    config: Config
    metric: str = f"valid_{ERROR}"

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def record(self) -> Path:
        """The file that says how it ended where the run itself can't: stopped, or failed."""
        return self.folder.with_name(f"{self.name}.json")


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: done, stopped (by the scheduler), failed, or open.
        message: why it failed, in one line.
        run: its folder as it was read.
        final: whether it is left as it is when the same command is typed again.
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
    return f"{name} {error_rate(value)} %" if metric.endswith(ERROR) else f"{name} {short(value)}"


def metric_of(config: Config, split: str = "valid") -> str:
    """Return what trials of a configuration are compared by: the error of classes, the loss of numbers."""
    return f"{split}_{ERROR if label_columns(config) is None else LOSS}"


def check_learns(config: Config, what: str) -> None:
    """Refuse a configuration of which several runs can't be trained from a file alone, or learn nothing.

    Args:
        config: a trial's.
        what: the whole that it is part of, ``search``.

    Raises:
        ConfigError: names the key and what to write.
    """
    if config.parallel.virtual:
        text = f"virtual devices learn nothing to compare in a {what}; write null"
        raise ConfigError(f"parallel.virtual_costs: {text}")
    if any(layer.kind == "instance" for layer in config.model.options):
        raise ConfigError(f"model.layers: a {what} takes no module instance; name an import path")


def processes_of(config: Config) -> int:
    """Return how many processes compute in a trial at once."""
    parallel = config.parallel
    if parallel.runtime == "inprocess":
        return 1
    asked = len(parallel.partition) if parallel.partition else parallel.stages
    return (os.cpu_count() or 1) if asked == "auto" else int(asked)


def outcome_of(trial: Trial) -> Outcome:
    """Return what became of a trial, from its folder and the record of it."""
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


def progress(trial: Trial, values: Mapping[str, Any]) -> str:
    """Return a line for whoever watches: what a trial has reached, from a worker's report."""
    said = in_words(trial.metric, values[trial.metric])
    return f"{trial.name}  epoch {values['epoch']}/{trial.config.train.epochs}  {said}"


def end(trial: Trial) -> str:
    """Return a line for whoever watches: how a trial has ended."""
    found = outcome_of(trial)
    return f"{trial.name}  {found.state}{f': {found.message}' if found.message else ''}"
