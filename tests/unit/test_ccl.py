"""Counter-current learning against its authors' code, written out once more (arXiv 2409.19841)."""

from collections import defaultdict, deque

import pytest
import torch
from closeness import assert_near
from counter_current import (
    CLASSES,
    CLIP,
    EXAMPLES,
    FLOW,
    LAST,
    OPTIONS,
    RATE,
    Authors,
    layers_of,
    minibatch,
    run,
)
from torch import nn
from torch.nn.functional import cross_entropy, elu

from dtp_dist import load_config, train
from dtp_dist.algorithm.alignment import alignment
from dtp_dist.algorithm.layers import ConvOptions, DenseOptions, FlattenOptions, InverseOptions
from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.errors import ConfigError
from dtp_dist.monitor.tensorboard.probe import passages
from dtp_dist.phase import Phase
from dtp_dist.schedule import Kind, Schedule, delay, receives, sends, validate
from networks import build, same_bits, stages, values
from runs import small


@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("split", [[LAST], [1] * LAST, [2, 3], [1, 3, 1]])
def test_several_steps_are_those_of_the_authors_code(split, clip):
    layers = layers_of(clip=clip)
    authors, before = Authors(layers), values(layers)
    parts = stages(layers, OPTIONS, split)
    for k in range(4):
        run(parts, Schedule(len(split), range(k, k + 1), 1, Phase.BOTH, FLOW))
        x, target = minibatch(k)
        losses = authors.step(clip, x=x, target=target)
        means = {name: value for stage in parts for name, value in stage.meter.take().means().items()}
        assert [means[f"layer/{l}/forward_loss"] for l in range(1, LAST + 1)] == pytest.approx(losses)
        assert [means[f"layer/{l}/inverse_loss"] for l in range(2, LAST + 1)] == pytest.approx(losses[:-1])
    for found, expected, old in zip(values(layers), authors.weights(), before, strict=True):
        assert not torch.equal(found, old)
        assert_near(found - old, expected - old)


def test_clipping_shortens_gradients_here():
    layers = layers_of()
    whole = Authors(layers), Authors(layers)
    x, target = minibatch(0)
    for authors, clip in zip(whole, (CLIP, None), strict=True):
        authors.step(clip, x=x, target=target)
    for side in ("forward", "backward"):
        clipped, free = (getattr(each, side) for each in whole)
        assert any(not torch.equal(clipped[l].weight, free[l].weight) for l in free)


@pytest.mark.parametrize("split", [[1] * LAST, [2, 3], [1, 3, 1]])
def test_the_partition_does_not_change_a_bit(split):
    found = []
    for each in (split, [LAST]):
        layers = layers_of()
        run(stages(layers, OPTIONS, each), Schedule(len(each), range(5), 1, Phase.BOTH, FLOW))
        found.append(values(layers))
    assert same_bits(*found)


@pytest.mark.parametrize("in_flight", [2, 5])
def test_with_several_in_flight_losses_are_at_todays_weights_and_the_stored_messages(in_flight):
    """The authors' losses, but of what F and T left in a stage, with the maps that U finds there."""
    schedule = Schedule(LAST, range(9), in_flight, Phase.BOTH, FLOW)
    validate(schedule.rows(), schedule)
    layers = layers_of(delay=[delay(s, LAST, in_flight, FLOW) for s in range(LAST)])
    authors, before = Authors(layers), values(layers)
    run(stages(layers, OPTIONS, [1] * LAST), schedule)
    rows, links = [deque(row) for row in schedule.rows()], defaultdict(deque)
    h, c = {}, {}
    while any(rows):
        for l, row in enumerate(rows, 1):
            if not row or ((inbox := receives(row[0], LAST)) and not links[inbox]):
                continue
            kind, _, k = action = row.popleft()
            if inbox:
                links[inbox].popleft()
            if outbox := sends(action, LAST):
                links[outbox].append(None)
            if kind is Kind.FORWARD:
                h[l, k] = authors.activate(l, h[l - 1, k] if l > 1 else minibatch(k)[0]).detach()
            elif kind is Kind.TARGET:
                c.setdefault((LAST, k), torch.eye(CLASSES, dtype=torch.float64))
                if l > 1:
                    c[l - 1, k] = authors.reverse(l, c[l, k]).detach()
            else:
                x, target = minibatch(k)
                y = authors.activate(l, h[l - 1, k] if l > 1 else x)
                loss = cross_entropy(y, target) if l == LAST else authors.local_loss(y, c[l, k], target)
                learned = [(authors.forward[l], loss)]
                if l > 1:
                    signal = authors.reverse(l, c[l, k])
                    learned.append((authors.backward[l], authors.local_loss(h[l - 1, k], signal, target)))
                for linear, each in learned:
                    (gradient,) = torch.autograd.grad(each, linear.weight)
                    factor = min(1.0, CLIP / (gradient.norm().item() + 1e-6))
                    with torch.no_grad():
                        linear.weight -= RATE * factor * gradient
    for found, expected, old in zip(values(layers), authors.weights(), before, strict=True):
        assert_near(found - old, expected - old)


@pytest.mark.parametrize("phase", [Phase.INVERSE, Phase.FORWARD])
def test_a_phase_for_one_of_the_two_moves_that_alone(phase):
    layers = layers_of()
    before, whole = Authors(layers), Authors(layers)
    x, target = minibatch(0)
    whole.step(x=x, target=target)
    run(stages(layers, OPTIONS, [2, 3]), Schedule(2, range(1), 1, phase, FLOW))
    forward, backward = (whole, before) if phase is Phase.FORWARD else (before, whole)
    for l, layer in enumerate(layers, 1):
        assert_near(layer.f.module.weight, forward.forward[l].weight)
        if l > 1:
            assert_near(layer.g.module.weight, backward.backward[l].weight)


def test_pictures_compare_its_updates_with_backpropagations():
    """By autograd of the authors' losses and of the network's; of signals, nothing else is said."""
    layers = layers_of()
    authors, (x, target) = Authors(layers), minibatch(0)
    h, own = x, []
    signals = [torch.eye(CLASSES, dtype=x.dtype)]
    for l in range(LAST, 1, -1):
        signals.insert(0, authors.reverse(l, signals[0]).detach())
    for l in authors.forward:
        h = authors.activate(l, h)
        loss = cross_entropy(h, target) if l == LAST else authors.local_loss(h, signals[l - 1], target)
        own.append(torch.autograd.grad(loss, authors.forward[l].weight, retain_graph=True)[0])
    y = x
    for l, linear in authors.forward.items():
        y = linear(y) if l == LAST else elu(linear(y))
    true = torch.autograd.grad(cross_entropy(y, target), [each.weight for each in authors.forward.values()])
    calls = [Call(Randomness(0, layer.index, 0, "probe")) for layer in layers]
    learned = OPTIONS.build(LAST)
    for at in passages(learned, CROSS_ENTROPY, layers, calls, x, target):
        l = at.layer.index
        assert_near(at.delta, signals[l - 1])
        cosine = nn.functional.cosine_similarity(own[l - 1].flatten(), true[l - 1].flatten(), dim=0)
        expected = pytest.approx(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).item(), abs=1e-5)
        found = {name: value.item() for name, value in alignment(learned, at)}
        assert found == {"update_angle": expected, "weight_update_angle": expected}, "it has no biases"


def test_images_are_compared_as_rows():
    """``A.view(A.shape[0], -1)``: every channel and pixel is a unit of the layer's width."""
    layers = build(
        [
            ConvOptions(channels=3, padding=1, pool="average", inverse=InverseOptions(activation="elu")),
            ConvOptions(channels=2, padding=1, inverse=InverseOptions(activation="elu")),
            FlattenOptions(),
            DenseOptions(units=CLASSES, activation="linear", inverse=InverseOptions(activation="elu")),
        ],
        OPTIONS,
        shape=(2, 6, 6),
        forward=SGDOptions(lr=RATE),
        inverse=SGDOptions(lr=RATE),
    )
    (stage,) = stages(layers, OPTIONS)
    f = [nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)]
    g = [nn.ConvTranspose2d(2, 3, 3, padding=1), nn.Linear(CLASSES, 18)]
    own = [layers[0].f, layers[1].f, layers[1].g, layers[3].g]
    for module, map_ in zip((*f, *g), own, strict=True):
        module.double().load_state_dict(map_.module.state_dict())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, 2, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (EXAMPLES,), generator=generator)
    h1 = elu(nn.functional.avg_pool2d(f[0](x), 2))
    h2 = elu(f[1](h1.detach()))
    c2 = elu(g[1](torch.eye(CLASSES, dtype=torch.float64))).view(CLASSES, 2, 3, 3)
    c1 = elu(g[0](c2.detach()))
    pairs = [(h1, c1), (h2, c2)]
    losses = [Authors.local_loss(a.flatten(1), b.flatten(1), labels) for a, b in pairs]
    expected = torch.autograd.grad(sum(losses), [each.weight for each in (*f, *g)])
    before = [map_.module.weight.detach().clone() for map_ in own]
    stage.forward(0, x, labels)
    stage.target(0, torch.eye(CLASSES, dtype=torch.float64))
    stage.update(0)
    for map_, old, gradient in zip(own, before, expected, strict=True):
        assert_near(map_.module.weight - old, -RATE * gradient)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"layers": [{"kind": "dense", "units": 8}, {"kind": "dropout"}, {"kind": "dense", "units": 10}]},
            r"layers\.2\.kind: the inverse of layer 2 needs what F found, and T of rule\.name=ccl does not",
        ),
        (
            {
                "input": [1, 8, 8],
                "layers": [
                    {"kind": "conv", "channels": 2},
                    {"kind": "residual", "body": [{"kind": "conv", "channels": 2, "pool": "max"}]},
                    {"kind": "flatten"},
                    {"kind": "dense", "units": 10},
                ],
            },
            r"model\.layers\.2\.kind: the inverse of layer 2 needs what F found",
        ),
    ],
)
def test_inverses_that_need_what_f_found_are_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        load_config(small(rule={"name": "ccl"}, model=change | {"input": change.get("input", [64])}))


def test_what_displacements_are_measured_by_is_refused():
    with pytest.raises(ConfigError, match=r"monitor\.alignment_every: 10 is not allowed with rule\.name=ccl"):
        load_config(small(rule={"name": "ccl"}), ["monitor.alignment_every=10"])


def test_labels_that_are_numbers_are_refused(tmp_path):
    x, y = torch.randn(40, 64), torch.randn(40, 10)
    raw = small(rule={"name": "ccl"})
    raw["model"]["loss"] = "mse"
    config = load_config(raw, [f"run_dir={tmp_path}"])
    with pytest.raises(ConfigError, match=r"rule\.name: ccl takes classes, but given labels an example with"):
        train(config, data={"train": (x, y)})
