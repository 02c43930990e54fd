"""The runtimes by name. Adding one is a file with its class and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dtp_dist.config import Config
from dtp_dist.data import Batches
from dtp_dist.runtime.base import OnReport, Runtime
from dtp_dist.runtime.inprocess import InProcessRuntime
from dtp_dist.runtime.local import LocalRuntime


def _ray(config: Config, batches: Mapping[str, Batches], on_report: OnReport, generation: int) -> Runtime:
    from dtp_dist.runtime.ray_runtime import RayRuntime  # the only runtime that needs ray

    return RayRuntime(config, batches, on_report, generation)


RUNTIMES: dict[str, Callable[[Config, Mapping[str, Batches], OnReport, int], Runtime]] = {
    "inprocess": InProcessRuntime,
    "local": LocalRuntime,
    "ray": _ray,
}


def start_runtime(
    config: Config, batches: Mapping[str, Batches], on_report: OnReport, generation: int = 0
) -> Runtime:
    """Start the runtime that a resolved configuration names.

    ``generation`` counts the times that the run was started; messages of another one are refused.

    Raises:
        StageError: a stage does not start.
    """
    return RUNTIMES[config.parallel.runtime](config, batches, on_report, generation)
