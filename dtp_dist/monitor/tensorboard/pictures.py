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
from dtp_dist.algorithm.rules import OneWaveRule
from dtp_dist.charts.palette import ANGLES
from dtp_dist.config import Config
from dtp_dist.monitor.base import Monitors
from dtp_dist.monitor.tensorboard.curves_picture import QUANTITIES, curves_picture
from dtp_dist.monitor.tensorboard.descriptions import note_of
from dtp_dist.monitor.tensorboard.drawing import angle_bars, image_rows
from dtp_dist.monitor.tensorboard.probe import EXAMPLES, Found, Probe, one_thread
from dtp_dist.monitor.tensorboard.reconstruction import reconstructions
from dtp_dist.monitor.tensorboard.tags import LAYERS, LEARNING, PIPELINE, TENSORS
from dtp_dist.monitor.tensorboard.timeline_picture import timeline_picture
from dtp_dist.monitor.tensorboard.writer import TensorBoardLog
from dtp_dist.runtime.base import Runtime
from dtp_dist.storage.checkpoint import Manifest

SHOWN, ROWS = 8, 9
TIMELINE = (
    "What each stage did at the end of a segment, where the pipeline drains: F, I, T, U and the minibatch; "
    "stage 0 on top, pale: it waits. At the right the share of this time that it computes."
)
ALIGNMENT = (
    "Degrees between what each layer does for {examples} examples and what backpropagation would do: its "
    "update, its target, and the Jacobian of its inverse against the transpose of its own. 0 is "
    "backpropagation, 90 has nothing of it. {note}"
)
CURVES = (
    "{title} of every layer of this run, the lowest layer darkest: the layer that does not learn is the one "
    "whose curve stays up, or does not move. {note}"
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
    """What the driver shows next to its lines.

    Args:
        split: whose examples are looked at.
        per_epoch: minibatches in an epoch.
        steps: minibatches in the whole run.
    """

    def __init__(
        self,
        config: Config,
        split: str,
        board: TensorBoardLog,
        monitors: Monitors,
        *,
        per_epoch: int,
        steps: int,
    ) -> None:
        self._config, self._split, self._board, self._monitors = config, split, board, monitors
        options = config.monitor
        self._probe: Probe | None = None
        self._timeline = Due(options.pictures_every * per_epoch, steps)
        self._pictures = Due(options.pictures_every * per_epoch, steps)
        self._histograms = Due(options.histograms_every * per_epoch, steps)

    def begin(self, runtime: Runtime, step: int) -> None:
        """Take note of where the run starts or continues, and examples to look at, which the stages have."""
        if self._probe is None and not self._config.parallel.virtual:
            self._examples = runtime.examples(self._split, EXAMPLES)
            self._probe = Probe(self._config, self._examples)
        for due in (self._timeline, self._pictures, self._histograms):
            due.go_back(step)

    def drained(self, runtime: Runtime, step: int, epoch: int) -> None:
        """Show the pipeline's timeline if that is due; ``epoch`` counts from 0."""
        if self._timeline.at(step):
            spans = runtime.spans()
            draw = lambda: self._of_timeline(step, timeline_picture(spans, runtime.layout))  # noqa: E731
            self._show(runtime, step, epoch, draw)

    def saved(self, runtime: Runtime, folder: Path, manifest: Manifest) -> None:
        """Show what is due of a whole checkpoint."""
        pictures, histograms = self._pictures.at(manifest.step), self._histograms.at(manifest.step)
        if pictures or histograms:
            self._show(
                runtime,
                manifest.step,
                manifest.epoch,
                lambda: self._of_checkpoint(folder, manifest, pictures=pictures, histograms=histograms),
            )

    def _show(self, runtime: Runtime, step: int, epoch: int, draw: Callable[[], Iterable[Write]]) -> None:
        """Draw and write while the stages continue; what goes wrong in drawing is told as an event.

        No picture is worth a run.
        """

        def work() -> str | None:
            try:
                with one_thread():
                    drawn = list(draw())
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            for write in drawn:
                write()
            return None

        def told(message: str | None) -> None:
            if message is not None:
                self._monitors.event(step, epoch + 1, "no picture", message=message)

        runtime.aside("pictures", work, told)

    def _of_timeline(self, step: int, image: Image | None) -> Iterator[Write]:
        if image is not None:
            yield partial(self._board.picture, step, f"{PIPELINE}/timeline", image, TIMELINE)

    def _of_checkpoint(
        self, folder: Path, manifest: Manifest, *, pictures: bool, histograms: bool
    ) -> Iterator[Write]:
        assert self._probe is not None, "it has begun"
        found, step = self._probe.look(folder, manifest), manifest.step
        if histograms:
            for tag, values in _distributions(found):
                if values.numel() and bool(torch.isfinite(values).all()):
                    yield partial(self._board.histogram, step, tag, values)
        if pictures:
            for tag, image, text in (
                *self._reconstructions(found),
                *self._alignment(found),
                *self._curves(),
            ):
                yield partial(self._board.picture, step, tag, image, text)

    def _reconstructions(self, found: Found) -> Iterator[Picture]:
        examples, x = self._examples, found.x
        shown = 0 if isinstance(found.rule, OneWaveRule) else min(SHOWN, len(x) // 2)
        if not shown or len(examples.shape) != 3 or examples.shape[0] not in (1, 3):
            return
        rows = list(reconstructions(found.passages, x, shown, ROWS))
        if rows:
            named = [("input", x[:shown]), *((f"from {name}", values) for name, values in rows)]
            image = image_rows([(name, examples.pixels(values)) for name, values in named])
            lowest = next(at.layer.index for at in found.passages if at.layer.inverts)
            note = NOT_LEARNED.format(layer=lowest - 1, below=lowest - 1) if lowest > 1 else ""
            yield f"{LEARNING}/reconstruction", image, CHAIN + note

    def _alignment(self, found: Found) -> Iterator[Picture]:
        if self._config.rule.name == "backprop":
            return
        layers: Mapping[int, dict[str, float]] = defaultdict(dict)
        for at in found.passages:
            for name, value in alignment(found.rule, at):
                of = name.removesuffix("_angle")
                if of in ANGLES and of != name:
                    layers[at.layer.index][of] = value.item()
        note = note_of(self._config)
        yield (
            f"{LAYERS}/alignment",
            angle_bars(layers, note),
            ALIGNMENT.format(examples=len(found.x), note=note),
        )

    def _curves(self) -> Iterator[Picture]:
        """Yield a picture of all layers for each quantity: in TensorBoard's charts a run has one colour."""
        for name, quantity in QUANTITIES.items():
            exact = note_of(self._config, name) if name.endswith("_angle") else ""
            image = curves_picture(name, self._board.history.curves(name), exact)
            if image is not None:
                yield f"{LAYERS}/{name}/all layers", image, CURVES.format(title=quantity.title, note=exact)


def _distributions(found: Found) -> Iterator[tuple[str, Tensor]]:
    """Yield weights, activations and displacements, or what a rule of one wave sends, by tag."""
    for at in found.passages:
        layer = f"layer {at.layer.index}"
        for side, module in at.layer.modules().items():
            weights = [each.detach().flatten() for each in module.parameters()]
            if weights:
                yield f"{TENSORS}/{side}_weights/{layer}", torch.cat(weights)
        yield f"{TENSORS}/activations/{layer}", at.h_out
        sent = "signals" if isinstance(found.rule, OneWaveRule) else "displacements"
        yield f"{TENSORS}/{sent}/{layer}", at.delta
