"""The minibatches of an epoch. Their order depends on (seed, epoch) alone, so any run can find its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.data.augmentation import Augmentation
from dtp_dist.data.examples import Examples
from dtp_dist.errors import ConfigError, DataError


def order(seed: int, epoch: int, examples: int, shuffle: bool = True) -> Tensor:
    """Return the order of the examples in an epoch, int64 [examples]: a permutation, or 0, 1, 2, ..."""
    if not shuffle:
        return torch.arange(examples)
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(examples, generator=generator)


class Batches:
    """The minibatches of one split, found by epoch and index, in the shape the model takes.

    ``input_shape`` is the model's declared input: [784] flattens images of [1, 28, 28], as ``fits`` allows.
    ``count`` is the number of minibatches of an epoch: a smaller last one is kept, or left out with
    ``drop_last``. ``augmentation`` is done to each example, each time that it is read. ``reader``, where it
    is set, returns what ``stored`` does, and has read it before.

    Raises DataError if an example does not fit ``input_shape``, or ``drop_last`` leaves no minibatch;
    ConfigError if ``batch_size`` is not positive, or the augmentation does not go with the examples.
    """

    def __init__(
        self,
        examples: Examples,
        input_shape: Sequence[int],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"data.batch_size={batch_size}: must be at least 1")
        if drop_last and batch_size > len(examples):
            raise DataError(
                f"data.batch_size={batch_size} is more than the {len(examples)} examples of the split, "
                "and data.drop_last leaves no minibatch: make it smaller or set data.drop_last=false"
            )
        _check_input(examples.shape, input_shape)
        self.examples = examples
        self.input_shape = tuple(input_shape)
        self.batch_size, self.drop_last = batch_size, drop_last
        self.seed = seed
        self.shuffle = shuffle
        self.augmentation = augmentation
        if augmentation is not None:
            augmentation.check(examples.shape, examples.rows.dtype)
        self.reader: Callable[[int, int], Tensor] | None = None
        whole, remainder = divmod(len(examples), batch_size)
        self.count = whole + (1 if remainder and not drop_last else 0)
        self._order_of: tuple[int, Tensor] | None = None

    @property
    def takes_time(self) -> bool:
        """Whether something is won by reading ahead: not all is in memory as it is needed."""
        return self.augmentation is not None or not self.examples.rows.held

    def alone(self) -> Batches:
        """Return the same minibatches, without what reads them ahead."""
        found = copy(self)
        found.reader = None
        return found

    def minibatch(self, epoch: int, index: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return minibatch ``index`` of ``epoch``: float32 [B, *input_shape] and labels.

        Labels are int64 [B], or float32 [B, K] where targets are numbers. Both are fresh, contiguous tensors
        on ``device`` (None: the CPU), where x comes as it is stored and becomes float32. Raises IndexError
        unless 0 <= index < count; DataError if an example can't be read.
        """
        chosen = self._chosen(epoch, index)
        stored = self.stored(epoch, index) if self.reader is None else self.reader(epoch, index)
        labels = self.examples.labels.index_select(0, chosen)
        if device is not None and device.type != "cpu":
            stored, labels = stored.to(device, non_blocking=True), labels.to(device)
        return self.examples.seen(stored).view(-1, *self.input_shape), labels

    def stored(self, epoch: int, index: int) -> Tensor:
        """Return a minibatch's rows, augmented: uint8 or float32 [B, *shape]; raises as ``minibatch``."""
        chosen = self._chosen(epoch, index)
        rows = self.examples.rows.select(chosen)
        return rows if self.augmentation is None else self.augmentation(rows, epoch, chosen)

    def _chosen(self, epoch: int, index: int) -> Tensor:
        """Return which examples a minibatch holds, int64 [B]."""
        if not 0 <= index < self.count:
            raise IndexError(f"minibatch {index} of an epoch that has {self.count}")
        start = index * self.batch_size
        return self._order(epoch)[start : start + self.batch_size]

    def size(self, index: int) -> int:
        """Return the number of examples in minibatch ``index`` of an epoch; the last may be smaller."""
        return min(self.batch_size, len(self.examples) - index * self.batch_size)

    def _order(self, epoch: int) -> Tensor:
        if self._order_of is None or self._order_of[0] != epoch:
            self._order_of = (epoch, order(self.seed, epoch, len(self.examples), self.shuffle))
        return self._order_of[1]


def fits(example: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether examples of one shape may be seen in another: dimensions merged, split or of size 1 left out.

    [1, 28, 28] may be seen as [784] or [28, 28]; [32, 32, 3] not as [3, 32, 32], which holds as many numbers
    but would mix channels up with rows.
    """
    if math.prod(example) != math.prod(declared) or min(declared, default=0) < 1:
        return False
    one, other = (set(accumulate(shape, mul, initial=1)) for shape in (example, declared))
    return one <= other or other <= one


def shapes_to_write(example: Sequence[int]) -> str:
    """Return what ``model.input`` may be for examples of a shape, in words."""
    shapes = dict.fromkeys([(math.prod(example),), tuple(example)])
    return " or ".join(str(list(shape)) for shape in shapes)


def _check_input(example: Sequence[int], declared: Sequence[int]) -> None:
    if not fits(example, declared):
        raise DataError(
            f"model.input={list(declared)} does not fit the data's examples of {list(example)}: "
            f"write model.input={shapes_to_write(example)}"
        )
