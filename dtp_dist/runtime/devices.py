"""Which devices the stages of a run get: those of this machine, or with ``runtime: ray`` the cluster's."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import torch

from dtp_dist.config import Config
from dtp_dist.errors import ConfigError, StageError

INSTALL = "pip install -e '.[ray]' in a checkout of dtp_dist"


def settled(config: Config) -> Config:
    """Return the configuration with which a run's stages are started, however often.

    With ``runtime: ray``, ``device: auto`` becomes ``cuda`` if the cluster has GPUs, else ``cpu``: it is
    asked once, so that a node that comes or goes later changes no run. Elsewhere nothing changes.

    Raises:
        ConfigError: a GPU is asked of a cluster that has none, or Ray is not installed.
        StageError: the cluster can't be reached.
    """
    parallel = config.parallel
    if parallel.runtime != "ray":
        return config
    cluster = cluster_of(config)
    if parallel.device == "cpu":
        return config
    found = "cuda" if cluster.has_gpus() else "cpu"
    if parallel.device == "cuda" and found == "cpu":
        text = "the Ray cluster has no GPU; write auto or cpu, or start a node with one"
        raise ConfigError(f"parallel.device: cuda is not available: {text}")
    return replace(config, parallel=replace(parallel, device=found))


def check_here(config: Config) -> None:
    """Check that this machine has the device that its stages are to use.

    Raises:
        ConfigError: it has no CUDA device, and one is asked for.
    """
    parallel = config.parallel
    if parallel.runtime != "ray" and parallel.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("parallel.device: cuda is not available here; write auto or cpu")


def device_of(config: Config, stage: int) -> torch.device:
    """Return the device of a stage: ``cuda:(stage mod devices)``, or the CPU.

    Raises:
        StageError: there is to be a GPU, and torch can't use it.
    """
    asked = config.parallel.device
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda", stage % max(1, torch.cuda.device_count()))
    try:
        torch.zeros(1, device=device).add_(1).item()  # a driver or a GPU that is too old shows here
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        advice = "install a driver and a torch that fit the GPU, or write parallel.device=cpu"
        raise StageError(f"torch can't use its GPU, {device} ({reason}); {advice}") from None
    return device


def device_name(device: torch.device) -> str:
    """Return e.g. "cuda:0 (NVIDIA L4)", or "cpu"."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def cluster_of(config: Config) -> ModuleType:
    """Return the module that knows the Ray cluster, connected to it.

    Raises:
        ConfigError: Ray is not installed.
        StageError: the cluster can't be reached.
    """
    try:
        from dtp_dist.runtime.ray import cluster  # the only runtime that needs ray
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"parallel.runtime: ray needs Ray: {INSTALL} ({text})") from None
    parallel = config.parallel
    asked = len(parallel.partition) if parallel.partition else parallel.stages
    cluster.connect(0 if asked == "auto" else asked * parallel.threads)
    return cluster
