"""All stages in one thread, taking turns: the reference that every other runtime must equal bit for bit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch

from dtp_dist.config import Config
from dtp_dist.config.batches import load_batches
from dtp_dist.data import Batches, Examples
from dtp_dist.errors import DtpDistError, LinkError, NonFiniteError, StageError
from dtp_dist.runtime.base import OnReport, OnSaved, Runtime, Say
from dtp_dist.runtime.devices import device_name
from dtp_dist.runtime.layout import layout_of
from dtp_dist.runtime.segment import Segment, SegmentResult
from dtp_dist.runtime.stage.executor import Executor, Links
from dtp_dist.runtime.stage.faults import faults_from_environment
from dtp_dist.runtime.stage.worker import StageWorker, set_threads
from dtp_dist.schedule import Span
from dtp_dist.storage.checkpoint import read_layer, write_layer
from dtp_dist.system import interruption
from dtp_dist.transport.inprocess import inprocess_pair
from dtp_dist.transport.messages import LinkIdentity, MessageKind


class InProcessRuntime(Runtime):
    """Every stage steps when its next message is there."""

    def __init__(
        self,
        config: Config,
        on_report: OnReport,
        generation: int = 0,
        say: Say = lambda text: None,
        *,
        batches: Mapping[str, Batches] | None = None,
    ) -> None:
        """Build the stages; ``batches``: made-up or given ones in place of the configuration's data."""
        del say  # nothing is waited for
        if batches is None:
            batches = load_batches(config)
        self.layout = layout_of(config)
        self._threads = torch.get_num_threads()
        set_threads(config)
        fault = faults_from_environment(generation)
        self.workers = [
            StageWorker(config, stage, batches if stage == 0 else None, on_report, fault)
            for stage in range(self.layout.stages)
        ]
        link_up([worker.links for worker in self.workers], self.layout.partition)

    def run(self, segment: Segment) -> SegmentResult:
        start = time.perf_counter()
        executors = [worker.begin(segment) for worker in self.workers]
        while not all(executor.finished for executor in executors):
            interruption.check()
            turns = [self._turn(worker, each) for worker, each in zip(self.workers, executors, strict=True)]
            if not any(turns):
                places = "; ".join(worker.where() for worker in self.workers)
                raise LinkError(f"every stage waits for another: {places}")
        summaries = [worker.finish() for worker in self.workers]
        return SegmentResult(time.perf_counter() - start, summaries)

    def _turn(self, worker: StageWorker, executor: Executor) -> bool:
        """Run the stage's next action if its message is there; returns whether it did."""
        if not executor.ready():
            return False
        try:
            executor.step()
        except NonFiniteError as error:
            raise worker.locate(error) from error
        except DtpDistError:
            raise
        except Exception as error:
            raise StageError(f"{worker.where()}: {type(error).__name__}: {error}") from error
        return True

    def save(self, directory: Path, done: OnSaved) -> None:
        states = [item for worker in self.workers for item in worker.states().items()]
        done([write_layer(directory, index, state) for index, state in states])

    def flush(self) -> None:
        """Nothing is ever left to do."""

    def load(self, directory: Path) -> None:
        for stage, worker in enumerate(self.workers):
            worker.load({index: read_layer(directory, index) for index in self.layout.layers(stage)})

    def spans(self) -> list[list[Span]]:
        return [worker.spans() for worker in self.workers]

    def examples(self, split: str, count: int) -> Examples:
        return self.workers[0].examples(split, count)

    def devices(self) -> list[str]:
        return [device_name(worker.device) for worker in self.workers]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        torch.set_num_threads(self._threads)


def link_up(stages: list[Links], partition: tuple[int, ...]) -> None:
    """Connect neighbouring stages in one thread."""
    layer = 0
    for stage, (below, above) in enumerate(pairwise(stages)):
        layer += partition[stage]
        up = LinkIdentity(bytes(16), 0, MessageKind.ACTIVATION, stage, layer)
        down = LinkIdentity(bytes(16), 0, MessageKind.TARGET, stage + 1, layer)
        below.activation_out, above.activation_in = inprocess_pair(up)
        above.target_out, below.target_in = inprocess_pair(down)
