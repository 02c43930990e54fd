"""torch's Muon for matrices, and another optimizer for all other parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.adam import AdamOptions, AdamWOptions
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import eager
from dtp_dist.algorithm.optimizers.sgd import SGDOptions
from dtp_dist.algorithm.options import NonNegative, OneOf, Positive, RangeError, Share, Variants, option

OTHERS: Mapping[str, type[OptimizerOptions]] = {
    "adamw": AdamWOptions,
    "adam": AdamOptions,
    "sgd": SGDOptions,
}
"""What may move the parameters that are no matrices."""


@dataclass(frozen=True, kw_only=True)
class MuonOptions(OptimizerOptions):
    """torch's Muon, for parameters of two dimensions; ``others`` moves biases and convolutions' weights."""

    name: str = option("muon", doc="muon")
    momentum: Share = option(0.95, doc="decay of the average gradient")
    nesterov: bool = option(True, doc="add the momentum to the gradient once more (Nesterov)")
    weight_decay: NonNegative = option(0.1, doc="decoupled weight decay, times the learning rate")
    eps: Positive = option(1e-7, doc="least norm that an average gradient is divided by")
    ns_steps: Annotated[int, Ge(1), Lt(100)] = option(
        5, doc="Newton-Schulz iterations, which make it orthogonal"
    )
    adjust_lr_fn: Annotated[str, OneOf("original", "match_rms_adamw")] = option(
        "original",
        doc="factor of the rate of a matrix of A outputs and B inputs: sqrt(max(1, A/B)), or 0.2 sqrt(max(A, "
        "B)), with which AdamW's rate and weight decay can be used",
    )
    others: Annotated[OptimizerOptions, Variants("name", OTHERS)] | None = option(
        None,
        doc="optimizer (adamw, adam, sgd) of parameters without two dimensions, which Muon is not for: "
        "biases, norms, convolutions; null for adamw at the same rate",
    )

    def __post_init__(self) -> None:
        for key in ("clip_norm", "clip_value"):
            if getattr(self.others, key, None) is not None:
                text = f"clips nothing here; write {key} next to others, for all of a layer"
                raise RangeError(f"others.{key}", text)

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def of(self, parameter: nn.Parameter) -> OptimizerOptions:
        """Return these options for a matrix, the others for any other parameter."""
        return self if parameter.dim() == 2 else self.others or AdamWOptions(lr=self.lr)

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's Muon of matrices."""
        names = ("momentum", "nesterov", "weight_decay", "eps", "ns_steps", "adjust_lr_fn")
        settings = {name: getattr(self, name) for name in names}
        return eager(torch.optim.Muon)(parameters, lr=0.0, **settings)

    def with_memory(self, factor: float) -> MuonOptions:
        """Return these options with a memory ``1 / (1 - momentum)`` that is ``factor`` times as long."""
        return self if factor == 1.0 else replace(self, momentum=1.0 - (1.0 - self.momentum) / factor)
