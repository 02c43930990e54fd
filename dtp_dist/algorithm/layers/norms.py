"""Normalisation: an option of layers with weights (``norm``), and layer normalisation as a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from dtp_dist.algorithm.layers.base import DERIVATIVE, MINIBATCH, LayerOptions, Shape
from dtp_dist.algorithm.layers.products import Product
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.norms.layer_norm import LayerNormMap, RescalingMap
from dtp_dist.algorithm.maps.norms.minibatch_norm import MinibatchNorm
from dtp_dist.algorithm.maps.norms.normalized import BatchNorm, LayerNorm, Norm, NormalizedMap
from dtp_dist.algorithm.options import OneOf, Positive, RangeError, option

AFTER, BEFORE = "after_activation", "before_activation"


@dataclass(frozen=True, kw_only=True)
class NormalizedOptions(LayerOptions):
    """A layer that may be normalised over the minibatch or over each example."""

    norm: Annotated[str, OneOf("none", "batch", MINIBATCH, "layer")] = option(
        "none",
        doc="normalisation over the minibatch, in evaluation by running statistics (batch) or by the "
        "minibatch's own as in training (minibatch, docs/layers.md), or over each example (layer); the "
        "statistics and the derivative are always taken at today's weights",
    )
    norm_place: Annotated[str, OneOf(AFTER, BEFORE)] = option(
        AFTER, doc="where it is normalised: after the activation, or before it (and after pooling)"
    )
    norm_affine: bool = option(
        False, doc="whether the normalisation has a learned scale and shift for each unit or channel"
    )

    def needs_several_examples(self, input_shape: Shape, *, inverse: bool) -> bool:
        places = math.prod(self.output_shape(input_shape)[1:])
        if self.norm in ("batch", MINIBATCH) and places == 1:
            return True
        return inverse and self.inverse.norm == MINIBATCH and math.prod(input_shape[1:]) == 1

    @property
    def mixes_examples(self) -> bool:
        return self.norm == MINIBATCH

    @property
    def normalizes_minibatch(self) -> bool:
        return self.norm == MINIBATCH and self.norm_place == AFTER

    def kept(self, input_shape: Shape) -> int:
        return math.prod(self.output_shape(input_shape)) if self.inverse.activation == DERIVATIVE else 0

    def check_inverse(self, activation: str) -> None:
        """Check what the inverse names, next to the layer's ``activation``.

        Raises:
            RangeError: one is not among ours, or it takes a derivative that F does not know.
        """
        self.inverse.check_names()
        self.inverse.check_derivative(activation)
        if self.inverse.activation == DERIVATIVE and self.norm != "none" and self.norm_place == AFTER:
            text = f"derivative is not allowed with norm_place {AFTER}, where the output does not show it"
            raise RangeError("inverse.activation", f"{text}; write norm_place: {BEFORE}")

    def check_norm(self, output_shape: Shape) -> None:
        """Check that there is something to normalise over, and a place for what is to be learned.

        Raises:
            RangeError: an example has a single number, or a minibatch's norm is to learn.
        """
        if self.norm == MINIBATCH and self.norm_affine:
            text = f"true is not allowed with norm: {MINIBATCH}, which learns nothing"
            raise RangeError("norm_affine", f"{text}; write false, or norm: batch")
        if self.norm == "layer":
            check_several_numbers("norm", output_shape)

    def inner_activation(self, activation: str) -> str:
        """Return the activation that comes before the normalisation, if there is one."""
        return "linear" if self.norm != "none" and self.norm_place == BEFORE else activation

    def normalized(self, inner: Map, activation: str, output_shape: Shape) -> Map:
        """Return the layer's map, given that which ends in ``inner_activation``."""
        if self.norm == "none":
            return inner
        after = activation if self.norm_place == BEFORE else "linear"
        return NormalizedMap(inner, self._norm(output_shape), after)

    def normalized_inverse(self, inner: Map) -> Map:
        """Return the inverse, normalised if it is to be, given that which ends in its activation."""
        if self.inverse.norm == "none":
            return inner
        return NormalizedMap(inner, MinibatchNorm(), module=inner.module)

    def _norm(self, output_shape: Shape) -> Norm:
        if self.norm == MINIBATCH:
            return MinibatchNorm()
        if self.norm == "layer":
            return LayerNorm(output_shape, affine=self.norm_affine)
        return BatchNorm(output_shape[0], images=len(output_shape) > 1, affine=self.norm_affine)

    def norm_parameters(self, output_shape: Shape) -> int:
        """Return the number of scales and shifts."""
        if self.norm == "none" or not self.norm_affine:
            return 0
        return 2 * (math.prod(output_shape) if self.norm == "layer" else output_shape[0])


def check_several_numbers(key: str, shape: Shape) -> None:
    """Check that an example of this shape can be normalised by itself.

    Raises:
        RangeError: it has a single number, which would always become 0.
    """
    if math.prod(shape) == 1:
        raise RangeError(key, f"a layer norm over a single number ({list(shape)}) is always 0; leave it out")


@dataclass(frozen=True, kw_only=True)
class LayerNormOptions(LayerOptions):
    """``y = w (x - mean) / deviation + b`` over all numbers of an example; the inverse puts both back.

    The inverse learns a scale and a shift of its own where f has them (``affine``), else nothing.
    """

    kind: str = option("layer_norm", doc="layer_norm")
    affine: bool = option(True, doc="whether each number has a learned scale and shift, in both maps")
    eps: Positive = option(1e-5, doc="added to the variance")

    def output_shape(self, input_shape: Shape) -> Shape:
        check_several_numbers("kind", input_shape)
        return input_shape

    def inverse_reads_forward(self, input_shape: Shape) -> bool:
        del input_shape
        return True

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        del generator
        forward = LayerNormMap(LayerNorm(input_shape, affine=self.affine, eps=self.eps))
        return forward, RescalingMap(input_shape, affine=self.affine) if inverse else None

    def products(self, input_shape: Shape) -> list[Product]:
        del input_shape
        return []

    def parameters(self, input_shape: Shape) -> int:
        return 2 * math.prod(input_shape) if self.affine else 0

    def work(self, input_shape: Shape) -> tuple[float, float]:
        del input_shape
        return 0.0, 0.0
