"""Pictures of a run: when they are due, what a checkpoint is asked, what is drawn."""

from __future__ import annotations

import pytest
import torch
from PIL import ImageColor
from torch import nn

from dtp_dist.algorithm.alignment import Passage
from dtp_dist.algorithm.maps import Call
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.checkpoint import Manifest
from dtp_dist.errors import CheckpointError
from dtp_dist.monitor import Monitor, Monitors
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.drawing import angle_bars, image_rows
from dtp_dist.monitor.pictures import Due, Pictures
from dtp_dist.monitor.probe import PHASE, passages
from dtp_dist.monitor.reconstruction import reconstructions, ridge
from dtp_dist.monitor.timeline_picture import COLOURS, timeline_picture
from dtp_dist.runtime.feed import load_batches
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Span
from networks import SEED, build, conv_network, dense, image_minibatch, minibatch, rule, stages
from runs import small_config


def test_rare_things_come_first_once_then_every_few_steps_and_at_the_end():
    due = Due(20, 95)
    assert [step for step in range(10, 100, 10) if due.at(step)] == [10, 20, 40, 60, 80]
    assert due.at(95)


def test_a_run_that_goes_back_does_again_what_was_due():
    due = Due(20, 95)
    assert [due.at(step) for step in (10, 30, 50)] == [True, True, True]
    due.go_back(30)
    assert [due.at(step) for step in (30, 35, 50)] == [False, False, True]


def test_nothing_is_due_where_it_is_turned_off():
    due = Due(0, 95)
    assert not any(due.at(step) for step in (10, 50, 95))


@pytest.mark.parametrize("name", ["dtp", "tp", "ldrl", "fw_dtp", "backprop"])
@pytest.mark.parametrize("images", [False, True])
def test_a_checkpoint_is_asked_what_a_stage_does(name, images):
    """The probe builds no stage; what goes up and down in it must be the same bits all the same."""
    options = conv_network() if images else dense()
    settings = rule(name)
    x, labels = image_minibatch() if images else minibatch(dtype=torch.float32)
    make = {"shape": (2, 9, 9)} if images else {}
    layers = build(options, settings, dtype=torch.float32, **make)
    learned = settings.build(len(layers))
    calls = [Call(Randomness(SEED, layer.index, 5, PHASE)) for layer in layers]
    found = passages(learned, layers, calls, x, labels)
    (stage,) = stages(build(options, settings, dtype=torch.float32, **make), settings)
    stage.begin(PHASE, 0)
    h = stage.forward(5, x, labels)
    stage.target(5, None)
    flight = stage._flights[5]
    assert torch.equal(found[-1].h_out, h)
    for at, activation, delta in zip(found, flight.activations, flight.displacements, strict=False):
        assert torch.equal(at.h_in, activation)
        assert torch.equal(at.delta, delta)
    assert [at.layer.index for at in found] == list(range(1, len(layers) + 1))


class Board:
    """A board that takes everything, or, like a full disk, nothing."""

    def __init__(self, full: bool = False) -> None:
        self.full, self.tags = full, []

    def picture(self, step, tag, image, description) -> None:
        if self.full:
            raise CheckpointError("events.out: can't be written (No space left on device)")
        self.tags.append((step, tag))

    def histogram(self, step, tag, values) -> None:
        self.picture(step, tag, None, "")


class Listener(Monitor):
    def __init__(self) -> None:
        self.lines: list[Line] = []

    def write(self, line: Line) -> None:
        self.lines.append(line)

    def close(self) -> None:
        pass


class Drained:
    """What a runtime is asked at a drain."""

    layout = Layout((2, 1), 1)

    def spans(self) -> list[list[Span]]:
        return [[Span("forward", 3, 10.0, 10.5)], []]


def pictures(board: Board, listener: Listener) -> Pictures:
    config = small_config("data.test_examples=20", "data.valid_examples=20")
    valid = load_batches(config)["valid"]
    return Pictures(config, valid, board, Monitors([listener]), per_epoch=30, steps=60)


def test_a_picture_that_can_not_be_drawn_is_told_and_the_run_goes_on(tmp_path):
    """The checkpoint is not there."""
    board, listener = Board(), Listener()
    made = pictures(board, listener)
    manifest = Manifest(step=30, epoch=0, phase="both", seed=0, config_sha256="", files=())
    threads = torch.get_num_threads()
    made.saved(tmp_path / "missing", manifest)
    made.drained(Drained(), 30, 0)
    assert torch.get_num_threads() == threads
    (line,) = listener.lines
    assert (line.event, line.step, line.epoch) == ("no picture", 30, 1)
    assert "layer-001.safetensors: can't be read" in line.details["message"]
    assert board.tags == [(30, "pipeline/timeline")]


def test_a_full_disk_ends_the_run_in_one_line():
    made = pictures(Board(full=True), Listener())
    with pytest.raises(CheckpointError, match="No space left on device"):
        made.drained(Drained(), 30, 0)


def test_a_ridge_regression_finds_an_affine_map():
    h = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * 5
    x = (h @ torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) + 3).reshape(200, 1, 2, 2)
    decode = ridge(h[10:], x[10:])
    assert decode(h[:10]).shape == (10, 1, 2, 2)
    assert (decode(h[:10]) - x[:10]).abs().max() < 0.05 * x.abs().max()


def orthogonal_passages(first_inverse: int) -> tuple[list[Passage], torch.Tensor]:
    """Four linear layers that only turn their input, whose inverses turn it back."""
    options = dense((6, 6, 6, 6, 6), "linear", bias=False, inverse="linear")
    layers = build(options, rule("autoencoder" if first_inverse == 1 else "dtp", output_step=0.3))
    for layer in layers:
        nn.init.orthogonal_(layer.f.module.weight)
        if layer.inverse is not None:
            layer.g.module.weight.data = layer.f.module.weight.data.T.clone()
            if layer.g.module.bias is not None:
                layer.g.module.bias.data.zero_()
    x = torch.randn(300, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    learned = rule("dtp").build(4)
    calls = [Call(Randomness(SEED, layer.index, 5, PHASE)) for layer in layers]
    return passages(learned, layers, calls, x, torch.zeros(300, dtype=torch.int64)), x


def test_perfect_inverses_rebuild_the_input():
    found, x = orthogonal_passages(1)
    rows = dict(reconstructions(found, x, 8, 9))
    assert list(rows) == ["h1", "h2", "h3"]
    for values in rows.values():
        assert values.shape == (8, 6)
        assert torch.allclose(values, x[:8], atol=1e-6)


def test_where_layer_1_has_no_inverse_the_last_step_is_a_regression():
    found, x = orthogonal_passages(2)
    rows = dict(reconstructions(found, x, 8, 9))
    assert list(rows) == ["h1", "h2", "h3"]
    for values in rows.values():
        assert (values - x[:8].float()).abs().max() < 0.1


def test_deep_networks_are_rebuilt_from_a_few_layers_the_top_among_them():
    found, x = orthogonal_passages(1)
    assert [name for name, _ in reconstructions(found, x, 8, 2)] == ["h1", "h3"]


def test_nothing_is_rebuilt_where_nothing_has_an_inverse():
    layers = build(dense(), rule("backprop"))
    calls = [Call(Randomness(SEED, layer.index, 5, PHASE)) for layer in layers]
    x, labels = minibatch()
    found = passages(rule("backprop").build(4), layers, calls, x, labels)
    assert list(reconstructions(found, x, 3, 9)) == []


def test_rows_of_images_are_named_and_large_enough_to_see():
    rows = [("input", torch.zeros(3, 1, 8, 8)), ("from h1", torch.ones(3, 1, 8, 8))]
    image = image_rows(rows)
    assert image.width > 3 * 56
    assert image.height > 2 * 56
    colours = {colour for _, colour in image.getcolors(100000)}
    assert {(0, 0, 0), (255, 255, 255)} <= colours


def test_bars_stand_at_their_layer_and_height():
    image = angle_bars({1: {"update": 180.0}, 2: {"update": 90.0}})
    tall, half = (
        sum(
            image.getpixel((x, y)) == ImageColor.getrgb("#4477aa")
            for x in range(start, start + 36)
            for y in range(44, image.height)
        )
        for start in (48, 84)
    )
    assert tall == pytest.approx(2 * half, rel=0.03)


def test_the_timeline_has_a_row_a_stage_in_the_colours_of_what_it_did():
    spans = [
        [Span("forward", 3, 10.0, 10.5), Span("wait for target", 3, 10.5, 11.0)],
        [Span("inverse", 3, 10.0, 11.0)],
    ]
    image = timeline_picture(spans, Layout((2, 1), 1))
    assert image is not None
    assert image.width <= 1280
    seen = image.crop((0, 35, image.width, image.height))
    count = {colour: number for number, colour in seen.getcolors(1000000)}
    forward, inverse, update = (
        count.get(ImageColor.getrgb(COLOURS[name]), 0) for name in ("forward", "inverse", "update")
    )
    assert inverse == pytest.approx(2 * forward, rel=0.1)
    assert update == 0


def test_the_timeline_of_nothing_is_no_picture():
    assert timeline_picture([[], []], Layout((2, 1), 1)) is None
