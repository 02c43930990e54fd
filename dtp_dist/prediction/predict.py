"""``predict``: a run's newest or best weights applied to new examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dtp_dist.algorithm.losses import Loss
from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.config import Config, shapes_of
from dtp_dist.data.batches import fits
from dtp_dist.data.own.brought import Pair
from dtp_dist.errors import DataError, StorageError
from dtp_dist.prediction.expected import Expected
from dtp_dist.prediction.inputs import Part, batches, parts_of
from dtp_dist.storage.data_file import read_facts
from dtp_dist.storage.export import network_of, parts_of_run
from dtp_dist.storage.run_dir import open_run_dir
from dtp_dist.storage.run_files import DATA
from dtp_dist.system.paths import absolute

CLASS, LABELS, NUMBERS = "class", "labels", "numbers"
PRESENT = 0.5
"""The probability above which one of several labels is said to be present, as in an evaluation."""


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one example.

    Attributes:
        file: what holds the example; "" of one that was handed over in Python.
        index: its place in there, from 0; None where it is all that the file holds, as an image is.
        kind: ``class``, ``labels`` (several at once) or ``numbers``.
        values: the probability of each class or label by its name, or each number. With ``model.loss=mse``
            classes have the network's outputs, which are no probabilities.
        labels: the class, or the labels that are present; () where numbers are predicted.
        probable: whether ``values`` are probabilities.
    """

    file: str
    index: int | None
    kind: str
    values: dict[str, float]
    labels: tuple[str, ...]
    probable: bool

    @property
    def label(self) -> str | None:
        """The class; None where there is none, or several labels."""
        return self.labels[0] if self.kind == CLASS else None

    @property
    def probability(self) -> float | None:
        """The probability of the class; None where there is none."""
        return self.values[self.labels[0]] if self.kind == CLASS and self.probable else None


def predict(
    run_dir: str | Path,
    examples: str | Path | Sequence[str | Path] | Tensor | NDArray[Any],
    *,
    convert: bool = False,
    allow_code: bool = False,
    best: bool = False,
) -> list[Prediction]:
    """Return what a run's newest weights predict of new examples, in their order.

    Args:
        run_dir: the folder of a run.
        examples: files and folders of images, ``.npy`` and ``.npz`` files, for a run on a table CSV or
            Parquet files; or a tensor or an array, ``[N, *shape]``. Values are divided by the run's
            ``data.options.unit``, without one bytes by 255 and all else by 1. ``data.normalize`` follows.
        convert: resize images, and convert their colours, where they are not as the run's are.
        allow_code: import the user modules that the run names.
        best: take the weights of the best checkpoint (``train.keep_best``), not the newest.

    Raises:
        ConfigError: the folder holds no run, or it names code.
        DataError: an example can't be read or is not as the run's are, or is by itself where the network
            normalizes over the minibatch (``norm: minibatch``); names its file.
        StorageError: there is no whole checkpoint.
    """
    run_dir = Path(run_dir)
    config = open_run_dir(run_dir, allow_code=allow_code)
    _, parts = parts_of_run(run_dir, config, best=best)
    network, names = network_of(parts), _Names(run_dir, config)
    expected = Expected(
        config.data.name,
        Path(absolute("data.root", config.data.root)),
        config.data.options,
        names.shape,
        convert,
    )
    if isinstance(examples, (str, Path)):
        examples = [examples]
    found: Iterable[Part]
    if isinstance(examples, Sequence):
        found = parts_of(examples, expected)
    else:
        found = [_handed(examples, names.shape)]
    unit = expected.unit
    return [each for part in found for each in _of_part(part, unit, network, config, names)]


class _Names:
    """What the network's outputs are called, and the shape of its examples, as the run's folder says."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        facts = read_facts(run_dir) or {}
        shape, outputs = facts.get("shape", config.model.input), shapes_of(config)[-1][0]
        if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
            raise StorageError(f"{run_dir / DATA}: is damaged (its shape is {shape!r})")
        if not fits(shape, config.model.shape):
            raise StorageError(f"{run_dir / DATA}: is damaged (its shape does not fit model.input)")
        self.shape = tuple(shape)
        loss = config.build_loss()
        numbers = bool(facts) and facts.get("classes") is None
        self.kind = (
            CLASS if not numbers else LABELS if config.model.loss == "binary_cross_entropy" else NUMBERS
        )
        self.probable = loss.called == "logits"
        self.outputs = self._called(facts.get("names"), outputs)

    def _called(self, names: object, outputs: int) -> list[str]:
        called = list(map(str, names)) if isinstance(names, list) else []
        if len(set(called)) == outputs:
            return called
        if self.kind == CLASS:
            return list(map(str, range(outputs)))
        return ["y"] if outputs == 1 else [f"y{index}" for index in range(outputs)]


def _handed(examples: Any, shape: tuple[int, ...]) -> Part:
    """Return examples that were handed over in Python."""
    rows, _ = Pair(examples, torch.zeros(len(examples)), "examples").read(held=True)
    if not fits(rows.shape, shape):
        raise DataError(f"examples: each is {list(rows.shape)}, but the network takes {list(shape)}")
    return Part([""], rows)


def _of_part(
    part: Part, unit: float | None, network: nn.Module, config: Config, names: _Names
) -> Iterator[Prediction]:
    place, mixing = 0, any(layer.mixes_examples for layer in config.model.options)
    together = config.data.eval_batch_size if mixing else None
    for x in batches(part, unit, config.model.shape, together):
        for row in _shown(network, x, config).tolist():
            file, index = part.place(place)
            values = dict(zip(names.outputs, row, strict=True))
            yield Prediction(file, index, names.kind, values, _labels(names, row), names.probable)
            place += 1


def _labels(names: _Names, row: list[float]) -> tuple[str, ...]:
    if names.kind == CLASS:
        return (names.outputs[row.index(max(row))],)
    if names.kind == NUMBERS:
        return ()
    return tuple(name for name, value in zip(names.outputs, row, strict=True) if value > PRESENT)


def _shown(network: nn.Module, x: Tensor, config: Config) -> Tensor:
    """Return probabilities or numbers, [B, K], the mean over ``train.evaluate_passes`` as in evaluation."""
    loss: Loss = config.build_loss()
    low = config.train.dtype == "bfloat16"
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "predict"))
        with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
            passes = [network(x) for _ in range(config.train.evaluate_passes)]
        total = sum(loss.predicted(outputs.float()) for outputs in passes)
        assert isinstance(total, Tensor)
        return loss.shown(total / len(passes))
