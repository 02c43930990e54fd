"""What a learning rule's actions need of each other: the rule says it, schedules order them by it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Flow:
    """How inverses and targets of a rule hang together with F; ValueError for what no rule can be.

    Attributes:
        inverse_in: the action in which the inverses learn: ``I``, their own, right after F; or ``U``, with
            what both F and T left.
        target_reads_forward: whether T needs F of the same minibatch. Where it does not, T starts in the last
            stage at once: both waves run at the same time, and an exact step takes as long as one.
    """

    inverse_in: Literal["I", "U"] = "I"
    target_reads_forward: bool = True

    def __post_init__(self) -> None:
        if self.inverse_in not in ("I", "U"):
            raise ValueError(f"inverse_in is {self.inverse_in!r}; it must be 'I' or 'U'")
        if self.inverse_in == "I" and not self.target_reads_forward:
            raise ValueError("a target pass that reads nothing of F goes with inverse_in='U'")


TWO_WAVES = Flow()
"""F up, with I in every stage, then T down: as nearly all rules have it."""
