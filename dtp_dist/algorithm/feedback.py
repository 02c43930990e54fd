"""By which maps a rule's signal comes down: the kinds of inverses that rules ask layers for."""

from __future__ import annotations

from enum import Enum


class Feedback(Enum):
    """What stands in the place of a layer's inverse."""

    INVERSE = "g_l itself, from h_l's shape back to h_{l-1}'s"
    WEIGHTS = "weights that take the place of f_l's own in its transpose"
    DIRECT = "a map from the outputs' shape to h_l's"
