"""Learning rules. Adding one is a file with the rule and its options, and its line in ``RULES``."""

from __future__ import annotations

from typing import Annotated, Any

from dtp_dist.algorithm.options import RangeError, Variants
from dtp_dist.algorithm.rules.backprop import BackpropOptions
from dtp_dist.algorithm.rules.base import LocalStep, Rule, RuleOptions, Seen, TargetRuleOptions
from dtp_dist.algorithm.rules.ccl import CCLOptions
from dtp_dist.algorithm.rules.feedback.ddtp_linear import DDTPLinearOptions
from dtp_dist.algorithm.rules.feedback.dfa import DFAOptions
from dtp_dist.algorithm.rules.feedback.feedback_alignment import FeedbackAlignmentOptions
from dtp_dist.algorithm.rules.one_wave import OneWaveRule
from dtp_dist.algorithm.rules.targets.autoencoder import AutoencoderOptions
from dtp_dist.algorithm.rules.targets.dtp import DTPOptions
from dtp_dist.algorithm.rules.targets.fw_dtp import FixedWeightOptions
from dtp_dist.algorithm.rules.targets.ldrl import LDRLOptions
from dtp_dist.algorithm.rules.targets.sdtp import SDTPOptions
from dtp_dist.algorithm.rules.targets.tp import TPOptions
from dtp_dist.flow import TWO_WAVES
from dtp_dist.import_path import imported

RULES: dict[str, type[RuleOptions]] = {
    "dtp": DTPOptions,
    "tp": TPOptions,
    "sdtp": SDTPOptions,
    "fw_dtp": FixedWeightOptions,
    "backprop": BackpropOptions,
    "feedback_alignment": FeedbackAlignmentOptions,
    "dfa": DFAOptions,
    "ddtp_linear": DDTPLinearOptions,
    "ldrl": LDRLOptions,
    "autoencoder": AutoencoderOptions,
    "ccl": CCLOptions,
}


def rule_class(path: str) -> type[RuleOptions]:
    """Return the options class of a user's rule, which ``package.module:Class`` names.

    Raises:
        RangeError: it can't be imported, or is none.
    """
    found: Any = imported(path, "name")
    if not (isinstance(found, type) and issubclass(found, RuleOptions)):
        raise RangeError("name", f"{path!r} is no class of RuleOptions (dtp_dist.algorithm.rules)")
    if getattr(found.build, "__isabstractmethod__", False):
        raise RangeError("name", f"{path!r} has no build(layers) that returns its rule; write one")
    return found


def built(options: RuleOptions, layers: int) -> Rule:
    """Return the rule that a user's options build.

    Raises:
        RangeError: they build none.
    """
    call = f"{options.name}.build({layers})"
    try:
        rule: Any = options.build(layers)
        flow = rule.flow() if isinstance(rule, Rule) else TWO_WAVES
    except Exception as error:
        text = " ".join(f"{call} raised {type(error).__name__}: {error}".split())
        raise RangeError("name", text) from error
    if not isinstance(rule, Rule):
        raise RangeError("name", f"{call} returned a {type(rule).__name__}, no Rule")
    if not flow.target_reads_forward and not isinstance(rule, OneWaveRule):
        text = "whose T reads nothing of F; derive it from OneWaveRule (dtp_dist.algorithm.rules)"
        raise RangeError("name", f"{call} returned a {type(rule).__name__}, {text}")
    if rule.probes and flow.inverse_in != "U":
        text = "whose inverses learn from probes; return Flow(inverse_in='U') from flow()"
        raise RangeError("name", f"{call} returned a {type(rule).__name__}, {text}")
    if (
        flow.inverse_in == "U"
        and type(rule).inverse_update is Rule.inverse_update
        and rule.learned_inverses()
    ):
        text = "whose inverses learn in U; give it inverse_update(layer, seen, call)"
        raise RangeError("name", f"{call} returned a {type(rule).__name__}, {text}")
    return rule


AnyRule = Annotated[RuleOptions, Variants("name", RULES, imported=rule_class)]

__all__ = [
    "RULES",
    "AnyRule",
    "LocalStep",
    "OneWaveRule",
    "Rule",
    "RuleOptions",
    "Seen",
    "TargetRuleOptions",
    "built",
]
