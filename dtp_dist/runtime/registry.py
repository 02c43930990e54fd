"""The runtimes by name. Adding one is a file with its class and its line here."""

from __future__ import annotations

from collections.abc import Callable

from dtp_dist.config import Config
from dtp_dist.config.batches import load_batches
from dtp_dist.data import Given
from dtp_dist.runtime.base import OnReport, Runtime, Say
from dtp_dist.runtime.inprocess import InProcessRuntime
from dtp_dist.runtime.local.runtime import LocalRuntime


def _ray(config: Config, on_report: OnReport, generation: int, say: Say) -> Runtime:
    from dtp_dist.runtime.ray.runtime import RayRuntime  # the only runtime that needs ray

    return RayRuntime(config, on_report, generation, say)


RUNTIMES: dict[str, Callable[[Config, OnReport, int, Say], Runtime]] = {
    "inprocess": InProcessRuntime,
    "local": LocalRuntime,
    "ray": _ray,
}


def start_runtime(
    config: Config,
    on_report: OnReport,
    generation: int = 0,
    say: Say = lambda text: None,
    given: Given | None = None,
) -> Runtime:
    """Start the runtime that a resolved configuration names.

    ``generation`` counts the times that the run was started; messages of another one are refused.
    ``say`` takes what it waits for meanwhile. ``given`` are data that were handed over in Python, which stay
    in this process.

    Raises:
        StageError: a stage does not start.
        DataError: the data can't be read.
    """
    if given is not None:
        batches = load_batches(config, given=given)
        return InProcessRuntime(config, on_report, generation, say, batches=batches)
    return RUNTIMES[config.parallel.runtime](config, on_report, generation, say)
