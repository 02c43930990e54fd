"""Maps that are made of maps: one after the other, and a residual sum ``y = a(body(u) + shortcut(u))``.

A pullback goes back through the parts' own pullbacks. Each part has a *place* in its layer, by which it finds
its context and its random numbers; the inverse of a part has the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Call, Context, Kept, Map, Pullback
from dtp_dist.algorithm.plain import Residual
from dtp_dist.algorithm.transmission import REAL


class ChainPullback(Pullback):
    """``y = p_n(... p_1(x))``: a cotangent goes down through ``p_n`` first."""

    def __init__(self, parts: Sequence[Pullback], output: Tensor) -> None:
        self._parts, self.output = parts, output

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for number, part in reversed(list(enumerate(self._parts))):
            found = part.parameters(cotangent) + found
            cotangent = part.input(cotangent) if number else cotangent
        return found

    def input(self, cotangent: Tensor) -> Tensor:
        for part in reversed(self._parts):
            cotangent = part.input(cotangent)
        return cotangent


class ChainMap(Map):
    """Maps one after the other, by their places; none at all is the identity."""

    def __init__(self, parts: Mapping[str, Map]) -> None:
        super().__init__(nn.ModuleList([part.module for part in parts.values()]))
        self.parts = parts
        jumps = [part.transmission for part in parts.values() if part.transmission != REAL]
        self.transmission = jumps[0] if jumps else REAL
        self.fixed = not self.parameters() and any(part.fixed for part in parts.values())

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        for place, part in self.parts.items():
            x = part(x, call.within(place))
        return x

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Kept]:
        contexts: dict[str, Context] = {}
        outputs: dict[str, Tensor] = {}
        for place, part in self.parts.items():
            x, contexts[place] = part.with_context(x, call.within(place))
            outputs[place] = x
        return x, Kept(contexts, outputs)

    def with_places(self, x: Tensor, call: Call) -> tuple[Tensor, Kept]:
        contexts: dict[str, Context] = {}
        for place, part in self.parts.items():
            x, contexts[place] = part.with_places(x, call.within(place))
        return x, Kept(contexts)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> ChainPullback:
        """Return the pullback; with a stored ``output`` at what the parts gave in F, as far as they can."""
        stored = {} if output is None or call.context is None else call.context.outputs
        found: list[Pullback] = []
        for place, part in self.parts.items():
            found.append(part.linearize(x, call.within(place), stored.get(place)))
            x = stored.get(place, found[-1].output)
        return ChainPullback(found, x)

    def products(self) -> list[Tensor]:
        return [each for part in self.parts.values() for each in part.products()]

    def torch_modules(self) -> list[nn.Module]:
        return [module for part in self.parts.values() for module in part.torch_modules()]


class ResidualPullback(Pullback):
    """``y = a(body(u) + shortcut(u))``, ``u = phi(x)``: ``c' = c * a'(y)`` goes down both and is added up."""

    def __init__(
        self, of: ResidualMap, x: Tensor, u: Tensor, parts: Sequence[ChainPullback], output: Tensor | None
    ) -> None:
        self._of, self._parts = of, parts
        body, shortcut = (part.output for part in parts)
        z = body + shortcut
        self.output = of.activation.apply(z) if output is None else output
        self._above, self._below = of.activation.kept(z, self.output), of.before.kept(x, u)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        inner = self._of.activation.pull(cotangent, self._above)
        return [gradient for part in self._parts for gradient in part.parameters(inner)]

    def input(self, cotangent: Tensor) -> Tensor:
        inner = self._of.activation.pull(cotangent, self._above)
        body, shortcut = (part.input(inner) for part in self._parts)
        return self._of.before.pull(body + shortcut, self._below)


class ResidualMap(Map):
    """``y = a(body(u) + shortcut(u))``, ``u = phi(x)``; ``before`` is phi. The inverse has the same form."""

    def __init__(
        self, body: ChainMap, shortcut: ChainMap, activation: str = "linear", before: str = "linear"
    ) -> None:
        super().__init__(nn.ModuleDict({"body": body.module, "shortcut": shortcut.module}))
        self.chains, self.parts = (body, shortcut), {**body.parts, **shortcut.parts}
        self.activation, self.before = ACTIVATIONS[activation], ACTIVATIONS[before]
        self.transmission = body.transmission if body.transmission != REAL else shortcut.transmission
        self.fixed = not self.parameters() and (body.fixed or shortcut.fixed)

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        u = self.before.apply(x)
        body, shortcut = (chain(u, call) for chain in self.chains)
        return self.activation.apply(body + shortcut)

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Kept]:
        u = self.before.apply(x)
        (body, inner), (shortcut, beside) = (chain.with_context(u, call) for chain in self.chains)
        kept = Kept({**inner.contexts, **beside.contexts}, {**inner.outputs, **beside.outputs})
        return self.activation.apply(body + shortcut), kept

    def with_places(self, x: Tensor, call: Call) -> tuple[Tensor, Kept]:
        u = self.before.apply(x)
        (body, inner), (shortcut, beside) = (chain.with_places(u, call) for chain in self.chains)
        return self.activation.apply(body + shortcut), Kept({**inner.contexts, **beside.contexts})

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> ResidualPullback:
        u = self.before.apply(x)
        parts = [chain.linearize(u, call, output) for chain in self.chains]
        return ResidualPullback(self, x, u, parts, output)

    def products(self) -> list[Tensor]:
        return [each for chain in self.chains for each in chain.products()]

    def torch_modules(self) -> list[nn.Module]:
        body, shortcut = (chain.torch_modules() for chain in self.chains)
        beside = nn.Sequential(*shortcut) if shortcut else nn.Identity()
        last = self.activation.modules() or [nn.Identity()]
        return [*self.before.modules(), Residual(nn.Sequential(*body), beside, *last)]
