"""Shared fixtures: where the real data is, and how a test asks for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from warm import WarmStage
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from dtp_dist.runtime.local import runtime as local_runtime

ROOT = Path(__file__).resolve().parent.parent


def find_data() -> Path | None:
    """Return the folder with MNIST in torchvision's layout, or None where it is absent."""
    for place in (os.environ.get("DTP_DIST_DATA"), ROOT.parent / "shared" / "data"):
        if place and (Path(place) / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
            return Path(place)
    return None


@pytest.fixture(scope="session")
def mnist_root() -> Path | None:
    return find_data()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and tests share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _signals_as_on_a_terminal() -> Iterator[None]:
    """What the tests start listens to signals, also where they themselves run under nohup or behind ``&``."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number, usual in {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}.items():
        if before[number] == signal.SIG_IGN:
            signal.signal(number, usual)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def warm_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stages of runs in this process start at once (warm.py), unless their program is another one."""
    usual, real = local_runtime.START, local_runtime.subprocess

    def start(command: Sequence[str], **options: Any) -> Any:
        return WarmStage(command, **options) if usual in command else real.Popen(command, **options)

    there = SimpleNamespace(**vars(real) | {"Popen": start})
    monkeypatch.setattr(local_runtime, "subprocess", there)


@pytest.fixture(autouse=True)
def _modules_of_a_test_end_with_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test wrote and imported is not there for the next one, which may write another of that name."""
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    made_here = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(made_here):
            del sys.modules[name]


class _WholeFiles(LoadFileScheduling):
    """Give each process whole files, and all of Ray's to one: they share a cluster and need the machine."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/ray" if file.startswith("tests/ray/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return _WholeFiles(config, log) if config.getoption("dist") == "loadfile" else None
