"""Modules of exported networks that torch does not have.

``export`` prints their source: it needs nothing but torch.
."""

from __future__ import annotations

import torch
from torch import nn


class Standardize(nn.Module):
    """Take off the mean and divide by the deviation, both of the training images."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.mean.shape))


class Sign(nn.Module):
    """1 where the input is above 0, else -1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * (x > 0).to(x.dtype) - 1


class Sample(nn.Module):
    """1 with the input as its probability, else 0; new numbers of torch's global generator in each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.rand(x.shape, device=x.device) < x).to(x.dtype)


class MinibatchNorm(nn.Module):
    """Normalize each unit or channel over the minibatch that comes in, in evaluation too."""

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and the unbiased deviation of each unit or channel."""
        over = [0, *range(2, x.dim())]
        mean = x.mean(over, keepdim=True)
        squares = (x - mean).square().sum(over, keepdim=True)
        return mean, (squares / (x.numel() // x.shape[1] - 1)).sqrt()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, deviation = self.moments(wide)
        return ((wide - mean) / (deviation + 1e-12)).to(x.dtype)


class Residual(nn.Module):
    """``activation(body(x) + shortcut(x))``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


class Local(nn.Module):
    """A convolution with a kernel of its own at each place: ``weight[place, out, in * kernel * kernel]``."""

    def __init__(
        self,
        channels: tuple[int, int],
        image: tuple[int, int],
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.image, self.geometry = channels, image, (kernel, stride, padding)
        self.places = tuple((side + 2 * padding - kernel) // stride + 1 for side in image)
        shape = (self.places[0] * self.places[1], channels[1], channels[0] * kernel**2)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(channels[1], *self.places)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride, padding = self.geometry
        patches = nn.functional.unfold(x, kernel, padding=padding, stride=stride).permute(2, 0, 1)
        y = torch.bmm(patches, self.weight.mT).permute(1, 2, 0).reshape(len(x), -1, *self.places)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return ", ".join(map(str, (self.channels, self.image, *self.geometry, self.bias is not None)))
