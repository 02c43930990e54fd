"""Where Ray's stages are placed: connecting to a cluster or starting a private one, and waiting for room."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dtp_dist.config import Config
from dtp_dist.errors import ConfigError, StageError
from dtp_dist.runtime.layout import Layout

OBJECT_STORE_BYTES = 80 * 1024 * 1024
ADDRESS = "RAY_ADDRESS"


def connect(config: Config, layout: Layout) -> None:
    """Connect to ``RAY_ADDRESS``, or start a private Ray on this machine; does nothing the second time.

    Raises:
        ConfigError: the address is a Ray Client's.
        StageError: the cluster can't be reached.
    """
    if ray.is_initialized():
        return
    address = os.environ.get(ADDRESS, "")
    if address.startswith("ray://"):
        text = (
            "is a Ray Client address, whose driver is not on the cluster; submit the run with ray job submit"
        )
        raise ConfigError(f"{ADDRESS}={address}: {text}")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            cpus = max(os.cpu_count() or 1, layout.stages * config.parallel.threads)
            store = OBJECT_STORE_BYTES
            ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=store, **quiet)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {address}" if address else "a private Ray"
        text = str(error).strip().splitlines()[0]
        raise StageError(f"{where} can't be reached: {text}; check {ADDRESS}, or unset it") from error


def bundle(config: Config) -> dict[str, float]:
    """Return what one stage asks of the cluster: a whole GPU where there are any, else its threads' CPUs."""
    if config.parallel.device != "cpu" and _resources().get("GPU", 0.0):
        return {"GPU": 1.0, "CPU": 1.0}
    return {"CPU": float(config.parallel.threads)}


def reserve(config: Config, layout: Layout) -> PlacementGroup:
    """Return a placement group with a bundle for every stage.

    Raises:
        StageError: there is no room for it within ``parallel.placement_timeout``; says what was asked and
            what there is.
    """
    need = bundle(config)
    group: PlacementGroup = placement_group(
        [need] * layout.stages, strategy=config.parallel.placement.upper()
    )
    limit = config.parallel.placement_timeout
    if not group.wait(limit):
        remove_placement_group(group)
        asked = ", ".join(f"{count:g} {name}" for name, count in need.items())
        total, free = _resources(), _resources(free=True)
        there = ", ".join(f"{total.get(name, 0):g} {name}, {free.get(name, 0):g} of it free" for name in need)
        text = f"{layout.stages} stages of {asked} each were not placed within {limit:g} s"
        raise StageError(
            f"{text} (parallel.placement_timeout); the cluster has {there}; use fewer stages or wait"
        )
    return group


def _resources(*, free: bool = False) -> dict[str, float]:
    """Return what the cluster has of each resource, or what is free of it."""
    ask: Callable[[], dict[str, float]] = ray.available_resources if free else ray.cluster_resources
    return ask()


def release(group: PlacementGroup) -> None:
    """Give the bundles back."""
    if ray.is_initialized():
        remove_placement_group(group)


def kill_process(pid: int, node: str) -> None:
    """Kill a process on its node, frozen or not; a node that is gone has taken it along."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    killer = ray.remote(num_cpus=0, max_retries=0)(_kill).options(scheduling_strategy=strategy)
    try:
        ray.get(killer.remote(pid), timeout=5.0)
    except RayError:
        return


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
