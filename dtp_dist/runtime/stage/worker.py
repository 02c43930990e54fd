"""One stage of a run, wherever it lives: its layers, its data if it is the first, its segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dtp_dist.algorithm.build import build_layer
from dtp_dist.algorithm.meter import Meter
from dtp_dist.algorithm.rules import OneWaveRule
from dtp_dist.algorithm.stages.stage import Stage
from dtp_dist.algorithm.state import Tensors, layer_state, load_layer_state
from dtp_dist.config import Config, shapes_of
from dtp_dist.data import Batches, Examples
from dtp_dist.data.loaders import read_ahead
from dtp_dist.errors import NonFiniteError, StorageError
from dtp_dist.runtime.devices import device_of
from dtp_dist.runtime.layout import DTYPES, layout_of
from dtp_dist.runtime.segment import Report, Segment, StageSummary
from dtp_dist.runtime.stage.executor import Executor, Links, Source
from dtp_dist.runtime.stage.faults import Inject
from dtp_dist.runtime.stage.link_encoding import LinkEncoding, probes_from
from dtp_dist.runtime.stage.timeline import NOTHING, Timeline, in_words
from dtp_dist.runtime.stage.virtual import VirtualStage
from dtp_dist.schedule import ACTIONS, Action, Activity, Phase, Span
from dtp_dist.system.process import resident_bytes

MEGA = 1e6


class StageWorker:
    """Stage ``index`` of the run that ``config`` (resolved) describes.

    Args:
        batches: the minibatches by split; the first stage's alone.
        report: called with every report, each ``monitor.every`` minibatches.
    """

    def __init__(
        self,
        config: Config,
        index: int,
        batches: Mapping[str, Batches] | None,
        report: Callable[[Report], None],
        inject: Inject | None = None,
    ) -> None:
        self.config, self.index, self.layout = config, index, layout_of(config)
        self.links = Links()
        self.timeline = Timeline(config.monitor.trace_minibatches)
        self.device = device_of(config, index)
        self._batches, self._report, self._faults = batches, report, inject
        loaders, gpu = config.data.loaders, self.device.type == "cuda"
        self._ahead = None if not batches else read_ahead(batches, loaders, pinned=gpu)
        self._dtype = DTYPES[config.train.dtype]
        virtual = config.parallel.virtual
        self.stage: Stage | VirtualStage = self._virtual_stage() if virtual else self._build_stage()
        self._segment: Segment | None = None
        self._executor: Executor | None = None

    def _build_stage(self) -> Stage:
        config = self.config
        shapes = shapes_of(config)
        rule = config.build_rule()
        layers = [
            build_layer(
                config.model.options[number - 1],
                number,
                shapes,
                rule,
                config.optimizer.pair,
                seed=config.seed,
                delay=self.layout.delay(self.index),
                device=self.device,
            )
            for number in self.layout.layers(self.index)
        ]
        remedies = config.optimizer.at_depth(self.layout.in_flight)
        return Stage(layers, rule, config.build_loss(), seed=config.seed, remedies=remedies)

    def _virtual_stage(self) -> VirtualStage:
        config = self.config
        layers, rule = self.layout.layers(self.index), config.build_rule()
        return VirtualStage(
            layers,
            shapes_of(config),
            config.parallel.action_costs(self.index),
            rule,
            probes=probes_from(config, rule, layers[-1], Phase.BOTH),
            answers=probes_from(config, rule, layers[0] - 1, Phase.BOTH),
            dtype=self._dtype,
            device=self.device,
        )

    def begin(self, segment: Segment) -> Executor:
        """Return the executor of a segment; whoever steps it calls ``finish`` in the end."""
        self._segment = segment
        self._mark = self._now()
        self._start = self._mark[1:]
        self._total = Meter()
        self.timeline.keeps_spans = segment.trains
        self._executor = Executor(
            self.stage,
            self.index,
            self.layout,
            segment,
            self.links,
            self.timeline,
            source=self._source(segment),
            encoding=LinkEncoding(
                self.config,
                self.stage.rule,
                self.layout.layers(self.index),
                segment.phase,
                segment.repeat,
            ),
            done=self._done,
            before=self._inject if self._faults is not None else None,
            device=self.device,
            align_every=self.config.monitor.alignment_every,
            start=self._first_signal(),
        )
        return self._executor

    def _first_signal(self) -> Tensor | None:
        """Return what T begins with in the last stage, None where that is the outputs' displacement."""
        rule, outputs = self.stage.rule, shapes_of(self.config)[-1][0]
        if not isinstance(rule, OneWaveRule) or self.index < self.layout.stages - 1:
            return None
        return rule.first_signal(outputs, self._dtype, self.device)

    def finish(self) -> StageSummary:
        """Return what the stage did in the segment that has ended."""
        assert self._executor is not None
        assert self._executor.finished
        self._total.merge(self.stage.meter.take())
        self.timeline.mark(None, self.timeline.now[1])
        busy, waiting, reading, sent = self._start
        means = {name: value for name, value in self._total.means().items() if "/" not in name}
        return StageSummary(
            busy=self.timeline.busy - busy,
            waiting=self.timeline.waiting - waiting,
            bytes_sent=self.links.bytes_sent - sent,
            reading=self.timeline.reading - reading,
            examples=self.stage.examples,
            means={**means, **self.stage.measured_of_split()},
        )

    def close(self) -> None:
        """Take down the links, and end what reads ahead."""
        self.links.close()
        if self._ahead is not None:
            self._ahead.close()

    def where(self) -> str:
        """Return stage, action, layer and minibatch of what is going on, in words."""
        activity, minibatch, _ = self.timeline.now
        doing = activity or NOTHING
        if activity is not None and activity.computes and activity is not Activity.DATA:
            doing = f"{activity}, layer {self.stage.now}"
        return f"{self.layout.describe(self.index)}, {in_words(doing, minibatch)}"

    def locate(self, error: NonFiniteError) -> NonFiniteError:
        """Return the error with this stage in front."""
        return NonFiniteError(f"{self.layout.describe(self.index)}, {error}")

    def states(self) -> dict[int, Tensors]:
        """Return a copy of every layer's state by its number; the pipeline must be drained."""
        return {layer.index: layer_state(layer) for layer in self.stage.layers}

    def load(self, states: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Put back every layer's state.

        Raises:
            StorageError: a layer's is not that of a layer like it.
        """
        self.stage.abandon()
        for layer in self.stage.layers:
            state = states[layer.index]
            for name, value in layer_state(layer).items():
                found = state.get(name)
                if ".optimizer." not in name and (found is None or found.shape != value.shape):
                    has = "is missing" if found is None else f"has the shape {list(found.shape)}"
                    due = f"the configuration's has {list(value.shape)}"
                    raise StorageError(f"checkpoint: {name} of layer {layer.index} {has}; {due}")
            load_layer_state(layer, state)

    def spans(self) -> list[Span]:
        """Return the stage's last actions and waits."""
        return self.timeline.spans()

    def examples(self, split: str, count: int) -> Examples:
        """Return the first examples of a split, or all there are; in the first stage alone."""
        assert self._batches is not None, "the first stage alone has data"
        examples = self._batches[split].examples
        return examples.part(0, min(count, len(examples)))

    def _inject(self, action: Action) -> None:
        """Let a fault happen in its place, as if the action had begun."""
        assert self._faults is not None
        self.timeline.mark(ACTIONS[action.kind], action.minibatch)
        self._faults(action, self.links)

    def _source(self, segment: Segment) -> Source | None:
        if self._batches is None:
            return None
        batches = self._batches[segment.split]

        def minibatch(number: int) -> tuple[Tensor, Tensor]:
            if isinstance(self.stage, VirtualStage):
                return self.stage.minibatch(batches.size(segment.index(number)), batches.examples.labels)
            x, labels = batches.minibatch(segment.epoch, segment.index(number), self.device)
            return x.to(self._dtype), labels

        return minibatch

    def _done(self, minibatch: int) -> None:
        segment = self._segment
        assert segment is not None
        if not segment.trains or (minibatch + 1) % self.config.monitor.every:
            return
        measured = self.stage.meter.take()
        self._total.merge(measured)
        before, self._mark = self._mark, self._now()
        clock, busy, waiting, reading, sent = (
            now - then for now, then in zip(self._mark, before, strict=True)
        )
        seconds = max(clock, 1e-9)
        own = {"busy": busy / seconds, "waiting": waiting / seconds, "sent_mb": sent / MEGA, **self._memory()}
        if self._batches is not None:
            own["reading"] = reading / seconds
        values = {**measured.means(), **{f"stage/{self.index}/{name}": value for name, value in own.items()}}
        self._report(Report(self.index, segment, minibatch, values))

    def _now(self) -> tuple[float, float, float, float, int]:
        """Return the time, seconds busy, waiting and reading (which is part of busy), and bytes sent."""
        line = self.timeline
        return line.clock(), line.busy, line.waiting, line.reading, self.links.bytes_sent

    def _memory(self) -> dict[str, float]:
        """Return the megabytes that this stage's process holds, and its tensors on a device of their own."""
        found = {"memory_mb": resident_bytes() / MEGA}
        if self.device.type == "cuda":
            found["gpu_memory_mb"] = torch.cuda.memory_allocated(self.device) / MEGA
        return found


def set_threads(config: Config) -> None:
    """Fix the number of threads of this process: it changes the last bits."""
    torch.set_num_threads(config.parallel.threads)
