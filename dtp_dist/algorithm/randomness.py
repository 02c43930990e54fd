"""Every random number of a run, derived from what it is for and never from a global stream.

A key is SHA-256 over (seed, layer, minibatch, phase, purpose, iteration), cut to 64 bits, so what a
number is depends on its name alone: not on the partition, the runtime, the timing or a restart. Layers inside
a layer have the name of their place in their keys as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Return the 64-bit seed that belongs to a tuple of names and numbers.

    torch's CPU generators use the lower 32 bits of a seed alone; its CUDA ones use all.
    ``derive_seed(1, "a")`` and ``derive_seed("1", "a")`` differ, but what Python calls the type of a word or
    of a number does not count: a member of an enumeration of words is its word. Python's salted ``hash`` is
    not used.

    Raises:
        TypeError: a part is neither a whole number nor a word.
    """
    text = "\x1f".join(_written(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _written(part: int | str) -> str:
    """Return a part with its kind; whatever a class of its own makes of itself as text is left aside."""
    if isinstance(part, str):
        return f"str:{str.__str__(part)}"
    if isinstance(part, int):
        return f"int:{int.__repr__(part)}"
    raise TypeError(f"a seed is made of whole numbers and words, not of {part!r}")


@dataclass(frozen=True, slots=True)
class Randomness:
    """The random numbers of one layer in one minibatch of one phase (design, section 2).

    ``part`` is the place of a layer inside the layer, "body.2"; "" is the layer itself.
    """

    seed: int
    layer: int
    minibatch: int
    phase: str
    part: str = ""

    def within(self, place: str) -> Randomness:
        """Return the random numbers of the layer at ``place`` inside this one."""
        return replace(self, part=f"{self.part}.{place}" if self.part else place)

    def key(self, purpose: str, iteration: int = 0) -> int:
        """Return the 64-bit seed for one ``purpose`` ("noise", "forward", ...) and iteration."""
        place = (self.part,) if self.part else ()
        return derive_seed(self.seed, self.layer, self.minibatch, self.phase, purpose, iteration, *place)

    def generator(self, purpose: str, iteration: int, device: torch.device) -> torch.Generator:
        """Return a generator on ``device``, seeded with the key of ``purpose`` and ``iteration``."""
        return torch.Generator(device=device).manual_seed(self.key(purpose, iteration))

    def normal(self, like: Tensor, sigma: float, purpose: str, iteration: int = 0) -> Tensor:
        """Return N(0, sigma^2) noise of the shape, type and device of ``like``."""
        generator = self.generator(purpose, iteration, like.device)
        return torch.empty_like(like).normal_(0.0, sigma, generator=generator)
