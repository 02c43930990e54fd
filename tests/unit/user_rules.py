"""Learning rules as users write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dtp_dist.algorithm.options import Positive, RangeError, option
from dtp_dist.algorithm.rules import Rule, RuleOptions
from dtp_dist.algorithm.rules.targets.dtp import DifferenceTargetPropagation, DTPOptions
from dtp_dist.flow import Flow


@dataclass(frozen=True, kw_only=True)
class Doubled(DTPOptions):
    """DTP whose target is ``times`` as far off."""

    times: Positive = option(2.0, doc="factor of the step")
    where: str = "output"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times > 9:
            raise RangeError("times", f"{self.times:g} is too much; write at most 9")
        if self.where == "nowhere":
            raise ValueError("where must be somewhere")
        if self.where == "broken":
            raise TypeError("a bug")

    def build(self, layers: int) -> Rule:
        if self.where == "late":
            raise KeyError("late")
        step = self.times * self.target_step
        return DTPOptions(target_step=step, update_order=self.update_order).build(layers)


@dataclass(frozen=True, kw_only=True)
class Unbuilt(RuleOptions):
    """It has no rule."""


@dataclass(frozen=True, kw_only=True)
class Empty(RuleOptions):
    """What it builds is none."""

    def build(self, layers: int) -> Rule:
        return [layers]  # type: ignore[return-value]


class Flowing(DifferenceTargetPropagation):
    """DTP that claims another flow."""

    def flow(self) -> Flow:
        return Flow(**self.options.needs)


class Probing(Flowing):
    """It wants answers to its probes."""

    probes = True


@dataclass(frozen=True, kw_only=True)
class Claiming(DTPOptions):
    """Its rule is not what its flow says."""

    needs: dict[str, Any] = option(dict, doc="of the flow")
    probing: bool = False

    def build(self, layers: int) -> Rule:
        return (Probing if self.probing else Flowing)(self, layers)


@dataclass(frozen=True, kw_only=True)
class Untyped(DTPOptions):
    """A field has a type that nothing can be checked against."""

    what: "Nonsense" = None  # type: ignore[name-defined]  # noqa: F821, UP037


number = 3
