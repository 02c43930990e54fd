"""Histograms and pictures of a run, rare, made by the driver from checkpoints and timelines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from dtp_dist.algorithm.alignment import alignment
from dtp_dist.checkpoint import Manifest
from dtp_dist.config import Config
from dtp_dist.data import Batches
from dtp_dist.monitor.base import Monitors
from dtp_dist.monitor.drawing import angle_bars, image_rows
from dtp_dist.monitor.probe import Found, Probe, one_thread
from dtp_dist.monitor.reconstruction import reconstructions
from dtp_dist.monitor.tags import LAYERS, LEARNING, PIPELINE, TENSORS
from dtp_dist.monitor.tensorboard import TensorBoardLog
from dtp_dist.monitor.timeline_picture import timeline_picture
from dtp_dist.runtime.base import Runtime

SHOWN, ROWS = 8, 9
TIMELINE = (
    "What each stage did at the end of a segment, where the pipeline drains: F, I, T, U and the minibatch; "
    "grey: it waits for a message. At the right the share of this time that it computes."
)
ALIGNMENT = (
    "Degrees between what each layer does for {examples} examples and what backpropagation would do: its "
    "update, its target, and the Jacobian of its inverse against the transpose of its own. 0 is "
    "backpropagation, 90 has nothing of it."
)
CHAIN = "Inputs (top) and what each layer's activation gives when it is taken down by the inverses below it."
NOT_LEARNED = (
    " Layer {layer} has no inverse under this rule: from h{below} to the input it is a ridge regression, "
    "fitted on other examples, and the row h{below} is the best it can do."
)
Write = Callable[[], None]
Picture = tuple[str, Image, str]
"""Tag, picture and description."""


class Due:
    """Whether something rare is due: the first time, once every ``every`` steps, and at the ``end``."""

    def __init__(self, every: int, end: int) -> None:
        self._every, self._end, self._seen = every, end, 0

    def go_back(self, step: int) -> None:
        """Begin again at a step that is behind the run."""
        self._seen = step

    def at(self, step: int) -> bool:
        """Return whether it is due at ``step``, which counts as seen from now on."""
        before, self._seen = self._seen, step
        if not self._every or step <= before:
            return False
        return not before or step >= self._end or step // self._every > before // self._every


class Pictures:
    """What the driver shows beside its lines.

    Args:
        batches: of the split whose examples are looked at.
        per_epoch: minibatches in an epoch.
        steps: minibatches in the whole run.
    """

    def __init__(
        self,
        config: Config,
        batches: Batches,
        board: TensorBoardLog,
        monitors: Monitors,
        *,
        per_epoch: int,
        steps: int,
    ) -> None:
        self._config, self._batches, self._board, self._monitors = config, batches, board, monitors
        options = config.monitor
        self._probe = Probe(config, batches)
        self._timeline = Due(options.pictures_every * per_epoch, steps)
        self._pictures = Due(options.pictures_every * per_epoch, steps)
        self._histograms = Due(options.histograms_every * per_epoch, steps)

    def begin(self, step: int) -> None:
        """Take note of where the run starts or goes on."""
        for due in (self._timeline, self._pictures, self._histograms):
            due.go_back(step)

    def drained(self, runtime: Runtime, step: int, epoch: int) -> None:
        """Show the pipeline's timeline if that is due; ``epoch`` counts from 0."""
        if self._timeline.at(step):
            spans = runtime.spans()
            self._show(step, epoch, lambda: self._of_timeline(step, timeline_picture(spans, runtime.layout)))

    def saved(self, folder: Path, manifest: Manifest) -> None:
        """Show what is due of a whole checkpoint."""
        pictures, histograms = self._pictures.at(manifest.step), self._histograms.at(manifest.step)
        if pictures or histograms:
            self._show(
                manifest.step,
                manifest.epoch,
                lambda: self._of_checkpoint(folder, manifest, pictures=pictures, histograms=histograms),
            )

    def _show(self, step: int, epoch: int, draw: Callable[[], Iterable[Write]]) -> None:
        """Draw, and then write; what goes wrong in drawing is told as an event: no picture is worth a run."""
        try:
            with one_thread():
                drawn = list(draw())
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            self._monitors.event(step, epoch + 1, "no picture", message=message)
            return
        for write in drawn:
            write()

    def _of_timeline(self, step: int, image: Image | None) -> Iterator[Write]:
        if image is not None:
            yield partial(self._board.picture, step, f"{PIPELINE}/timeline", image, TIMELINE)

    def _of_checkpoint(
        self, folder: Path, manifest: Manifest, *, pictures: bool, histograms: bool
    ) -> Iterator[Write]:
        found, step = self._probe.look(folder, manifest), manifest.step
        if histograms:
            for tag, values in _distributions(found):
                if values.numel() and bool(torch.isfinite(values).all()):
                    yield partial(self._board.histogram, step, tag, values)
        if pictures:
            for tag, image, text in (*self._reconstructions(found), *self._alignment(found)):
                yield partial(self._board.picture, step, tag, image, text)

    def _reconstructions(self, found: Found) -> Iterator[Picture]:
        examples, x = self._batches.examples, found.x
        shown = min(SHOWN, len(x) // 2)
        if not shown or examples.shape[0] not in (1, 3):
            return
        rows = list(reconstructions(found.passages, x, shown, ROWS))
        if rows:
            named = [("input", x[:shown]), *((f"from {name}", values) for name, values in rows)]
            image = image_rows([(name, examples.pixels(values)) for name, values in named])
            lowest = next(at.layer.index for at in found.passages if at.layer.inverse is not None)
            note = NOT_LEARNED.format(layer=lowest - 1, below=lowest - 1) if lowest > 1 else ""
            yield f"{LEARNING}/reconstruction", image, CHAIN + note

    def _alignment(self, found: Found) -> Iterator[Picture]:
        if self._config.rule.name == "backprop":
            return
        layers: Mapping[int, dict[str, float]] = defaultdict(dict)
        for at in found.passages:
            for name, value in alignment(found.rule, at):
                if name.endswith("_angle"):
                    layers[at.layer.index][name.removesuffix("_angle")] = value.item()
        yield f"{LAYERS}/alignment", angle_bars(layers), ALIGNMENT.format(examples=len(found.x))


def _distributions(found: Found) -> Iterator[tuple[str, Tensor]]:
    """Yield weights, activations and displacements by tag."""
    for at in found.passages:
        layer = f"layer {at.layer.index}"
        for side, module in at.layer.modules().items():
            weights = [each.detach().flatten() for each in module.parameters()]
            if weights:
                yield f"{TENSORS}/{side}_weights/{layer}", torch.cat(weights)
        yield f"{TENSORS}/activations/{layer}", at.h_out
        yield f"{TENSORS}/displacements/{layer}", at.delta
