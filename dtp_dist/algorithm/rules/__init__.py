"""Learning rules. Adding one is a file with the rule and its options, and its line in ``RULES``."""

from __future__ import annotations

from dtp_dist.algorithm.rules.autoencoder import AutoencoderOptions
from dtp_dist.algorithm.rules.backprop import BackpropOptions
from dtp_dist.algorithm.rules.base import LocalStep, Rule, RuleOptions, TargetRuleOptions
from dtp_dist.algorithm.rules.dtp import DTPOptions
from dtp_dist.algorithm.rules.fw_dtp import FixedWeightOptions
from dtp_dist.algorithm.rules.ldrl import LDRLOptions
from dtp_dist.algorithm.rules.tp import TPOptions

RULES: dict[str, type[RuleOptions]] = {
    "dtp": DTPOptions,
    "tp": TPOptions,
    "fw_dtp": FixedWeightOptions,
    "backprop": BackpropOptions,
    "ldrl": LDRLOptions,
    "autoencoder": AutoencoderOptions,
}

__all__ = ["RULES", "LocalStep", "Rule", "RuleOptions", "TargetRuleOptions"]
