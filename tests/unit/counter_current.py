"""Counter-current learning as its authors' code has it, and stages of ours that do a schedule by hand."""

from collections import defaultdict, deque

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, elu, mse_loss

from dtp_dist.algorithm.layers import DenseOptions, InverseOptions
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.algorithm.rules import OneWaveRule
from dtp_dist.algorithm.rules.ccl import CCLOptions
from dtp_dist.schedule import Kind, Schedule, receives, sends
from networks import build, values

SIZES = (7, 6, 5, 6, 4, 3)
EXAMPLES, CLASSES = 12, SIZES[-1]
RATE, CLIP = 0.7, 0.05
OPTIONS = CCLOptions()
FLOW = OPTIONS.build(1).flow()
LAST = len(SIZES) - 1


def network():
    return [
        DenseOptions(
            units=units,
            activation="linear" if l == LAST else "elu",
            bias=False,
            init="uniform",
            inverse=InverseOptions(activation="elu"),
        )
        for l, units in enumerate(SIZES[1:], 1)
    ]


def layers_of(delay=0, clip: float | None = CLIP):
    sgd = SGDOptions(lr=RATE, clip_norm=clip)
    settings = {"forward": sgd, "inverse": sgd, "delay": delay, "inputs": SIZES[0], "scrambled": False}
    return build(network(), OPTIONS, **settings)


def minibatch(k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(EXAMPLES, SIZES[0], generator=generator, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (EXAMPLES,), generator=generator)


class Authors:
    """``C2Linear``, ``LinearModel_MNIST`` and ``compute_scl_loss_classification`` for any sizes.

    ``forward[l]`` and ``backward[l]`` are the linear layers of layer l, from 1. Their code clips
    gradients by one norm, and has a ``backward[1]`` whose values nothing reads; here each layer has a norm.
    """

    def __init__(self, layers) -> None:
        self.forward, self.backward = {}, {}
        for l, layer in enumerate(layers, 1):
            sizes = SIZES[l - 1 : l + 1]
            pair = [nn.Linear(*sizes, bias=False), nn.Linear(*sizes[::-1], bias=False)]
            for linear, weight in zip(pair, values([layer]), strict=False):
                linear.weight = nn.Parameter(weight.clone())
            self.forward[l], self.backward[l] = pair

    def weights(self) -> list[Tensor]:
        sides = [[self.forward[l], *([self.backward[l]] if l > 1 else [])] for l in self.forward]
        return [linear.weight.detach().clone() for pair in sides for linear in pair]

    def activate(self, l: int, x: Tensor) -> Tensor:
        y = self.forward[l](x.detach())
        return y if l == LAST else elu(y)

    def reverse(self, l: int, signal: Tensor) -> Tensor:
        return elu(self.backward[l](signal.detach()))

    @staticmethod
    def local_loss(act: Tensor, sig: Tensor, target: Tensor, scale: float = 0.5) -> Tensor:
        same = (target.unsqueeze(1) == torch.arange(CLASSES)).to(act.dtype)
        return mse_loss(act @ sig.T, same) / act.shape[1] * scale * 256

    def step(self, clip: float | None = CLIP, *, x: Tensor, target: Tensor) -> list[float]:
        """Do one minibatch as a whole; returns the losses, the output's last."""
        activations, signals = [x], [torch.eye(CLASSES, dtype=x.dtype)]
        for l in self.forward:
            activations.append(self.activate(l, activations[-1]))
        for l in range(LAST, 1, -1):
            signals.insert(0, self.reverse(l, signals[0]))
        pairs = zip(activations[1:-1], signals[:-1], strict=True)
        losses = [self.local_loss(act, sig, target) for act, sig in pairs]
        losses.append(cross_entropy(activations[-1], target))
        linears = [linear for side in (self.forward, self.backward) for linear in side.values()]
        for linear in linears:
            linear.weight.grad = None
        sum(losses).backward()
        for linear in linears:
            if linear.weight.grad is not None:
                if clip is not None:
                    nn.utils.clip_grad_norm_([linear.weight], clip)
                with torch.no_grad():
                    linear.weight -= RATE * linear.weight.grad
        return [loss.item() for loss in losses]


def run(parts, schedule: Schedule) -> list[list[Tensor]]:
    """Do a schedule's actions on stages, each as soon as its message is there; returns what each sent."""
    learned = parts[0].rule
    assert isinstance(learned, OneWaveRule)
    start = learned.first_signal(CLASSES, torch.float64, torch.device("cpu"))
    rows = [deque(row) for row in schedule.rows()]
    links, sent = defaultdict(deque), []
    for stage in parts:
        stage.begin(schedule.phase, 0)
    while any(rows):
        for number, row in enumerate(rows):
            if not row or ((inbox := receives(row[0], len(rows))) and not links[inbox]):
                continue
            action = row.popleft()
            stage, k = parts[number], action.minibatch
            got = links[inbox].popleft() if inbox else None
            if action.kind is Kind.UPDATE:
                stage.update(k)
                continue
            if action.kind is Kind.FORWARD:
                x, labels = minibatch(k)
                gives = stage.forward(k, x if got is None else got.clone(), labels)
            else:
                gives = stage.target(k, start if got is None else got.clone())
            if outbox := sends(action, len(rows)):
                links[outbox].append(gives)
                sent.append(gives)
    return sent
