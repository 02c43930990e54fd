"""What the speed, memory and bits benchmarks share: runtimes that stay up between measurements."""

from __future__ import annotations

import platform
import time
from datetime import date, datetime
from pathlib import Path

import torch

from dtp_dist import load_config
from dtp_dist.config import Config
from dtp_dist.config.batches import ensured
from dtp_dist.profiling.costs import costs_of
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.base import Runtime
from dtp_dist.runtime.registry import start_runtime
from dtp_dist.runtime.segment import Segment
from dtp_dist.schedule import Phase

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "mnist_dtp_adam.yaml"


def config(data: str, *overrides: str, path: Path = CONFIG) -> Config:
    """Return mnist_dtp_adam.yaml, or another file, resolved, with overrides."""
    return resolve(load_config(path, [f"data.root={data}", *overrides]))


class Measured:
    """A runtime and the number of the next minibatch to train."""

    def __init__(self, settings: Config) -> None:
        self.config = settings
        self._per_epoch = ensured(settings).batches["train"].count
        self.runtime: Runtime = start_runtime(settings, lambda report: None)
        self.next = 0
        self.busy: list[float] = []

    def train(self, minibatches: int) -> float:
        """Train that many minibatches (they wrap around within epoch 0) and return seconds per minibatch."""
        offset = self.next % self._per_epoch
        minibatches = min(minibatches, self._per_epoch - offset)
        segment = Segment(Phase.BOTH, "train", 0, self.next, minibatches, offset)
        self.next += minibatches
        result = self.runtime.run(segment)
        self.busy = [stage.busy / result.seconds for stage in result.stages]
        return result.seconds / minibatches


def estimated_work(settings: Config) -> list[float]:
    """Return the estimated operations of each layer per minibatch, bottom first."""
    costs = costs_of(settings, (), measured=False)
    return [costs.total(range(layer, layer + 1), 1) for layer in range(costs.layers)]


def gemm_rate(seconds: float = 2.0, size: int = 1024) -> float:
    """Return this core's float32 matrix-product rate in GFLOP/s, the best of many products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.randn(size, size)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2 * size**3 / best / 1e9


def machine() -> str:
    """Return the machine in words, without its name."""
    model = "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = f"{len(names)} x {names[0]}" if names else model
    return f"{model}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def today() -> str:
    """Return the date, as results have it."""
    return date.today().isoformat()


def written_on(path: Path) -> str:
    """Return the date on which a file was last written: that of a run's result."""
    return datetime.fromtimestamp(path.stat().st_mtime).date().isoformat()
