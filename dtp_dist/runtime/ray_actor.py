"""One stage as a Ray actor: a long call at a time, and a second concurrency group that answers meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from dtp_dist.runtime.setup import Failure, StageSetup

if TYPE_CHECKING:
    from dtp_dist.runtime.service import StageService

ORPHAN_SECONDS = 20.0


def socket_folder(endpoint: str) -> Path | None:
    """Return the folder of the socket files of ``shm://FOLDER`` or ``ipc://FOLDER``, None for TCP."""
    scheme, _, place = endpoint.partition("://")
    return Path(place) if scheme in ("shm", "ipc") else None


def make_socket_folder(endpoint: str) -> None:
    """Make the folder of ``endpoint``, if it has one, for this user alone.

    Raises:
        PermissionError: it is somebody else's.
    """
    folder = socket_folder(endpoint)
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else")


def remove_socket_folder(endpoint: str) -> None:
    """Remove the folder of ``endpoint``, if it has one."""
    folder = socket_folder(endpoint)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class RayStage:
    """The actor's class; tensors never pass through its methods."""

    def __init__(self, setup: StageSetup, name: str, path: list[str]) -> None:
        """Take what the stage needs to know; torch is imported in ``build``, in the thread that computes."""
        sys.path[:] = [*sys.path, *(entry for entry in path if entry not in sys.path)]
        self._setup, self._name = setup, name
        self._service: StageService | None = None
        self._said: deque[tuple[str, Any]] = deque()
        self._has_said = threading.Event()
        self._heard = time.monotonic()
        threading.Thread(target=self._watch_driver, name="orphan watch", daemon=True).start()

    def __repr__(self) -> str:
        """Return the name, which Ray writes into the head of the process's log files."""
        return self._name

    def _watch_driver(self) -> None:
        """End this process when the driver has not asked for a sign of life for a while."""
        while time.monotonic() - self._heard < ORPHAN_SECONDS:
            time.sleep(1.0)
        remove_socket_folder(self._setup.endpoint)
        os._exit(1)

    def ask(self, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        """Return ("reply", value) of one of the service's methods, or ("failed", Failure)."""
        try:
            if method == "build":
                from dtp_dist.runtime.service import StageService

                self._service = StageService(self._setup, self._keep)
                return "reply", None
            if method == "bind":
                make_socket_folder(self._setup.endpoint)  # as late as can be: ``clean`` follows at once
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

        A sign of life, each ``seconds`` at the latest.
        """
        self._heard = time.monotonic()
        self._has_said.wait(seconds)
        self._has_said.clear()
        said = []
        while self._said:
            said.append(self._said.popleft())
        return (self._service.status() if self._service is not None else None), said

    @ray.method(concurrency_group="control")
    def whereabouts(self) -> tuple[int, str, str]:
        """Return process id, node id and the node's address."""
        address: Callable[[], str] = ray.util.get_node_ip_address
        return os.getpid(), ray.get_runtime_context().get_node_id(), address()

    @ray.method(concurrency_group="control")
    def prepare(self, endpoint: str) -> None:
        """Take the endpoint under which to bind, once all stages' nodes are known."""
        setup = self._setup
        self._setup = StageSetup(setup.config, setup.index, setup.run_id, setup.generation, endpoint)

    @ray.method(concurrency_group="control")
    def clean(self) -> None:
        """Remove the folder of the sockets, which need no names once they are connected."""
        remove_socket_folder(self._setup.endpoint)
