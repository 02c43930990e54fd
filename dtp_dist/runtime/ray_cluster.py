"""Where Ray's stages are placed: connecting to a cluster or starting a private one, and waiting for room."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from dtp_dist.config import Config
from dtp_dist.errors import ConfigError, StageError
from dtp_dist.runtime import ray_reaper
from dtp_dist.runtime.layout import Layout

OBJECT_STORE_BYTES = 80 * 1024 * 1024
ADDRESS = "RAY_ADDRESS"
AVOID_SECONDS = 5.0


def connect(cpus: int) -> None:
    """Connect to ``RAY_ADDRESS``, or start a private Ray on this machine; does nothing the second time.

    Args:
        cpus: what a private Ray is to have at least.

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
    _hush()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            quiet |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            cpus = max(os.cpu_count() or 1, cpus)
            with _reaped():
                ray.init(address="local", num_cpus=cpus, **quiet)  # not another Ray of this machine
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {address}" if address else "a private Ray"
        text = str(error).strip().splitlines()[0]
        raise StageError(f"{where} can't be reached: {text}; check {ADDRESS}, or unset it") from error


def _hush() -> None:
    """Keep off the terminal what Ray prints of lost workers and nodes, tens of lines each.

    The run tells a loss in one line, Ray's logs have the rest, and Ray has no setting for it.
    """
    worker: Any = ray._private.worker
    worker.listen_error_messages = lambda worker, threads_stopped: None


@contextmanager
def _reaped() -> Iterator[None]:
    """Mark all processes that are started meanwhile, and start the one that ends them after this one."""
    mark, parent = secrets.token_hex(8), str(os.getpid())
    subprocess.Popen(
        [sys.executable, "-I", ray_reaper.__file__, mark, parent],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    marked = {ray_reaper.MARK: mark, "SPT_NOENV": "1"}  # or Ray's agents write their names over the mark
    before = {name: os.environ.get(name) for name in marked}
    os.environ.update(marked)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def bundle(config: Config) -> dict[str, float]:
    """Return what one stage asks of the cluster: a whole GPU where there are any, else its threads' CPUs."""
    if config.parallel.device != "cpu" and _resources().get("GPU", 0.0):
        return {"GPU": 1.0, "CPU": 1.0}
    return {"CPU": float(config.parallel.threads)}


def reserve(config: Config, layout: Layout, avoid: Set[str] = frozenset()) -> PlacementGroup:
    """Return a placement group with a bundle for every stage.

    Args:
        avoid: ids of nodes that may be cut off, which Ray may find out only after a minute and wait for
            meanwhile; they are taken only where there is no room at once without them.

    Raises:
        StageError: there is no room for it within ``parallel.placement_timeout``; says what was asked and
            what there is.
    """
    need, limit, stages = bundle(config), config.parallel.placement_timeout, layout.stages
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    tries: list[tuple[list[dict[str, str]] | None, float]] = [(None, limit)]
    if avoid and {node["NodeID"] for node in nodes() if node["Alive"]} - avoid:
        others = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        first = min(AVOID_SECONDS, limit / 2)
        tries = [([others] * stages, first), (None, limit - first)]
    for selector, seconds in tries:
        strategy = config.parallel.placement.upper()
        group: PlacementGroup = placement_group([need] * stages, strategy, bundle_label_selector=selector)
        if group.wait(seconds):
            return group
        remove_placement_group(group)
    asked = ", ".join(f"{count:g} {name}" for name, count in need.items())
    total, free = _resources(), _resources(free=True)
    there = ", ".join(f"{total.get(name, 0):g} {name}, {free.get(name, 0):g} of it free" for name in need)
    text = f"{stages} stages of {asked} each were not placed within {limit:g} s (parallel.placement_timeout)"
    raise StageError(f"{text}; the cluster has {there}; use fewer stages or wait")


def _resources(*, free: bool = False) -> dict[str, float]:
    """Return what the cluster has of each resource, or what is free of it."""
    ask: Callable[[], dict[str, float]] = ray.available_resources if free else ray.cluster_resources
    return ask()


def release(group: PlacementGroup) -> None:
    """Give the bundles back."""
    if ray.is_initialized():
        remove_placement_group(group)
