"""The minibatches of an epoch. Their order depends on (seed, epoch) alone, so any run can find its place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed
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

    ``input_shape`` is the model's declared input: [784] flattens images of [1, 28, 28]. ``count`` is the
    number of minibatches of an epoch: a smaller last one is kept, or left out with ``drop_last``.

    Raises DataError if an image does not fit ``input_shape``, or ``drop_last`` leaves no minibatch;
    ConfigError if ``batch_size`` is not positive.
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
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        whole, remainder = divmod(len(examples), batch_size)
        self.count = whole + (1 if remainder and not drop_last else 0)
        self._order_of: tuple[int, Tensor] | None = None

    def minibatch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Return minibatch ``index`` of ``epoch``: float32 [B, *input_shape] and labels, int64 [B].

        Both are fresh, contiguous tensors on the CPU. Raises IndexError unless 0 <= index < count.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"minibatch {index} of an epoch that has {self.count}")
        start = index * self.batch_size
        images, labels = self.examples.pick(self._order(epoch)[start : start + self.batch_size])
        return images.view(-1, *self.input_shape), labels

    def size(self, index: int) -> int:
        """Return the number of examples in minibatch ``index`` of an epoch; the last may be smaller."""
        return min(self.batch_size, len(self.examples) - index * self.batch_size)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the split's first examples, ``count`` or all there are, shaped as ``minibatch`` does."""
        images, labels = self.examples.pick(torch.arange(min(count, len(self.examples))))
        return images.view(-1, *self.input_shape), labels

    def _order(self, epoch: int) -> Tensor:
        if self._order_of is None or self._order_of[0] != epoch:
            self._order_of = (epoch, order(self.seed, epoch, len(self.examples), self.shuffle))
        return self._order_of[1]


def _check_input(image: Sequence[int], declared: Sequence[int]) -> None:
    if math.prod(image) != math.prod(declared) or min(declared, default=0) < 1:
        raise DataError(
            f"model.input={list(declared)} does not fit the data's images of {list(image)}: "
            f"write model.input={[math.prod(image)]} or {list(image)}"
        )
