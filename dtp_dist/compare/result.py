"""What became of a comparison's runs, by rule and by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dtp_dist.report.groups import Group
from dtp_dist.report.read import Run
from dtp_dist.text.measures import measured_in
from dtp_dist.trials.trial import Outcome


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison, as far as they are."""

    outcomes: Sequence[Outcome]

    @cached_property
    def rules(self) -> list[str]:
        """The rules, the configuration's own first."""
        return list(dict.fromkeys(each.trial.values["rule"] for each in self.outcomes))

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds, in the order asked for."""
        return list(dict.fromkeys(each.trial.values["seed"] for each in self.outcomes))

    @cached_property
    def measured(self) -> list[tuple[str, str]]:
        """The splits and the metrics that the runs have."""
        return measured_in(each.run.measured() for each in self.outcomes)

    def of(self, rule: str) -> list[Outcome]:
        """Return the outcomes of a rule."""
        return [each for each in self.outcomes if each.trial.values["rule"] == rule]

    def done(self, rule: str) -> Group:
        """Return the runs of a rule that are done: its figures are theirs alone."""
        return Group(rule, tuple(each.run for each in self.of(rule) if each.state == "done"))

    def begun(self) -> list[Group]:
        """Return the runs of each rule that have measured something: curves are of all of them."""
        runs = {rule: [each.run for each in self.of(rule) if each.run.lines] for rule in self.rules}
        return [Group(rule, tuple(each)) for rule, each in runs.items() if each]

    def pairs(self, rule: str) -> list[tuple[Run, Run]]:
        """Return the configuration's own runs that are done, each with a twin's of the same seed."""
        mine, others = (
            {each.trial.values["seed"]: each.run for each in self.of(name) if each.state == "done"}
            for name in (self.rules[0], rule)
        )
        return [(mine[seed], others[seed]) for seed in mine if seed in others]
