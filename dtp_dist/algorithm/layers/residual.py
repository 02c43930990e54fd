"""Residual layers: ``f(x) = a(body(x) + shortcut(x))`` and an inverse of the same form (He et al. 2015).

The inverse is ``g(y) = phi(body^-(y) + shortcut^-(y))``: body^- are the inverses of the body's layers in
reverse, shortcut^- is that of the projection, or the identity. To rules it is one layer, whose inverse learns
as a whole (Ernoult et al. 2022, in their code for ImageNet 32x32).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import nn

from dtp_dist.algorithm.layers.base import DERIVATIVE, LayerOptimizers, LayerOptions, Part, Shape
from dtp_dist.algorithm.layers.conv import ConvOptions
from dtp_dist.algorithm.layers.dense import DenseOptions
from dtp_dist.algorithm.layers.products import Product
from dtp_dist.algorithm.layers.variants import AUTO, AnyLayer, LayerOrAuto
from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.residual import ChainMap, ResidualMap
from dtp_dist.algorithm.maps.sloped import SlopeKeepingMap
from dtp_dist.algorithm.options import OneOf, RangeError, option
from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.algorithm.transmission import REAL

PROJECTION = "projection"
OF_SUM = ("activation", "activation_of", "iterations", "sigma")
"""Keys of ``inverse`` that are the residual layer's own; the others are those of the layers in it."""
OF_WHOLE = ("iterations", "sigma")
"""Keys of ``inverse`` that layers inside a layer do not have: its inverse learns as a whole."""


@dataclass(frozen=True, kw_only=True)
class ResidualOptions(LayerOptions):
    """A body of layers, a shortcut around it, and an activation of the sum of both."""

    kind: str = option("residual", doc="residual")
    body: list[AnyLayer] = option(
        doc="the layers inside, first to last, of any kind; in a file with repeat, and with defaults of "
        "their own next to body"
    )
    projection: LayerOrAuto | None = option(
        AUTO,
        doc="layer on the shortcut: auto for none where the body keeps the shape, else a 1x1 convolution "
        "(flat input: a dense layer) like the body's last layer, linear and without bias; null for none; or "
        "a layer",
    )
    activation: Annotated[str, OneOf(*ACTIVATIONS)] = option("elu", doc="activation of the sum")

    def __post_init__(self) -> None:
        if not self.body:
            raise RangeError("body", "must be a list of at least one layer")
        self.inverse.check_names()
        self.inverse.check_derivative(self.activation)
        for key in _changed(self.inverse):
            if key not in OF_SUM:
                text = "is one of the layers in the body; write it there, or in defaults next to body"
                raise RangeError(f"inverse.{key}", text)
        for key, each in self.inside:
            _check_inside(key, each)

    @property
    def inside(self) -> list[tuple[str, LayerOptions]]:
        body = [(f"body.{number}", each) for number, each in enumerate(self.body, 1)]
        return [*body, (PROJECTION, self.projection)] if isinstance(self.projection, LayerOptions) else body

    def _through(self, input_shape: Shape) -> tuple[list[Part], Shape]:
        """Return the body's layers and the shape that they give in the end."""
        found = []
        for place, options in self.inside[: len(self.body)]:
            found.append(Part(place, options, input_shape))
            input_shape = found[-1].output_shape
        return found, input_shape

    def parts(self, input_shape: Shape) -> list[Part]:
        body, output_shape = self._through(input_shape)
        projection = self.projection
        if projection == AUTO and input_shape != output_shape:
            projection = self._automatic(input_shape, output_shape)
        if not isinstance(projection, LayerOptions):
            return body
        return [*body, Part(PROJECTION, projection, input_shape)]

    def output_shape(self, input_shape: Shape) -> Shape:
        parts, (_, output_shape) = self.parts(input_shape), self._through(input_shape)
        shortcut = parts[-1].output_shape if parts[-1].place == PROJECTION else input_shape
        if shortcut != output_shape:
            text = (
                f"the shortcut gives {list(shortcut)} and the body {list(output_shape)}, which can't be added"
            )
            raise RangeError(PROJECTION, f"{text}; write auto, or a layer that gives {list(output_shape)}")
        return output_shape

    def _automatic(self, input_shape: Shape, output_shape: Shape) -> LayerOptions:
        """Return the projection that leads from one shape to the other.

        Raises:
            RangeError: no 1x1 convolution and no dense layer does.
        """
        last = self.body[-1]
        linear: dict[str, Any] = {"activation": "linear", "bias": False}
        linear["inverse"] = replace(last.inverse, activation="linear")
        if len(input_shape) == len(output_shape) == 1:
            dense = last if isinstance(last, DenseOptions) else DenseOptions(units=1)
            seen: dict[str, Any] = {"noise": 0.0, "input_transmission": REAL}
            return replace(dense, units=output_shape[0], **seen, **linear)
        stride = _stride(input_shape, output_shape)
        if stride is None:
            text = f"auto has no 1x1 convolution from {list(input_shape)} to {list(output_shape)}"
            raise RangeError(PROJECTION, f"{text}; write the layer that leads there")
        conv = last if isinstance(last, ConvOptions) else ConvOptions(channels=1)
        image: dict[str, Any] = {"kernel": 1, "stride": stride, "padding": 0, "pool": "none"}
        return replace(conv, channels=output_shape[0], **image, **linear)

    def has_inverse(self, input_shape: Shape) -> bool:
        return all(part.options.has_inverse(part.input_shape) for part in self.parts(input_shape))

    def inverse_reads_forward(self, input_shape: Shape) -> bool:
        parts = self.parts(input_shape)
        inside = any(part.options.inverse_reads_forward(part.input_shape) for part in parts)
        return inside or super().inverse_reads_forward(input_shape)

    def needs_several_examples(self, input_shape: Shape, *, inverse: bool) -> bool:
        return any(
            part.options.needs_several_examples(part.input_shape, inverse=inverse)
            for part in self.parts(input_shape)
        )

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        seed = generator.initial_seed()
        made = {
            part.place: part.options.maps(part.input_shape, _generator(seed, part.place), inverse=inverse)
            for part in self.parts(input_shape)
        }
        forward = ResidualMap(*_chains({place: f for place, (f, _) in made.items()}), self.activation)
        backward = {place: g for place, (_, g) in reversed(made.items()) if g is not None}
        if not inverse or len(backward) < len(made):
            return forward, None
        own = ResidualMap(*_chains(backward), *self.inverse.activations)
        return self.inverse.paired(forward, own, self.activation)

    def products(self, input_shape: Shape) -> list[Product] | None:
        found: list[Product] = []
        for part in self.parts(input_shape):
            products = part.options.products(part.input_shape)
            if products is None:
                return None
            found += products
        return found

    def sources(self, input_shape: Shape, forward: Map) -> Mapping[nn.Module, tuple[str, str]]:
        forward = forward.inner if isinstance(forward, SlopeKeepingMap) else forward
        assert isinstance(forward, ResidualMap)
        found: dict[nn.Module, tuple[str, str]] = {}
        for part in self.parts(input_shape):
            found |= part.options.sources(part.input_shape, forward.parts[part.place])
        return found

    def kept(self, input_shape: Shape) -> int:
        parts = self.parts(input_shape)
        own = math.prod(self.output_shape(input_shape)) if self.inverse.activation == DERIVATIVE else 0
        return own + sum(math.prod(each.output_shape) + each.options.kept(each.input_shape) for each in parts)

    def parameters(self, input_shape: Shape) -> int:
        return sum(each.options.parameters(each.input_shape) for each in self.parts(input_shape))

    def work(self, input_shape: Shape) -> tuple[float, float]:
        works = [each.options.work(each.input_shape) for each in self.parts(input_shape)]
        return sum(f for f, _ in works), sum(g for _, g in works)


def _changed(options: Any) -> list[str]:
    """Return the names of the fields that are not what they are by default."""
    untouched = type(options)()
    return [name for name, value in vars(options).items() if value != getattr(untouched, name)]


def _check_inside(key: str, options: LayerOptions) -> None:
    """Check a layer inside a layer.

    Raises:
        RangeError: it has what the layer as a whole has, or is a module instance.
    """
    if options.kind == "instance":
        raise RangeError(f"{key}.kind", "a module instance can't be inside a layer; name an import path")
    if options.weights is not None:
        text = "a layer inside a layer has no file of its own; name one for the layer as a whole"
        raise RangeError(f"{key}.weights", text)
    if options.optimizer != LayerOptimizers():
        text = "a layer inside a layer has none of its own; write it in the optimizer of the layer as a whole"
        raise RangeError(f"{key}.optimizer", text)
    for name in _changed(options.inverse):
        if name in OF_WHOLE:
            text = f"the inverse learns as a whole; write it as inverse.{name} of the layer as a whole"
            raise RangeError(f"{key}.inverse.{name}", text)


def _stride(input_shape: Shape, output_shape: Shape) -> int | None:
    """Return the stride with which a 1x1 convolution makes images of one size from those of the other."""
    if len(input_shape) != 3 or len(output_shape) != 3:
        return None
    sides = list(zip(input_shape[1:], output_shape[1:], strict=True))
    fits = (n for n in range(1, max(input_shape[1:]) + 1) if all((a - 1) // n + 1 == b for a, b in sides))
    return next(fits, None)


def _generator(seed: int, place: str) -> torch.Generator:
    """Return the generator of the initial weights of a layer inside a layer: from its place alone."""
    return torch.Generator().manual_seed(derive_seed(seed, "inside", place))


def _chains(maps: dict[str, Map]) -> tuple[ChainMap, ChainMap]:
    """Return the maps of the body and of the shortcut."""
    shortcut = {place: each for place, each in maps.items() if place == PROJECTION}
    return ChainMap({place: each for place, each in maps.items() if place not in shortcut}), ChainMap(
        shortcut
    )
