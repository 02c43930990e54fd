"""The experiment trackers by name. Adding one is a file with its class and its line here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from dtp_dist.errors import ConfigError
from dtp_dist.loggers.base import Logger

LOGGERS = {
    "mlflow": "dtp_dist.loggers.mlflow:MLflow",
    "wandb": "dtp_dist.loggers.wandb:WandB",
}
"""``MODULE:CLASS`` by the name in a configuration, which is also that of the package and of the extra."""


def make_logger(name: str) -> Logger:
    """Return a new logger; its package is imported when it is opened."""
    module, _, cls = LOGGERS[name].partition(":")
    made: Logger = getattr(import_module(module), cls)()
    return made


def check_loggers(names: Iterable[str]) -> None:
    """Check that the packages of some loggers are installed, without importing them.

    Raises:
        ConfigError: one is not; says what to type.
    """
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name is none: trackers leave such folders
            text = f"{name} is not installed; install it: pip install 'dtp-dist[{name}]'"
            raise ConfigError(f"monitor.loggers: {text}, or leave it out")
