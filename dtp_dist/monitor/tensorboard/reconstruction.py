"""Inputs rebuilt from each layer's activation through the chain of inverses below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dtp_dist.algorithm.alignment import Passage
from dtp_dist.algorithm.precision import widened

RIDGE = 0.01  # of the mean squared length of the centred activations
Decode = Callable[[Tensor], Tensor]


def reconstructions(
    passages: Sequence[Passage], x: Tensor, shown: int, rows: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield a name and the first ``shown`` inputs rebuilt from a layer, for at most ``rows`` layers.

    ``h_l`` goes down by g_l, g_{l-1}, ... to the lowest layer that has an inverse. If that is not layer 1,
    the rest of the way is no inverse of the network's but a ridge regression (``ridge``) from what is there
    to the input, fitted on the examples that are not shown. Nothing is yielded where nothing has an inverse.

    Args:
        passages: through all layers, bottom first, of the same minibatch as ``x``, ``[B, *input_shape]``.
    """
    inverted = [at for at in passages if at.layer.inverts]
    if not inverted:
        return
    lowest = inverted[0]
    below = lowest.layer.index - 1
    decode: Decode = lambda h: h.reshape(x.shape)  # noqa: E731
    if below:
        decode = ridge(lowest.h_in[shown:], x[shown:])
        yield f"h{below}", decode(lowest.h_in[:shown])
    for top in _spread(len(inverted), rows - bool(below)):
        h = inverted[top].h_out
        for at in reversed(inverted[: top + 1]):
            h = at.layer.g(widened(h), at.call.inverse())
        yield f"h{inverted[top].layer.index}", decode(h)[:shown]


def _spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` places of 0 .. count - 1, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def ridge(h: Tensor, x: Tensor) -> Decode:
    """Return the ridge regression from ``h`` ``[N, ...]`` to ``x`` ``[N, ...]``, both with their means.

    ``x_mean + (h - h_mean) H^T (H H^T + lambda I)^-1 X``: the dual form, whose cost grows with the examples
    and not with the units.
    """
    rows, goal = h.flatten(1).to(torch.float32), x.flatten(1).to(torch.float32)
    middle, x_mean = rows.mean(0), goal.mean(0)
    rows, goal = rows - middle, goal - x_mean
    gram = rows @ rows.T
    strength = RIDGE * gram.diagonal().mean().clamp_min(1e-12)
    solved = torch.linalg.solve(gram + strength * torch.eye(len(rows)), goal)
    weights = rows.T @ solved

    def decode(given: Tensor) -> Tensor:
        found: Tensor = (given.flatten(1).to(torch.float32) - middle) @ weights + x_mean
        return found.reshape(len(given), *x.shape[1:])

    return decode
