"""What the tests of whole runs share: a small network, the command line as typed, a look at what is left."""

from __future__ import annotations

import importlib.abc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import yaml
from torch import nn
from warm import WarmProcess

from dtp_dist import load_config
from dtp_dist.config import Config
from dtp_dist.config.batches import load_batches
from dtp_dist.storage.checkpoint import Manifest, newest_checkpoint
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.run_dir import open_run_dir

MAX_POOL = {"pool": "max", "pool_kernel": 3, "pool_stride": 2, "pool_padding": 1}
BATCH_NORM_BEFORE = {"norm": "batch", "norm_affine": True, "norm_place": "before_activation"}
SMALL: dict[str, Any] = {
    "name": "small",
    "model": {
        "input": [64],
        "defaults": {"activation": "tanh", "inverse": {"activation": "tanh", "iterations": 1, "sigma": 0.36}},
        "layers": [
            {"kind": "dense", "units": 32, "repeat": 4},
            {"kind": "dense", "units": 10, "activation": "linear"},
        ],
    },
    "rule": {"name": "dtp"},
    "optimizer": {
        "forward": {"name": "adam", "lr": 1.0e-3},
        "inverse": {"name": "adam", "lr": 1.0e-3},
    },
    "train": {"epochs": 1},
    "data": {"name": "digits", "batch_size": 40},
    "monitor": {"every": 10},
}
"""Digits, 64-4x32-10: 1200 examples make 30 minibatches of 40 an epoch."""

LOCAL = ("parallel.runtime=local", "parallel.stages=2")
ENDLESS = ("train.epochs=100000", "train.checkpoint_every=50", "train.evaluate_every=0")
PATIENCE = 600.0
"""Seconds for what must happen but may be slow on a busy machine."""

EVERY_KIND: dict[str, Any] = {
    "input": [1, 8, 8],
    "defaults": {"inverse": {"iterations": 2, "sigma": 0.2}},
    "layers": [
        {"kind": "conv", "channels": 4, "kernel": 3, "padding": 1, "pool": "average"},
        {"kind": "local", "channels": 4, "kernel": 3, "padding": 1, "activation": "gelu"},
        {"kind": "dropout", "p": 0.1},
        {
            "kind": "residual",
            "defaults": {"kind": "conv", "kernel": 3, "padding": 1},
            "body": [
                {"channels": 5, **MAX_POOL},
                {
                    "kind": "residual",
                    "body": [{"kind": "dropout", "p": 0.1}, {"channels": 5, "norm": "batch"}],
                },
            ],
        },
        {"kind": "conv", "channels": 5, "kernel": 3, "padding": 1, **BATCH_NORM_BEFORE},
        {"kind": "layer_norm"},
        {"kind": "pool", "pool": "average", "kernel": 2, "stride": 1, "padding": 1},
        {"kind": "flatten"},
        {
            "kind": "dense",
            "units": 20,
            "input_transmission": "sign",
            "norm": "batch",
            "inverse": {"input_transmission": "sign"},
        },
        {"kind": "dense", "units": 16, "input_transmission": "sample", "activation": "sigmoid"},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ],
}


def without_contexts(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a network or a layer in which no inverse needs what F found."""
    found = {**deepcopy(dict(layer)), **({"pool": "average"} if layer.get("pool") == "max" else {})}
    needing = ("dropout", "layer_norm")
    for key in ("layers", "body"):
        if key in found:
            found[key] = [without_contexts(each) for each in found[key] if each.get("kind") not in needing]
    return found


class Absent(importlib.abc.MetaPathFinder):
    """Put first on ``sys.meta_path``: as if a package were not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def small(**sections: Any) -> dict[str, Any]:
    """Return a copy of SMALL with whole sections replaced."""
    return {**deepcopy(SMALL), **sections}


def small_config(*overrides: str) -> Config:
    return load_config(small(), overrides)


def write_config(folder: Path, raw: Mapping[str, Any] = SMALL, name: str = "small.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(dict(raw)))
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "dtp_dist", *map(str, arguments)]


def run_cli(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    cold: bool = False,
    preexec_fn: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; ``cold``, or with a ``preexec_fn``, in a Python of its own from the start."""
    env = {**os.environ, "COLUMNS": "300", **(env or {})}
    if not cold and preexec_fn is None:
        warm = WarmProcess([*map(str, arguments)], cwd, env)
        try:
            return subprocess.CompletedProcess(warm.args, warm.wait(PATIENCE), *warm.communicate())
        finally:
            warm.kill()
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=env,
        preexec_fn=preexec_fn,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a failed command said, which must be one line and no traceback."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return lines[0]


def newest(run_dir: Path) -> tuple[Path, Manifest]:
    """Return the newest checkpoint of the run in a folder."""
    return newest_checkpoint(run_dir, origin_of(open_run_dir(run_dir, allow_code=True)))


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, every one of which must be whole."""
    text = (run_dir / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def read_result(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return found


def wait_until(true: Callable[[], bool], seconds: float, what: Callable[[], str]) -> float:
    """Wait until ``true()`` and return the seconds it took; ``what()`` says in the end what is not true."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"{what()}: not within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - start


class LiveRun:
    """``dtp-dist train`` under way, with a temporary directory of its own, so that leftovers show.

    ``temporary`` must have a short path: the sockets' names have a limit of about a hundred bytes.
    ``cold``: in a Python of its own from the start.
    """

    def __init__(
        self,
        folder: Path,
        temporary: Path,
        *overrides: str,
        env: Mapping[str, str] | None = None,
        cold: bool = False,
    ) -> None:
        self.run_dir, self.temporary = folder / "run", temporary
        config = folder / "small.yaml"
        if not config.exists():
            write_config(folder)
        call = ("train", str(config), f"run_dir={self.run_dir}", *overrides)
        env = {**os.environ, "TMPDIR": str(temporary), **(env or {})}
        self.process: subprocess.Popen[str] | WarmProcess = (
            _cold(call, folder, env) if cold else WarmProcess(call, folder, env)
        )
        self.seen: set[psutil.Process] = set()

    def stages(self) -> list[psutil.Process]:
        """Return the processes under the run's own; they are remembered for ``wait_for_nothing_left``."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen |= set(found)
        return sorted(found, key=lambda each: each.create_time())

    def wait_for_stages(self, count: int) -> None:
        wait_until(
            lambda: self._alive() and len(self.stages()) == count, PATIENCE, lambda: f"{count} processes"
        )

    def wait_for_programs(self) -> None:
        """Wait until no process under the run's own is still the copy of it that a fork makes."""
        own = psutil.Process(self.process.pid).cmdline()
        wait_until(
            lambda: all(each.cmdline() != own for each in self.stages()), PATIENCE, lambda: "a program each"
        )

    def wait_for_event(self, name: str) -> dict[str, Any]:
        """Wait until the run has told of an event, and return its line."""
        wait_until(lambda: self._alive() and bool(self.events(name)), PATIENCE, lambda: f"event {name}")
        self.stages()
        return self.events(name)[0]

    def _alive(self) -> bool:
        assert self.process.poll() is None or self.process.communicate()[1] == ""
        return True

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of an event that the run has told so far."""
        try:
            text = (self.run_dir / "metrics.jsonl").read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        return [line for line in map(json.loads, whole.splitlines()) if line.get("event") == name]

    def wait_for_end(self, seconds: float = PATIENCE) -> tuple[int, str]:
        """Return the exit code and what was written on stderr."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def left(self) -> list[str]:
        """Return what is left of the run: living processes and socket directories."""
        alive = [str(each) for each in self.seen if each.is_running() and each.status() != "zombie"]
        return alive + [str(path) for path in self.temporary.glob("dtp-dist-*")]

    def wait_for_nothing_left(self) -> None:
        wait_until(lambda: not self.left(), PATIENCE, lambda: f"left over: {self.left()}")

    def close(self) -> None:
        for each in (*self.stages(), *self.seen):
            if each.is_running():
                each.kill()
        self.process.kill()
        self.process.communicate()


def _cold(call: Sequence[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*call),
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_ctrl_c,
    )


def _heed_ctrl_c() -> None:
    """Undo what a shell does to a background job, so that the run can be interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def error_of(network: nn.Module, config: Config) -> float:
    """Return a plain torch network's error on the test split, percent."""
    batches = load_batches(config)["test"]
    found = [batches.minibatch(0, index) for index in range(batches.count)]
    wrong = sum((network(x).argmax(1) != labels).sum().item() for x, labels in found)
    return 100 * wrong / sum(len(labels) for _, labels in found)
