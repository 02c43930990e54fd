"""dtp_dist: distributed, layer-parallel training by Difference Target Propagation.

``train(load_config("digits_dtp"))`` trains what a configuration says and returns its result and the network.
``resume`` continues a run, ``evaluate`` measures its newest weights, ``predict`` applies them to new
examples, ``export`` writes them for plain torch. Whatever goes wrong for a user is a ``DtpDistError`` of one
line.

Everything is imported when it is first used: ``import dtp_dist`` itself loads no torch.
"""

TYPE_CHECKING = False  # of typing, which a file of that name in the working directory could hide here

if TYPE_CHECKING:
    from typing import Any

    from dtp_dist.config import Config, load_config
    from dtp_dist.errors import ConfigError, DataError, DtpDistError
    from dtp_dist.monitor.base import Epoch, Line, Monitor, Start
    from dtp_dist.prediction.predict import Prediction, predict
    from dtp_dist.storage.export_file import export
    from dtp_dist.training.evaluate import evaluate
    from dtp_dist.training.trainer import Trained, resume, train

    __version__: str

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "DtpDistError",
    "Epoch",
    "Line",
    "Monitor",
    "Prediction",
    "Start",
    "Trained",
    "evaluate",
    "export",
    "load_config",
    "predict",
    "resume",
    "train",
]

_PLACES = {
    "dtp_dist.config": ("Config", "load_config"),
    "dtp_dist.errors": ("ConfigError", "DataError", "DtpDistError"),
    "dtp_dist.monitor.base": ("Epoch", "Line", "Monitor", "Start"),
    "dtp_dist.prediction.predict": ("Prediction", "predict"),
    "dtp_dist.storage.export_file": ("export",),
    "dtp_dist.training.evaluate": ("evaluate",),
    "dtp_dist.training.trainer": ("Trained", "resume", "train"),
}
"""Where each of the public names comes from."""


def __getattr__(name: str) -> "Any":
    """Import on first use: a stage's process starts to answer before it has imported torch."""
    from importlib import import_module

    if name == "__version__":
        return import_module("dtp_dist.version").VERSION
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names too, which are not there before they are used."""
    return sorted({*globals(), *__all__, "__version__"})
