"""What stands in the place of an inverse without leading from a layer's output back to its input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum

from torch import Tensor, nn

from dtp_dist.algorithm.maps.base import Call, Map, Pullback
from dtp_dist.algorithm.maps.dense import DenseMap


class Feedback(Enum):
    """What stands in the place of a layer's inverse."""

    INVERSE = "g_l itself, from h_l's shape back to h_{l-1}'s"
    WEIGHTS = "weights that take the place of f_l's own in its transpose"
    DIRECT = "a map from the outputs' shape to h_l's"


class FeedbackWeights(Map):
    """Weights B that take the place of a forward map's own in its transpose (Lillicrap et al. 2016).

    Args:
        weights: one for each of the forward map's products, in the order of ``Map.products`` and of their
            shapes.
    """

    inverts = False

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__(nn.ParameterList([nn.Parameter(each, requires_grad=False) for each in weights]))

    @contextmanager
    def in_place_of(self, forward: Map) -> Iterator[None]:
        """Let the products of ``forward`` have these weights; in the end they have their own again."""
        own = forward.products()
        kept = [each.data for each in own]
        try:
            for weight, other in zip(own, self.module.parameters(), strict=True):
                weight.data = other.data
            yield
        finally:
            for weight, value in zip(own, kept, strict=True):
                weight.data = value

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        raise TypeError("feedback weights are no map of their own")

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> Pullback:
        raise TypeError("feedback weights are no map of their own")

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("feedback weights are no map of their own")


class DirectPullback(Pullback):
    """``y = x B^T`` in a layer's shape: the dense map's own, of a flat cotangent."""

    def __init__(self, dense: Pullback, output: Tensor) -> None:
        self._dense, self.output = dense, output

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        return self._dense.parameters(cotangent.flatten(1))

    def input(self, cotangent: Tensor) -> Tensor:
        return self._dense.input(cotangent.flatten(1))


class DirectFeedback(Map):
    """A linear map from the outputs ``[B, K]`` straight to a layer's output ``[B, *shape]``.

    Args:
        module: B, ``[numel of shape, K]``, without bias.
    """

    inverts = False

    def __init__(self, module: nn.Linear, shape: tuple[int, ...]) -> None:
        super().__init__(module)
        self._dense, self._shape = DenseMap(module, "linear"), shape

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self._dense(x, call).view(-1, *self._shape)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> DirectPullback:
        del output
        dense = self._dense.linearize(x, call)
        return DirectPullback(dense, dense.output.view(-1, *self._shape))

    def torch_modules(self) -> list[nn.Module]:
        return [*self._dense.torch_modules(), nn.Unflatten(1, self._shape)]
