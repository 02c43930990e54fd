"""Layers as users write them, each with something that a checkpoint or an export could lose. Torch alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Pair = tuple[nn.Module, nn.Module]


class Tied(nn.Module):
    """One weight under two names, and one module too: ``tanh(W (W x)) + V (V x)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.third = self.fourth = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.tanh(self.second(self.first(x))) + self.fourth(self.third(x))
        return y


def tied(input_shape: list[int]) -> Pair:
    return Tied(input_shape[0]), Tied(input_shape[0])


def lazy(units: int) -> Pair:
    """Sizes from the first input, the inverse's from the forward module's output."""
    forward = nn.Sequential(nn.LazyLinear(units), nn.LazyBatchNorm1d(), nn.Tanh())
    return forward, nn.Sequential(nn.LazyLinear(64), nn.Tanh())


class Transpose(nn.Module):
    """The inverse of a linear module through the very same weight."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = of.weight, nn.Parameter(torch.zeros(of.in_features))

    def forward(self, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.weight + self.bias)


def mirrored(input_shape: list[int], units: int) -> Pair:
    """A parameter of the forward module and of the inverse."""
    linear = nn.Linear(input_shape[0], units)
    return nn.Sequential(linear, nn.Tanh()), Transpose(linear)


class Counting(nn.Module):
    """Buffers of several kinds: a count, a mask that no state dict holds; a frozen part."""

    calls: Tensor
    mask: Tensor
    shown: Tensor

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.linear, self.frozen = nn.Linear(width, units), nn.Linear(width, units)
        self.frozen.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(units, 2)[:, 0])  # not contiguous
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mask", torch.arange(units) % 3 > 0, persistent=False)
        self.register_buffer("shown", self.frozen.weight.detach().t())  # a view of a parameter

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        y = self.linear(x) * self.scale + self.frozen(x) + 0.1 * x @ self.shown
        return torch.tanh(y * self.mask + 1e-3 * self.calls)


def counting(input_shape: list[int], units: int) -> Pair:
    return Counting(input_shape[0], units), Counting(units, input_shape[0])


def random_mask(input_shape: list[int]) -> nn.Module:
    """A buffer that is drawn anew each time and that no state dict holds."""
    linear = nn.Linear(input_shape[0], 16)
    linear.register_buffer("mask", torch.rand(16), persistent=False)
    return linear


def images(channels: int) -> nn.Module:
    """One module alone, with batch normalisation over images."""
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())


def normalized(input_shape: list[int], units: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], units), nn.BatchNorm1d(units), nn.Tanh())


class Refusing(nn.Linear):
    """It takes statistics of its minibatch as ``nn.BatchNorm1d`` does, but only of what is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1 and x.any():
            raise ValueError("Expected more than 1 value per channel")
        return super().forward(x)


def refusing(input_shape: list[int]) -> nn.Module:
    return Refusing(input_shape[0], 16)


class Remembering(nn.Linear):
    """State that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        del state


def remembering(input_shape: list[int]) -> nn.Module:
    return Remembering(input_shape[0], 16)


class Called(nn.Module):
    """A parameter by a name that checkpoints use."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.buffer = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.buffer


def called(input_shape: list[int]) -> nn.Module:
    return Called(input_shape[0])


def averaged(input_shape: list[int], to: int) -> Pair:
    """Means over images, and a linear module between their channels and ``to`` units."""
    forward = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(input_shape[0], to))
    size = input_shape[1:]
    back = [nn.Linear(to, input_shape[0]), nn.Unflatten(1, (input_shape[0], 1, 1)), nn.Upsample(tuple(size))]
    return forward, nn.Sequential(*back)


def listed(body: list[int]) -> Pair:
    """Made of a list."""
    return nn.BatchNorm2d(4, eps=10.0 ** -body[0]), nn.BatchNorm2d(4)
