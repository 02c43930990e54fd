"""A fixed order of examples, by a hash of their names: every run of them has each class in its share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed


def dealt(labels: Sequence[int], keys: Sequence[int | str], purpose: str) -> Tensor:
    """Return an order, int64 [N], that mixes each class by a fixed hash and spreads it evenly.

    Args:
        labels: the class of each example.
        keys: what each is called; the order depends on these and the labels alone.
        purpose: part of what is hashed.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    place: dict[int, float] = {}
    for label in sorted(members):
        mixed = sorted(members[label], key=lambda index: derive_seed(purpose, keys[index]))
        place |= {index: (rank + 0.5) / len(mixed) for rank, index in enumerate(mixed)}
    return torch.tensor(sorted(place, key=lambda index: (place[index], derive_seed("deal", keys[index]))))
