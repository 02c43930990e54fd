"""Pictures of a run: when they are due, what a checkpoint is asked, what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from closeness import assert_near
from PIL import ImageColor
from PIL.Image import Image
from torch import nn

from dtp_dist.algorithm.alignment import Passage
from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.charts.palette import ANGLES, COLOURS, ramp
from dtp_dist.config.batches import load_batches
from dtp_dist.data import Examples
from dtp_dist.errors import StorageError
from dtp_dist.monitor import Monitor, Monitors
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.tensorboard.curves_picture import curves_picture, fell_least
from dtp_dist.monitor.tensorboard.drawing import angle_bars, image_rows, top_of_angles
from dtp_dist.monitor.tensorboard.history import History
from dtp_dist.monitor.tensorboard.pictures import Due, Pictures
from dtp_dist.monitor.tensorboard.probe import PHASE, passages
from dtp_dist.monitor.tensorboard.reconstruction import reconstructions, ridge
from dtp_dist.monitor.tensorboard.timeline_picture import timeline_picture
from dtp_dist.runtime.layout import Layout
from dtp_dist.schedule import Activity, Phase, Span
from dtp_dist.storage.checkpoint import Manifest
from dtp_dist.training.totals import Totals
from networks import (
    SEED,
    ascended,
    build,
    conv_network,
    dense,
    descended,
    image_minibatch,
    minibatch,
    rule,
    stages,
)
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
    found = passages(learned, CROSS_ENTROPY, layers, calls, x, labels)
    parts = stages(build(options, settings, dtype=torch.float32, **make), settings, [1] * len(layers))
    for stage in parts:
        stage.begin(PHASE, 0)
    *h, outputs = ascended(parts, 5, x, labels)
    assert torch.equal(found[-1].h_out, outputs)
    for at, activation, delta in zip(found, h, descended(parts, 5, outputs, labels), strict=True):
        assert torch.equal(at.h_in, activation)
        assert torch.equal(at.delta, delta)
    assert [at.layer.index for at in found] == list(range(1, len(layers) + 1))


class Board:
    """A board that takes everything, or, like a full disk, nothing."""

    def __init__(self, full: bool = False) -> None:
        self.full, self.tags, self.history = full, [], History()

    def picture(self, step, tag, image, description) -> None:
        if self.full:
            raise StorageError("events.out: can't be written (No space left on device)")
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
        return [[Span(Activity.FORWARD, 3, 10.0, 10.5)], []]

    def examples(self, split: str, count: int) -> Examples:
        return load_batches(small_config())[split].examples.part(0, min(count, 20))

    def aside(self, purpose: str, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        then(work())


def pictures(board: Board, listener: Listener) -> Pictures:
    made = Pictures(small_config(), "valid", board, Monitors([listener]), per_epoch=30, steps=60)
    made.begin(Drained(), 0)
    return made


def test_a_picture_that_can_not_be_drawn_is_told_and_the_run_goes_on(tmp_path):
    """The checkpoint is not there."""
    board, listener = Board(), Listener()
    made = pictures(board, listener)
    manifest = Manifest(30, 0, Phase.BOTH, seed=0, config_sha256="", files=(), totals=Totals().state())
    threads = torch.get_num_threads()
    made.saved(Drained(), tmp_path / "missing", manifest)
    made.drained(Drained(), 30, 0)
    assert torch.get_num_threads() == threads
    (line,) = listener.lines
    assert (line.event, line.step, line.epoch) == ("no picture", 30, 1)
    assert "layer-001.safetensors: can't be read" in line.details["message"]
    assert board.tags == [(30, "pipeline/timeline")]


def test_a_full_disk_ends_the_run_in_one_line():
    made = pictures(Board(full=True), Listener())
    with pytest.raises(StorageError, match="No space left on device"):
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
    layers = build(options, rule("autoencoder" if first_inverse == 1 else "dtp", target_step=0.3))
    for layer in layers:
        nn.init.orthogonal_(layer.f.module.weight)
        if layer.inverse is not None:
            layer.g.module.weight.data = layer.f.module.weight.data.T.clone()
            if layer.g.module.bias is not None:
                layer.g.module.bias.data.zero_()
    x = torch.randn(300, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    learned = rule("dtp").build(4)
    calls = [Call(Randomness(SEED, layer.index, 5, PHASE)) for layer in layers]
    return passages(learned, CROSS_ENTROPY, layers, calls, x, torch.zeros(300, dtype=torch.int64)), x


def test_perfect_inverses_rebuild_the_input():
    found, x = orthogonal_passages(1)
    rows = dict(reconstructions(found, x, 8, 9))
    assert list(rows) == ["h1", "h2", "h3"]
    for values in rows.values():
        assert values.shape == (8, 6)
        assert_near(values.float(), x[:8].float())


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
    found = passages(rule("backprop").build(4), CROSS_ENTROPY, layers, calls, x, labels)
    assert list(reconstructions(found, x, 3, 9)) == []


def test_rows_of_images_are_named_and_large_enough_to_see():
    rows = [("input", torch.zeros(3, 1, 8, 8)), ("from h1", torch.ones(3, 1, 8, 8))]
    image = image_rows(rows)
    assert image.width > 3 * 56
    assert image.height > 2 * 56
    colours = {colour for _, colour in image.getcolors(100000)}
    assert {(0, 0, 0), (255, 255, 255)} <= colours


def area(image: Image, colour: str) -> int:
    """Return how many pixels have a colour."""
    return sum(number for number, each in image.getcolors(1 << 24) if each == ImageColor.getrgb(colour))


def test_bars_stand_at_their_layer_and_height():
    image = angle_bars({1: {"update": 90.0}, 2: {"update": 45.0}})
    tall, half = (
        area(image.crop((start, 44, start + 28, image.height)), ANGLES["update"]) for start in (54, 82)
    )
    assert tall == pytest.approx(2 * half, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("degrees", "top"), [((), 90), ((10.0, 90.5), 90), ((91.0, 3.0), 120), ((179.0,), 180)]
)
def test_an_axis_of_angles_ends_at_90_unless_something_is_beyond(degrees, top):
    assert top_of_angles(degrees) == top
    if degrees:
        assert area(angle_bars({1: {"update": max(degrees)}}), ANGLES["update"]) == pytest.approx(
            13 * 200 * max(degrees) / top + 13 * 13, rel=0.03
        )


def test_the_note_of_a_picture_makes_it_higher():
    values = {1: {"update": 45.0}}
    assert angle_bars(values, "near 0 by construction: update of layer 5").height > angle_bars(values).height


@pytest.mark.slow
def test_the_timeline_has_a_row_a_stage_in_the_colours_that_everything_has():
    """Stage 0 is on top, as in the report, the plan and the schedule's drawing."""
    spans = [
        [Span(Activity.FORWARD, 3, 10.0, 10.5), Span(Activity.WAIT_TARGET, 3, 10.5, 11.0)],
        [Span(Activity.INVERSE, 3, 10.0, 11.0)],
    ]
    image = timeline_picture(spans, Layout((2, 1), 1))
    assert image is not None
    assert image.width <= 1280
    rows = image.height - 30 - 2 * 64
    above, below = (image.crop((60, rows + 64 * row, 450, rows + 64 * (row + 1))) for row in (0, 1))
    forward, waiting, inverse = (
        COLOURS[each] for each in (Activity.FORWARD, Activity.WAIT_TARGET, Activity.INVERSE)
    )
    assert area(above, forward) == pytest.approx(area(above, waiting), rel=0.1)
    assert area(below, inverse) == pytest.approx(2 * area(above, forward), rel=0.1)
    assert area(above, inverse) == area(below, forward) == area(image, COLOURS[Activity.UPDATE]) == 0


@pytest.mark.slow
def test_a_picture_of_all_layers_has_a_colour_a_layer():
    curves = {layer: [(10.0, float(layer)), (20.0, layer / 2)] for layer in range(1, 21)}
    image = curves_picture("inverse_loss", {**curves, 21: [(10.0, 1.0)]})
    assert image is not None
    assert all(area(image, ramp(layer - 1, 20)) > 100 for layer in curves)
    assert curves_picture("inverse_loss", {1: [(10.0, 1.0)]}) is None
    assert curves_picture("inverse_loss", {}) is None


@pytest.mark.parametrize(
    "name", ["inverse_loss", "forward_loss", "displacement", "update_angle", "target_angle"]
)
@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, 0.0), (1e-300, 1e90), (91.0, 0.0), (3.0, 3.0)])
def test_whatever_is_measured_there_is_a_picture(name, values):
    assert curves_picture(name, {1: [(10.0, values[0]), (20.0, values[1])]}, "a note") is not None


def test_the_layer_that_does_not_learn_is_named():
    curves = {2: [(1.0, 10.0), (9.0, 1.0)], 3: [(1.0, 2.0), (9.0, 1.95)], 4: [(1.0, 0.0), (9.0, 5.0)]}
    assert fell_least(curves) == "layer 3 fell least: to 97.5 % of its first"
    assert fell_least({4: [(1.0, 0.0), (9.0, 5.0)]}) == ""


@pytest.mark.parametrize(
    "image",
    [
        angle_bars({1: {"update": 45.0}}),
        timeline_picture([[Span(Activity.FORWARD, 3, 10.0, 10.5)]], Layout((3,), 1)),
        curves_picture("displacement", {1: [(1.0, 2.0), (9.0, 1.0)]}),
        image_rows([("input", torch.zeros(3, 1, 8, 8))]),
    ],
)
def test_pictures_are_read_on_a_dark_page(image):
    """Their ground is opaque and light, and what is written on it is dark."""
    assert image.mode == "RGB"
    assert image.getpixel((2, 2)) == (255, 255, 255)
    darkest = min(image.convert("L").get_flattened_data())
    assert darkest < 60


def test_the_timeline_of_nothing_is_no_picture():
    assert timeline_picture([[], []], Layout((2, 1), 1)) is None
