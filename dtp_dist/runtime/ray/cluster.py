"""Where Ray's stages are placed: connecting to a cluster or starting a private one, and waiting for room."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TextIO

import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from dtp_dist.config import Config
from dtp_dist.errors import StageError, StartError
from dtp_dist.import_path import package_root
from dtp_dist.runtime.base import Say
from dtp_dist.runtime.ray import reaper
from dtp_dist.runtime.ray.address import ADDRESS, checked_address
from dtp_dist.system import interruption
from dtp_dist.system.short_paths import ray_folder
from dtp_dist.text.numbers import short

OBJECT_STORE_BYTES = 80 * 1024 * 1024
AVOID_SECONDS = 5.0
ERROR_LENGTH = 300
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

_TOKEN = secrets.token_hex(32)
_CONNECTING = threading.Lock()


class _Job(JobConfig):
    """Keeps the driver's working directory off the head of the workers' path, where Ray puts it.

    It leaves it out of jobs that bring a working directory. A stage's own path comes with its setup.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def connect(cpus: int, say: Say = lambda text: None) -> None:
    """Connect to ``RAY_ADDRESS``, or start a private Ray on this machine; does nothing the second time.

    Args:
        cpus: what a private Ray is to have at least.
        say: takes in words what is waited for.

    Raises:
        ConfigError: the address is not a cluster's.
        StageError: the cluster can't be reached, or a private Ray does not start.
    """
    with _CONNECTING:
        if ray.is_initialized():
            return
        address = checked_address()
        say(f"connecting to the Ray cluster at {address}" if address else "starting a private Ray")
        _hush()
        with _signals_kept():
            if address is None:
                _start_private(max(os.cpu_count() or 1, cpus))
            else:
                _join(address)
        interruption.check()


def _join(address: str) -> None:
    """Connect to a cluster."""
    advice = f"correct it or the token ({TOKENS[0]}), or unset it for a Ray of this run's own"
    with (
        tempfile.TemporaryFile("w+", errors="replace") as said,
        _in_one_line(f"{ADDRESS}={address}: the cluster can't be joined", advice, said),
        _aside(said),
    ):
        ray.init(address=address, **_quiet())


@contextmanager
def _aside(file: TextIO) -> Iterator[None]:
    """Let what is written on stderr go to a file: Ray's core writes a line at each try, whatever is set."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _start_private(cpus: int) -> None:
    """Start a Ray that nobody else can use: it asks for a token that this process and its children have."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not any(os.environ.get(name) for name in TOKENS):
        os.environ[TOKENS[0]] = _TOKEN  # else Ray makes one and keeps it in a file in the home directory
    folder = ray_folder()
    logs = os.path.join(folder or os.path.join(tempfile.gettempdir(), "ray"), "session_latest", "logs")
    start = partial(
        ray.init,
        address="local",  # not another Ray of this machine
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=folder,
        **_quiet(),
    )
    with _reaped(), _in_one_line("a Ray of this run's own can't be started", f"its logs are in {logs}"):
        _call_in_a_lasting_thread(start)


def _call_in_a_lasting_thread(start: Callable[[], Any]) -> None:
    """Call it in the main thread, or else in one that stays until the process ends.

    The kernel kills the processes of a Ray as soon as the thread that started them ends (PR_SET_PDEATHSIG),
    though a run in another thread may still be using it.
    """
    if threading.current_thread() is threading.main_thread():
        start()
        return
    done: Future[Any] = Future()

    def stay() -> None:
        try:
            done.set_result(start())
        except Exception as error:
            done.set_exception(error)
        else:
            threading.Event().wait()

    threading.Thread(target=stay, name="private Ray", daemon=True).start()
    done.result()


def _quiet() -> dict[str, Any]:
    """Return what both ways to connect have in common."""
    job = _Job(_py_driver_sys_path=package_root())
    return {"job_config": job, "log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def _in_one_line(what: str, advice: str, said: TextIO | None = None) -> Iterator[None]:
    """Turn what Ray raises, which may run to a page, into one line; ``said`` may know why."""
    try:
        yield
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split()).partition(". ")[0][:ERROR_LENGTH].rstrip(".")
        if said is not None:
            said.seek(0)
            reasons = [line.partition("RPC error: ")[2] for line in said if "RPC error: " in line]
            text += f" ({reasons[-1].strip()})" if reasons else ""
        raise StageError(f"{what}: {text}; {advice}") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, if there is one: Ray's would end this process without a word of ours.

    Ray sets it in Python at the beginning, which is prevented, and natively at the end, which is undone.
    """
    here = threading.current_thread() is threading.main_thread()
    mine = signal.getsignal(signal.SIGTERM)
    if mine in (None, signal.SIG_DFL) or not here:
        yield
        return
    utils: Any = ray._private.utils
    theirs, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = theirs
        signal.signal(signal.SIGTERM, mine)


def _hush() -> None:
    """Keep off the terminal what Ray prints of lost workers and nodes, tens of lines each.

    The run reports a loss in one line, Ray's logs have the rest, and Ray has no setting for it.
    """
    worker: Any = ray._private.worker
    worker.listen_error_messages = lambda worker, threads_stopped: None


@contextmanager
def _reaped() -> Iterator[None]:
    """Mark all processes that are started meanwhile, and start the one that ends them after this one."""
    mark, parent = secrets.token_hex(8), str(os.getpid())
    subprocess.Popen(
        [sys.executable, "-I", reaper.__file__, mark, parent],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    marked = {reaper.MARK: mark, "SPT_NOENV": "1"}  # or Ray's agents write their names over the mark
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


def has_gpus() -> bool:
    """Return whether a living node of the cluster has a GPU."""
    return any(node["Resources"].get("GPU", 0.0) >= 1.0 for node in _nodes())


def bundle(config: Config) -> dict[str, float]:
    """Return what one stage of a settled configuration asks of the cluster: a GPU, or its threads' CPUs."""
    if config.parallel.device == "cuda":
        return {"GPU": 1.0, "CPU": 1.0}
    return {"CPU": float(config.parallel.threads)}


def room(need: Mapping[str, float]) -> int:
    """Return how many such bundles the nodes of the cluster hold when nothing else is on them."""
    found = [node["Resources"] for node in _nodes()]
    return sum(min(int(there.get(name, 0.0) // count) for name, count in need.items()) for there in found)


def _nodes() -> list[dict[str, Any]]:
    """Return what Ray knows of every living node."""
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def reserve(
    config: Config, need: Mapping[str, float], stages: int, avoid: Set[str] = frozenset()
) -> PlacementGroup:
    """Return a placement group with a bundle for every stage.

    Args:
        need: what a bundle holds.
        avoid: ids of nodes that may be cut off, which Ray may find out only after a minute and wait for
            meanwhile; they are taken only where there is no room at once without them.

    Raises:
        StartError: there is no room for it within ``parallel.placement_timeout``; says what was asked and
            what there is.
    """
    limit = config.parallel.placement_timeout
    tries: list[tuple[list[dict[str, str]] | None, float]] = [(None, limit)]
    if avoid and {node["NodeID"] for node in _nodes()} - avoid:
        others = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        first = min(AVOID_SECONDS, limit / 2)
        tries = [([others] * stages, first), (None, limit - first)]
    for selector, seconds in tries:
        strategy = config.parallel.placement.upper()
        group: PlacementGroup = placement_group(
            [dict(need)] * stages, strategy, bundle_label_selector=selector
        )
        if group.wait(seconds):
            return group
        remove_placement_group(group)
    asked = ", ".join(f"{short(count)} {name}" for name, count in need.items())
    total, free = _resources(), _resources(free=True)
    there = ", ".join(
        f"{short(total.get(name, 0))} {name}, {short(free.get(name, 0))} of it free" for name in need
    )
    late = f"not placed within {short(limit)} s (parallel.placement_timeout)"
    raise StartError(
        f"{stages} stages of {asked} each were {late}; the cluster has {there}; use fewer stages or wait"
    )


def _resources(*, free: bool = False) -> dict[str, float]:
    """Return what the cluster has of each resource, or what is free of it."""
    ask: Callable[[], dict[str, float]] = ray.available_resources if free else ray.cluster_resources
    return ask()


def release(group: PlacementGroup) -> None:
    """Give the bundles back."""
    if ray.is_initialized():
        remove_placement_group(group)
