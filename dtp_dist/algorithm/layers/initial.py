"""Initial weights by name, and memory for them."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
ZEROS = "zeros"
INITS = ("orthogonal", "xavier_uniform", "xavier_normal", "uniform", ZEROS)


def with_memory(module: M) -> M:
    """Give memory to the parameters of a module that was made on ``meta``, so that none was drawn in vain.

    ``to_empty`` does so too, but imports sympy and more of torch's compiler for it.
    """
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(torch.empty(parameter.shape)))
    return module


def initial_weight(
    fan_out: int,
    fan_in: int,
    init: str,
    generator: torch.Generator,
    receptive: int = 1,
    scale: float | None = None,
) -> Tensor:
    """Return a weight ``[fan_out, fan_in * receptive]``, ``receptive`` the places of a convolution's kernel.

    ``xavier_uniform`` is U(-r, r), ``r = sqrt(6 / ((fan_in + fan_out) receptive))``; ``orthogonal`` is the
    orthogonal factor U V^T of that matrix's SVD (Lee et al. 2015, published code); ``xavier_normal`` has the
    uniform one's variance; ``uniform`` has ``r = scale`` or, by default, torch's own
    ``r = 1 / sqrt(fan_in receptive)``; ``zeros`` are zeros, which feedback that is not W's can start from.
    """
    weight = torch.empty(fan_out, fan_in * receptive)
    if init == ZEROS:
        return weight.zero_()
    fans = (fan_in + fan_out) * receptive
    if init == "xavier_normal":
        return weight.normal_(0.0, math.sqrt(2.0 / fans), generator=generator)
    bound = math.sqrt(6.0 / fans)
    if init == "uniform":
        bound = uniform_bound(fan_in * receptive) if scale is None else scale
    weight.uniform_(-bound, bound, generator=generator)
    if init == "orthogonal":
        u, _, vh = torch.linalg.svd(weight, full_matrices=False)
        weight = (u @ vh).contiguous()
    return weight


def initial_bias(size: int, fan_in: int, init: str, generator: torch.Generator) -> Tensor:
    """Return a bias ``[size]``: zero, or for ``uniform`` torch's own U(-r, r), ``r = 1 / sqrt(fan_in)``."""
    bias = torch.zeros(size)
    if init == "uniform":
        bound = uniform_bound(fan_in)
        bias.uniform_(-bound, bound, generator=generator)
    return bias


def uniform_bound(fan_in: int) -> float:
    """Return the bound of torch's default initial weights."""
    return 1.0 / math.sqrt(fan_in)
