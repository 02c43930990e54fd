"""All stages in one thread, taking turns: the reference that every other runtime must equal bit for bit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch

from dtp_dist.checkpoint import read_layer, write_layer
from dtp_dist.config import Config
from dtp_dist.data import Batches
from dtp_dist.errors import DtpDistError, LinkError, NonFiniteError, StageError
from dtp_dist.messages import LinkIdentity, MessageKind
from dtp_dist.runtime.base import OnReport, OnSaved, Runtime
from dtp_dist.runtime.executor import Executor, Links
from dtp_dist.runtime.faults import faults_from_environment
from dtp_dist.runtime.layout import layout_of
from dtp_dist.runtime.segment import Segment, SegmentResult, Span
from dtp_dist.runtime.worker import StageWorker, set_threads
from dtp_dist.transport import inprocess_pair


class InProcessRuntime(Runtime):
    """Every stage steps when its next message is there."""

    def __init__(
        self, config: Config, batches: Mapping[str, Batches], on_report: OnReport, generation: int = 0
    ) -> None:
        self.layout = layout_of(config)
        self._threads = torch.get_num_threads()
        set_threads(config)
        fault = faults_from_environment(generation)
        self._workers = [
            StageWorker(config, stage, batches if stage == 0 else None, on_report, fault)
            for stage in range(self.layout.stages)
        ]
        link_up([worker.links for worker in self._workers], self.layout.partition)

    def run(self, segment: Segment) -> SegmentResult:
        start = time.perf_counter()
        executors = [worker.begin(segment) for worker in self._workers]
        while not all(executor.finished for executor in executors):
            turns = [self._turn(worker, each) for worker, each in zip(self._workers, executors, strict=True)]
            if not any(turns):
                places = "; ".join(worker.where() for worker in self._workers)
                raise LinkError(f"every stage waits for another: {places}")
        summaries = [worker.finish() for worker in self._workers]
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
        states = [item for worker in self._workers for item in worker.states().items()]
        done([write_layer(directory, index, state) for index, state in states])

    def flush(self) -> None:
        """Nothing is ever left to do."""

    def load(self, directory: Path) -> None:
        for stage, worker in enumerate(self._workers):
            worker.load({index: read_layer(directory, index) for index in self.layout.layers(stage)})

    def spans(self) -> list[list[Span]]:
        return [worker.spans() for worker in self._workers]

    def close(self) -> None:
        for worker in self._workers:
            worker.links.close()
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
