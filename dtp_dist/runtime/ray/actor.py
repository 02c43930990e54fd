"""One stage as a Ray actor: a long call at a time, and a second concurrency group that answers meanwhile."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray

from dtp_dist import import_path
from dtp_dist.runtime.stage.handshake import Failure, Place, StageSetup
from dtp_dist.system.clock import AwakeClock
from dtp_dist.system.garbage import importing

if TYPE_CHECKING:
    from dtp_dist.runtime.stage.service import StageService

ORPHAN_SECONDS = 120.0
"""Seconds without a call of the driver's, which may have been stopped for a while.

Ray itself ends the actors of a driver that is gone, and those of a node that is cut off, much sooner.
"""


def make_socket_folder(place: Place | None) -> None:
    """Make the folder of ``place``, if it has one, for this user alone.

    Raises:
        PermissionError: it is somebody else's.
    """
    if place is not None and place.folder:
        folder = Path(place.folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else")


def remove_socket_folder(place: Place | None) -> None:
    """Remove the folder of ``place``, if it has one."""
    if place is not None and place.folder:
        shutil.rmtree(place.folder, ignore_errors=True)


class Whereabouts(NamedTuple):
    """Where a stage runs: its process id, its node's id in Ray, and the node's address and host name."""

    pid: int
    node: str
    ip: str
    host: str


class RayStage:
    """The actor's class; tensors never pass through its methods."""

    def __init__(self, setup: StageSetup, name: str, path: list[str]) -> None:
        """Take what the stage needs to know; torch is imported in ``build``, in the thread that computes."""
        import_path.take(path)
        self._setup, self._name = setup, name
        self._service: StageService | None = None
        self._said: deque[tuple[str, Any]] = deque()
        self._has_said = threading.Event()
        self._pulses = 0
        threading.Thread(target=self._watch_driver, name="orphan watch", daemon=True).start()

    def __repr__(self) -> str:
        """Return the name, which Ray writes into the head of the process's log files."""
        return self._name

    def _watch_driver(self) -> None:
        """End this process when the driver has not asked for a sign of life for long, or for its start."""
        clock, pulses = AwakeClock(longest=5.0), 0
        limit = max(ORPHAN_SECONDS, self._setup.config["parallel"]["start_timeout"])
        since = clock()
        while clock() - since < limit:
            time.sleep(1.0)
            if self._pulses != pulses:
                since, pulses, limit = clock(), self._pulses, ORPHAN_SECONDS
        remove_socket_folder(self._setup.place)
        os._exit(1)

    def ask(self, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        """Return ("reply", value) of one of the service's methods, or ("failed", Failure)."""
        try:
            if method == "build":
                with importing():
                    from dtp_dist.runtime.stage.service import StageService

                self._service = StageService(self._setup, self._keep)
                return "reply", None
            if method == "bind":
                make_socket_folder(self._setup.place)  # as late as can be: ``clean`` follows at once
            return "reply", getattr(self._service, method)(*arguments)
        except BaseException as error:
            index = self._setup.index
            where = self._service.where() if self._service is not None else f"stage {index}, starting"
            return "failed", Failure(type(error).__name__, str(error), traceback.format_exc(), where)

    def _keep(self, kind: str, value: Any) -> None:
        self._said.append((kind, value))
        self._has_said.set()

    @ray.method(concurrency_group="control")
    def pulse(self, seconds: float) -> tuple[Any, list[tuple[str, Any]]]:
        """Return (status, what the stage has said since the last pulse), when it says something or in time.

        A sign of life, each ``seconds`` at the latest. What it says is small: files come by ``fetch``.
        """
        self._pulses += 1
        self._has_said.wait(seconds)
        self._has_said.clear()
        said = []
        while self._said:
            said.append(self._said.popleft())
        return (self._service.status() if self._service is not None else None), said

    @ray.method(concurrency_group="bulk")
    def fetch(self, name: str) -> bytes:
        """Return the bytes of a checkpoint's file, however long they take to the driver."""
        assert self._service is not None
        return self._service.fetch(name)

    @ray.method(concurrency_group="control")
    def whereabouts(self) -> Whereabouts:
        """Return the process and its node."""
        address: Callable[[], str] = ray.util.get_node_ip_address
        node = ray.get_runtime_context().get_node_id()
        return Whereabouts(os.getpid(), node, address(), socket.gethostname())

    @ray.method(concurrency_group="control")
    def prepare(self, place: Place) -> None:
        """Take the place in which to bind, once all stages' nodes are known."""
        self._setup = replace(self._setup, place=place)

    @ray.method(concurrency_group="control")
    def clean(self) -> None:
        """Remove the folder of the sockets, which need no names once they are connected."""
        remove_socket_folder(self._setup.place)
