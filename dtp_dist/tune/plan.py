"""The trials of a search, drawn from its space, and the search's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from dtp_dist.config import Config, parse_config, read_config, to_dict
from dtp_dist.errors import ConfigError
from dtp_dist.text.foreign import TEXT_BYTES, parse_yaml, read_file
from dtp_dist.trials.folder import UNTOLD, open_folder
from dtp_dist.trials.trial import Outcome, Trial, check_learns, metric_of
from dtp_dist.tune.space import Space, as_overrides

SEARCH = "tune.yaml"


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


def _check(config: Config) -> None:
    if config.parallel.runtime == "ray":
        text = "ray is not allowed in a search, whose trials are Ray's already; write local or inprocess"
        raise ConfigError(f"parallel.runtime: {text}")
    if config.data.valid_examples == 0:
        raise ConfigError("data.valid_examples: 0 leaves nothing to compare trials by; write at least 1")
    check_learns(config, "search")


def open_search(folder: Path, source: Path, overrides: Sequence[str], space: Path, seed: int) -> None:
    """Make the folder of a search, or open that of the same one to continue.

    Raises:
        ConfigError: it holds another search, or something else.
        StorageError: it can't be written.
    """
    asked = {
        "search_seed": seed,
        "config": {key: value for key, value in read_config(source, overrides).items() if key not in UNTOLD},
        "space": parse_yaml(read_file(space, TEXT_BYTES)),
    }
    open_folder(folder, SEARCH, asked, option="--out", what="search")


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
