"""DDTP-linear against the path of the authors' code, written out with autograd, and its probe wave."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_near
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, mse_loss

from dtp_dist import load_config, train
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError, MessageError
from dtp_dist.phase import Phase, named
from dtp_dist.planning.costs import action_work, training_phases
from dtp_dist.profiling.costs import pipeline_of
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.stage.link_encoding import message_bytes
from dtp_dist.schedule import Kind
from dtp_dist.training.parts import parts
from dtp_dist.transport.messages import HEADER_BYTES, Message, MessageKind
from networks import (
    BATCH,
    build,
    conv_network,
    dense,
    image_minibatch,
    minibatch,
    noise,
    rule,
    same_bits,
    stages,
    values,
)
from runs import EVERY_KIND, read_metrics, small

SIGMA, STEP = 0.3, 0.7
DDTP = rule("ddtp_linear", target_step=STEP)


def step(parts, k: int, x: Tensor, labels: Tensor) -> None:
    """Run one minibatch alone, F up and T and U down, with what goes beside activations and signals."""
    h, probes = x, []
    for part in parts:
        h = part.forward(k, h.clone(), labels, *probes)
        probes = [each.clone() for each in part.probes(k)]
    signal, answers = None, []
    for part in reversed(parts):
        signal = part.target(k, signal, *answers)
        answers = [each.clone() for each in part.answers(k)]
        part.update(k)
    assert not answers


class Authors:
    """``DDTPMLPNetwork`` with ``size_hidden_fb=None``, tanh hidden layers and plain SGD (rates 1 and 0.1)."""

    def __init__(self, layers) -> None:
        self.depth = len(layers)
        self.forward = [[each.detach().clone() for each in layer.f.parameters()] for layer in layers]
        self.feedback = [layer.g.module.weight.detach().clone() for layer in layers[:-1]]

    def linear_activation(self, i: int, x: Tensor) -> Tensor:
        return linear(x, *self.forward[i])

    def layer(self, i: int, x: Tensor) -> Tensor:
        a = self.linear_activation(i, x)
        return torch.tanh(a) if i < self.depth - 1 else a

    def backward(self, i: int, target: Tensor, h: Tensor, output: Tensor, weight: Tensor) -> Tensor:
        return linear(target, weight) + h - linear(output, weight)

    def step(self, k: int, x: Tensor, labels: Tensor, phase: Phase = Phase.BOTH) -> dict[int, float]:
        h = [x]
        for i in range(self.depth):
            h.append(self.layer(i, h[-1]))
        output = h[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(output, labels), output)
        output_target = h[-1] - STEP * gradient
        forward, feedback, losses = [], [], {}
        for i in range(self.depth):
            if i < self.depth - 1:
                target = self.backward(i, output_target, h[i + 1], h[-1], self.feedback[i])
                teaching = 2 * (1 - h[i + 1] ** 2) * (h[i + 1] - target)
            else:
                teaching = 2 * (h[i + 1] - output_target)
            forward.append([teaching.T @ h[i] / BATCH, teaching.mean(0)])
        for i in range(self.depth - 1):
            corrupted = h[i + 1] + noise(i + 1, k, 0, h[i + 1], SIGMA, phase=phase)
            output_corrupted = corrupted
            for j in range(i + 1, self.depth):
                output_corrupted = self.layer(j, output_corrupted)
            weight = self.feedback[i].clone().requires_grad_()
            reconstructed = self.backward(i, output_corrupted, h[i + 1], h[-1], weight)
            loss = 1 / SIGMA**2 * mse_loss(reconstructed, corrupted)
            feedback.append(torch.autograd.grad(loss, weight)[0])
            losses[i + 1] = loss.item()
        if phase is not Phase.FORWARD:
            self.feedback = [a - 0.1 * b for a, b in zip(self.feedback, feedback, strict=True)]
        if phase is not Phase.INVERSE:
            self.forward = [
                [a - b for a, b in zip(old, new, strict=True)]
                for old, new in zip(self.forward, forward, strict=True)
            ]
        return losses

    def parameters(self) -> list[Tensor]:
        found = []
        for i in range(self.depth):
            found += [*self.forward[i], *self.feedback[i : i + 1]]
        return found


@pytest.mark.parametrize("split", [[4], [1, 2, 1]])
@pytest.mark.parametrize("phase", [Phase.BOTH, Phase.INVERSE, Phase.FORWARD])
def test_steps_are_those_of_the_authors_code(phase, split):
    options = dense(sigma=SIGMA)
    layers = build(options, DDTP)
    authors = Authors(layers)
    cut = stages(layers, DDTP, split)
    for part in cut:
        part.begin(phase, 0)
    before = values(layers)
    for k in range(2):
        losses = authors.step(k, *minibatch(k), phase)
        step(cut, k, *minibatch(k))
        means: dict[str, float] = {}
        for part in cut:
            means |= part.meter.take().means()
        for l, loss in losses.items() if phase is not Phase.FORWARD else ():
            assert means[f"layer/{l}/inverse_loss"] == pytest.approx(loss, rel=1e-9)
    assert len(before) == 11
    for start, found, expected in zip(before, values(layers), authors.parameters(), strict=True):
        if torch.equal(expected, start):
            assert phase is not Phase.BOTH
            assert torch.equal(found, start)
        else:
            assert_near(found - start, expected - start, 100)


def test_a_linear_network_takes_a_multiple_of_backpropagations_step():
    """With Q_l the transpose of all weights above: ``2 s / B`` of it, for the loss is squared and a mean."""
    options, found = dense(activation="linear", sigma=SIGMA, bias=False), []
    for name in ("ddtp_linear", "backprop"):
        layers = build(options, DDTP if name == "ddtp_linear" else rule(name), scrambled=False)
        if name == "ddtp_linear":
            above = torch.eye(3, dtype=torch.float64)
            for layer, upper in zip(layers[2::-1], layers[:0:-1], strict=True):
                with torch.no_grad():
                    above = above @ upper.f.module.weight
                    layer.g.module.weight.copy_(above.T)
        before = [layer.f.module.weight.detach().clone() for layer in layers]
        step(stages(layers, DDTP if name == "ddtp_linear" else rule(name)), 0, *minibatch())
        found.append(
            [layer.f.module.weight.detach() - old for layer, old in zip(layers, before, strict=True)]
        )
    for mine, theirs in zip(*found, strict=True):
        assert_near(mine, theirs * (2 * STEP / BATCH))


def test_probes_go_through_every_kind_of_map_and_change_nothing_else():
    """Images, pooled: the answer of a layer is what torch's own modules make of its noise."""
    layers = build(conv_network(sigma=SIGMA), DDTP, shape=(2, 9, 9))
    modules = [nn.Sequential(*layer.f.torch_modules()) for layer in layers]
    x, labels = image_minibatch(dtype=torch.float64)
    with torch.no_grad():
        h = [x]
        for module in modules:
            h.append(module(h[-1]))
        answers = {}
        for l in (1, 2, 4):  # flattening, layer 3, has nothing to learn
            corrupted = h[l] + noise(l, 0, 0, h[l], SIGMA)
            answers[l] = nn.Sequential(*modules[l:])(corrupted) - h[5]
    cut = stages(layers, DDTP, [1] * 5)
    going, probes = x, []
    for part in cut:
        going = part.forward(0, going, labels, *probes)
        probes = part.probes(0)
    assert_near(going, h[5])
    assert [len(each) for each in probes] == [3 * BATCH]
    below = {4: [1, 2, 4], 3: [1, 2], 2: [1, 2], 1: [1]}
    signal, received = None, []
    for number, part in reversed(list(enumerate(cut))):
        signal = part.target(0, signal, *received)
        received = part.answers(0)
        expected = [answers[l] for l in below.get(number, [])]
        assert len(received) == bool(expected)
        if expected:
            assert_near(received[0], torch.cat(expected))


def test_with_probes_the_forward_pass_and_its_statistics_are_the_same_bits():
    found = []
    for name in ("ddtp_linear", "dfa"):
        config = load_config(small(model=EVERY_KIND, rule={"name": name}))
        layers = build(
            config.model.options, config.rule, shape=(1, 8, 8), dtype=torch.float32, scrambled=False
        )
        x, labels = load_batches(config)["train"].minibatch(0, 0)
        (stage,) = stages(layers, config.rule)
        h = stage.forward(0, x, labels)
        buffers = [each.clone() for layer in layers for each in layer.f.module.buffers()]
        found.append([h, *buffers])
    assert same_bits(*found)


def test_a_run_sends_what_is_planned_and_virtual_stages_as_much(tmp_path):
    overrides = ["parallel.stages=3", "parallel.partition=[2, 2, 1]"]
    overrides += ["train.max_steps=7", "train.evaluate_every=0"]
    config = resolve(load_config(small(rule={"name": "ddtp_linear"}), overrides))
    planned = 0
    for layer in (2, 4):  # two layers a stage, the last has one
        up, down = message_bytes(config, config.build_rule(), layer, Phase.BOTH)
        assert up == HEADER_BYTES + 40 * 32 * 4 * (1 + layer) + 40 * 8
        assert down == HEADER_BYTES + 40 * 10 * 4 * (1 + layer)
        planned += up + down
    sent = {}
    for name, more in {"real": [], "virtual": ["parallel.virtual_costs=0"]}.items():
        run = load_config(
            small(rule={"name": "ddtp_linear"}), [*overrides, *more, f"run_dir={tmp_path / name}"]
        )
        sent[name] = train(run).result["messages_bytes"]
    assert sent["virtual"] == 7 * planned
    judged = [each.examples.labels for name, each in load_batches(config).items() if name != "train"]
    evaluation = sum(HEADER_BYTES + len(labels) * (32 * 4 + 8) for labels in judged)
    assert sent["real"] == 7 * planned + 2 * evaluation, "no probes where nothing learns"


def test_work_of_probes_is_in_f_and_that_of_the_inverse_in_u():
    options = dense((6, 50, 40, 30, 3))
    shapes = [(6,), (50,), (40,), (30,), (3,)]
    learned, plain = RULES["ddtp_linear"]().build(4), RULES["dfa"]().build(4)
    mine, fixed = (action_work(options, shapes, each, 20) for each in (learned, plain))
    assert mine[Kind.FORWARD] == [f * (1 + below) for below, f in enumerate(fixed[Kind.FORWARD])]
    assert mine[Kind.INVERSE] == mine[Kind.TARGET] == [0.0] * 4
    assert mine[Kind.UPDATE][3] == fixed[Kind.UPDATE][3]
    assert all(a > b for a, b in zip(mine[Kind.UPDATE][:3], fixed[Kind.UPDATE][:3], strict=True))
    alone = action_work(options, shapes, learned, 20, Phase.INVERSE)
    forward = action_work(options, shapes, learned, 20, Phase.FORWARD)
    assert forward == fixed
    assert [a + b for a, b in zip(alone[Kind.UPDATE], forward[Kind.UPDATE], strict=True)] == pytest.approx(
        mine[Kind.UPDATE]
    )
    config = load_config(small(rule={"name": "ddtp_linear", "inverse_pass": True}))
    assert training_phases(config.rule, config.build_rule()) == (Phase.INVERSE, Phase.BOTH)
    assert set(pipeline_of(config, (), measured=False).costs.phases) == {Phase.INVERSE, Phase.BOTH}


def test_a_message_has_as_many_probes_for_each_example():
    h, labels = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    Message(MessageKind.ACTIVATION, Phase.BOTH, 0, 1, 0, (h, labels, torch.randn(8, 3)))
    for wrong in (torch.randn(6, 3), torch.randn(8, 2), torch.randn(8, 3).bfloat16()):
        with pytest.raises(MessageError, match="expected numbers like it, for each example as many"):
            Message(MessageKind.ACTIVATION, Phase.BOTH, 0, 1, 0, (h, labels, wrong))


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
def test_answers_and_angles_come_down_in_one_message(tmp_path, runtime):
    overrides = ["parallel.stages=3", f"run_dir={tmp_path / 'run'}", "train.max_steps=20"]
    overrides += ["monitor.alignment_every=5", "monitor.tensorboard=false", f"parallel.runtime={runtime}"]
    train(load_config(small(rule={"name": "ddtp_linear"}), overrides))
    lines = [line for line in read_metrics(tmp_path / "run") if "layer/1/target_angle" in line]
    assert lines
    for line in lines:
        assert line["layer/5/target_angle"] < 0.1
        assert line["layer/4/inverse_loss"] > 0


# Passes in which the inverses alone learn


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("minibatch", [["inverse"] * 3 + ["both"], ["inverse", "both"], ["inverse", "both"]]),
        (
            "epoch",
            [["inverse"] * 4 + ["forward"], *[["inverse"] * 2 + ["forward"]] * 2],
        ),
    ],
)
def test_an_epoch_begins_with_its_passes_of_inverse_updates(order, expected):
    settings = {"name": "dtp", "inverse_passes_first": 3, "inverse_pass": True, "update_order": order}
    config = load_config(small(rule=settings), ["train.epochs=3"])
    found = list(parts(config, 30))
    assert [[segment.phase for segment in part.segments] for part in found] == expected
    for epoch, part in enumerate(found):
        assert [segment.repeat for segment in part.segments[:-1]] == list(range(len(part.segments) - 1))
        assert {(each.first, each.count, each.epoch) for each in part.segments} == {(30 * epoch, 30, epoch)}
    inside = list(parts(load_config(small(rule=settings), ["train.checkpoint_every=20"]), 30, 20))
    assert [segment.phase for segment in inside[0].segments] == expected[0][-1:], "they are done"


def test_each_pass_has_noise_of_its_own():
    """Two passes over a minibatch: two fresh samples, of f's own chance too."""
    assert [named(Phase.INVERSE, repeat) for repeat in (0, 1)] == ["inverse", "inverse 1"]
    found = []
    for repeats in ([0, 0], [0, 1]):
        layers = build(dense(sigma=SIGMA), rule("dtp"))
        (stage,) = stages(layers, rule("dtp"))
        for repeat in repeats:
            stage.begin(Phase.INVERSE, 0, repeat=repeat)
            stage.forward(0, *minibatch())
            stage.inverse(0)
        found.append(values(layers))
    assert not same_bits(*found)


def test_a_run_with_passes_before_it_is_the_same_however_it_is_cut(tmp_path):
    settings = {"name": "ddtp_linear", "inverse_passes_first": 2, "inverse_pass": True}
    found = []
    for stage_count in (1, 3):
        overrides = [f"parallel.stages={stage_count}", f"run_dir={tmp_path / str(stage_count)}"]
        overrides += ["train.epochs=2", "monitor.tensorboard=false"]
        found.append(train(load_config(small(rule=settings), overrides)).result)
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    assert found[0]["steps"] == 60
    without = load_config(
        small(rule={"name": "ddtp_linear"}), ["train.epochs=2", f"run_dir={tmp_path / 'without'}"]
    )
    assert train(without).result["weights_sha256"] != found[0]["weights_sha256"]


@pytest.mark.parametrize("key", ["inverse_passes_first=2", "inverse_pass=true"])
def test_passes_need_inverses_that_learn(key):
    with pytest.raises(ConfigError, match=r"not allowed with rule.name=dfa, whose inverses learn nothing"):
        load_config(small(rule={"name": "dfa"}), [f"rule.{key}"])
