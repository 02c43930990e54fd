"""dtp_dist: distributed, layer-parallel training by Difference Target Propagation."""

TYPE_CHECKING = False  # of typing, which a file of that name in the working directory could hide here

if TYPE_CHECKING:
    from typing import Any

    from dtp_dist.config import Config, load_config
    from dtp_dist.monitor.base import Epoch, Line, Monitor, Start
    from dtp_dist.training.trainer import Trained, resume, train

__all__ = ["Config", "Epoch", "Line", "Monitor", "Start", "Trained", "load_config", "resume", "train"]


def __getattr__(name: str) -> "Any":
    """Import on first use: a stage's process starts to answer before it has imported torch."""
    if name in ("Config", "load_config"):
        from dtp_dist import config

        return getattr(config, name)
    if name in ("Epoch", "Line", "Monitor", "Start"):
        from dtp_dist.monitor import base

        return getattr(base, name)
    if name in ("Trained", "resume", "train"):
        from dtp_dist.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
