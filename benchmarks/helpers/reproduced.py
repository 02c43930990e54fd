"""Runs of the papers' experiments: how each is asked for, and the row of the table that it becomes.

A run of fewer epochs than its config has is the same experiment in less time: the length of every cosine that
is counted in epochs shrinks in proportion (a T_max of 85 of 90 epochs is 17 of 18), so that rates reach their
ends. All other schedules stay as they are.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from dtp_dist import load_config
from dtp_dist.config import Config
from dtp_dist.config.layers import without_repeat
from dtp_dist.config.load import read_config
from dtp_dist.errors import DtpDistError
from dtp_dist.storage.origin import origin_of
from helpers.measuring import ROOT, machine, written_on
from helpers.published import EXPERIMENTS
from helpers.resumable import same_run

FILE = ROOT / "docs" / "results" / "reproduce.csv"
COLUMNS = (
    "name",
    "seed",
    "epochs",  # that were run
    "asked",  # that the run was to have
    "of_epochs",  # that the config has
    "data",
    "test_error",
    "valid_error",
    "train_error",
    "seconds",
    "errors",  # the test error after each epoch that was evaluated: "5:3.10 10:2.52"
    "weights_sha256",
    "config",  # of the settings, so that a row of others is found out
    "machine",
    "date",
)
Row = dict[str, Any]


def config_of(name: str) -> Path:
    """Return the file of a config's name."""
    return ROOT / "configs" / f"{name}.yaml"


@cache
def epochs_of(name: str) -> int:
    """Return the number of epochs that a config has."""
    return load_config(config_of(name)).train.epochs


def shorter(name: str, epochs: int) -> list[str]:
    """Return the overrides that make a run of fewer epochs, nothing where they are the config's own."""
    whole = epochs_of(name)
    if epochs == whole:
        return []
    lengths = [
        f"{key}.length={max(1, round(cosine['length'] * epochs / whole))}"
        for key, cosine in _cosines(without_repeat(read_config(config_of(name))))
    ]
    return [f"train.epochs={epochs}", *lengths]


def _cosines(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cosines over epochs in a configuration, with their dotted keys; layers count from 1."""
    if isinstance(value, dict):
        if value.get("schedule") == "cosine" and value.get("unit", "epoch") == "epoch":
            yield key, value
        for name, each in value.items():
            yield from _cosines(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for place, each in enumerate(value, 1):
            yield from _cosines(each, f"{key}.{place}")


def overrides_of(name: str, seed: int, epochs: int, data: str) -> list[str]:
    """Return what a run of so many epochs changes in its config."""
    return [f"seed={seed}", f"data.root={data}", "parallel.runtime=inprocess", *shorter(name, epochs)]


def folder_of(runs: Path, name: str, seed: int, epochs: int) -> Path:
    """Return the run directory of one run."""
    return runs / (name if epochs == epochs_of(name) else f"{name}-{epochs}epochs") / f"seed{seed}"


def folders(runs: Path) -> Iterator[tuple[str, Path]]:
    """Yield the run directories below ``runs`` with their configs' names."""
    for path in sorted(runs.glob("*/seed*")):
        name = path.parent.name.partition("-")[0]
        if path.is_dir() and name in EXPERIMENTS:
            yield name, path


@cache
def fingerprint(name: str, epochs: int) -> str:
    """Return what stands for the settings of a run of so many epochs, whatever its seed."""
    return origin_of(load_config(config_of(name), ["seed=0", *shorter(name, epochs)])).config_sha256[:12]


def settings_of(name: str, folder: Path) -> Config | None:
    """Return a run's configuration if it is that of the config ``name``, maybe with fewer epochs."""
    try:
        config = load_config(folder / "config.yaml")
    except DtpDistError:
        return None
    given = overrides_of(name, config.seed, config.train.epochs, config.data.root)
    return config if same_run(config_of(name), folder, given) else None


def row_of(name: str, folder: Path) -> Row | None:
    """Return the row of a run directory, of its newest evaluation where it is not finished.

    None for a run that has not been evaluated yet, and, after saying so, for one of other settings.
    """
    if not (folder / "metrics.jsonl").exists():
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = {line["epoch"]: line for line in lines if "test_error" in line}
    if not evaluated:
        return None
    config = settings_of(name, folder)
    if config is None:
        print(f"{folder}: has other settings than {name}.yaml and is left out", flush=True)
        return None
    last, result = evaluated[max(evaluated)], folder / "result.json"
    done = json.loads(result.read_text()) if result.exists() else {}
    return {
        "name": name,
        "seed": config.seed,
        "epochs": last["epoch"],
        "asked": config.train.epochs,
        "of_epochs": epochs_of(name),
        "data": EXPERIMENTS[name].data,
        "test_error": last["test_error"],
        "valid_error": last.get("valid_error"),
        "train_error": last.get("train_error_of_epoch", last.get("train_error")),
        "seconds": round(done.get("seconds", last["time"])),
        "errors": " ".join(f"{epoch}:{evaluated[epoch]['test_error']:.2f}" for epoch in sorted(evaluated)),
        "weights_sha256": done.get("weights_sha256", ""),
        "config": fingerprint(name, config.train.epochs),
        "machine": machine(),
        "date": written_on(result if result.exists() else folder / "metrics.jsonl"),
    }


def kept_rows(path: Path = FILE) -> list[Row]:
    """Return the rows of an earlier table whose configs still have the settings that they were run with."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if is_current(row)]
    for name in sorted({row["name"] for row in rows if row not in kept}):
        print(f"{name}: its rows are of other settings than its config has, and are left out", flush=True)
    return kept


def is_current(row: Row) -> bool:
    """Return whether a row is of the settings that its config has now."""
    name, asked = row["name"], int(row["asked"])
    if name not in EXPERIMENTS or int(row["of_epochs"]) != epochs_of(name):
        return False
    return bool(row["config"] == fingerprint(name, asked))


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return one row of each (name, seed, epochs asked): that of the most epochs, the newer among equals."""
    found: dict[tuple[str, int, int], Row] = {}
    for row in [*old, *new]:
        key = (row["name"], int(row["seed"]), int(row["asked"]))
        if key not in found or int(row["epochs"]) >= int(found[key]["epochs"]):
            found[key] = row
    order = list(EXPERIMENTS)
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), -key[2], key[1]))]
