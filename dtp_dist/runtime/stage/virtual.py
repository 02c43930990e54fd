"""Virtual devices: a stage that sleeps for the planned times instead of computing.

Messages of the real size go through the same executor, links and schedule, so that what the runtime itself
adds shows at more stages than there are cores. Nothing is learned, and there are no weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dtp_dist.algorithm.layers import Layer
from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.meter import Meter
from dtp_dist.algorithm.rules import Rule
from dtp_dist.schedule import Kind, Phase
from dtp_dist.system.process import wake_on_time

MILLISECOND = 1e-3


class Pace:
    """Sleeps for given times, right in the mean although the system wakes a sleeper late.

    What one sleep was too long, the next is shorter, less all time between the two: what the runtime did
    meanwhile, or a wait for a message, is never made up for.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._late, self._ended = 0.0, clock()

    def __call__(self, seconds: float) -> None:
        """Sleep for ``seconds``."""
        start = self._clock()
        debt = max(0.0, self._late - (start - self._ended))
        end = start + seconds - debt
        while (left := end - self._clock()) > 0:
            self._sleep(left)
        self._ended = self._clock()
        self._late = self._ended - end


class VirtualStage:
    """What an executor asks of a stage, in planned time.

    Args:
        layers: the numbers of its layers.
        shapes: of h_0 .. h_L, one example each.
        costs: milliseconds of every action, by its letter.
        probes, answers: how many it sends up and down, where inverses learn.
        dtype: of what it sends.
    """

    def __init__(
        self,
        layers: range,
        shapes: list[Shape],
        costs: Mapping[str, float],
        rule: Rule,
        *,
        probes: int = 0,
        answers: int = 0,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rule, self.meter, self.examples = rule, Meter(), 0
        self.layers: list[Layer] = []
        self.now = layers[0]
        self._first, self._last = layers[0] == 1, layers[-1] == len(shapes) - 1
        self._below, self._above = shapes[layers[0] - 1], shapes[layers[-1]]
        self._signal = rule.signal_shape(layers[0] - 1, shapes)
        self._costs, self._dtype, self._device = costs, dtype, device
        self._probes, self._answers, self._outputs = probes, answers, shapes[-1]
        self._pace = Pace()
        self._phase = Phase.BOTH
        self._in_flight: dict[int, int] = {}
        self._rows = rule.target_rows(shapes[-1][0])
        self._zeros: dict[tuple[Shape, torch.dtype], Tensor] = {}
        wake_on_time()

    def minibatch(self, examples: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return x ``[B, *shape]`` and its labels: zeros in place of B examples of the data.

        ``labels``: the data's, int64 ``[N]`` or float32 ``[N, K]``.
        """
        nothing = self._nothing((examples, *labels.shape[1:]), labels.dtype)
        return self._nothing((examples, *self._below)), nothing

    def begin(self, phase: Phase, epoch: int, passes: int = 1, repeat: int = 0) -> None:
        """Start a segment."""
        del epoch, passes, repeat
        self._phase, self.examples = phase, 0

    def abandon(self) -> None:
        """Forget every minibatch in flight."""
        self._in_flight.clear()

    def forward(self, minibatch: int, h: Tensor, labels: Tensor, probes: Tensor | None = None) -> Tensor:
        """F: return zeros ``[B, *shape]`` in place of h of the stage's last layer."""
        examples = len(labels)
        self._act(Kind.FORWARD)
        if self._phase is not Phase.EVALUATE:
            self._in_flight[minibatch] = examples
        if self._last and self._phase is not Phase.INVERSE:
            self.examples += examples
        return self._nothing((examples, *self._above))

    def probes(self, minibatch: int) -> list[Tensor]:
        """Return as many zeros as probes go up with F."""
        return self._rows_for(minibatch, self._probes, self._above)

    def answers(self, minibatch: int) -> list[Tensor]:
        """Return as many zeros as answers to probes go down with T."""
        return self._rows_for(minibatch, self._answers, self._outputs)

    def _rows_for(self, minibatch: int, probes: int, shape: Shape) -> list[Tensor]:
        if not probes or self._phase in (Phase.FORWARD, Phase.EVALUATE):
            return []
        return [self._nothing((probes * self._in_flight[minibatch], *shape))]

    def inverse(self, minibatch: int) -> None:
        """I."""
        self._act(Kind.INVERSE)
        if self._phase is Phase.INVERSE:
            del self._in_flight[minibatch]

    def target(self, minibatch: int, delta: Tensor | None, answers: Tensor | None = None) -> Tensor | None:
        """T: return zeros ``[B, *shape]`` for the stage below, None in the first stage."""
        self._act(Kind.TARGET)
        return self._down(minibatch, self._signal)

    def align(self, minibatch: int, descent: Tensor | None, *, knows_input: bool = True) -> Tensor | None:
        """Return what is sent next to a signal where diagnostics measure."""
        return self._down(minibatch, self._below)

    def _down(self, minibatch: int, shape: Shape) -> Tensor | None:
        if self._first:
            return None
        rows = self._in_flight[minibatch] if self._rows is None else self._rows
        return self._nothing((rows, *shape))

    def measured_of_split(self) -> dict[str, float]:
        """Nothing: there are no outputs."""
        return {}

    def update(self, minibatch: int) -> None:
        """U."""
        self._act(Kind.UPDATE)
        del self._in_flight[minibatch]

    def _act(self, kind: Kind) -> None:
        self._pace(self._costs[kind] * MILLISECOND)

    def _nothing(self, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        key = shape, dtype or self._dtype
        if key not in self._zeros:
            self._zeros[key] = torch.zeros(shape, dtype=key[1], device=self._device)
        return self._zeros[key]
