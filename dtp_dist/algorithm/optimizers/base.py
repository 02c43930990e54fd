"""What every optimizer has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.schedules import Number
from dtp_dist.algorithm.options import Options, Positive, option

CLIP_EPS = 1e-6  # what torch adds to a norm that it divides by


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Options):
    """What every optimizer has."""

    name: str = option(doc="which optimizer")
    lr: Number = option(doc="learning rate: a number or a schedule")
    clip_norm: Positive | None = option(
        None,
        doc="largest norm of a layer's gradient, weights and bias together: a longer one is shortened to it "
        "(torch's clip_grad_norm_ on each layer); a norm of the whole network would cross its stages; null "
        "for none",
    )
    clip_value: Positive | None = option(
        None,
        doc="largest value of any element of a gradient (torch's clip_grad_value_), taken before clip_norm; "
        "null for none",
    )

    @abstractmethod
    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return the optimizer of ``parameters``; its learning rate is set before every step."""

    @property
    def imported(self) -> bool:
        """Whether it is made of a class that an import path names, of which little is known."""
        return ":" in self.name

    def of(self, parameter: nn.Parameter) -> OptimizerOptions:
        """Return the options of a parameter's optimizer: these, unless they are for some parameters alone."""
        del parameter
        return self

    def clipped(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return a map's gradients, none of whose values, nor their common norm, is above the limits."""
        if self.clip_value is not None:
            gradients = [each.clamp(-self.clip_value, self.clip_value) for each in gradients]
        if self.clip_norm is not None:
            factor = self.clip_norm / (nn.utils.get_total_norm(gradients) + CLIP_EPS)
            gradients = [each * factor.clamp(max=1.0) for each in gradients]
        return gradients

    @property
    @abstractmethod
    def has_momentum(self) -> bool:
        """Whether a step keeps a part of the one before, and so foretells the next."""

    def with_memory(self, factor: float) -> OptimizerOptions:
        """Return these options with a first moment that averages over ``factor`` times as many gradients.

        An optimizer without such an average stays as it is: a momentum adds its steps up, so a longer one
        would also raise the rate.
        """
        del factor
        return self
