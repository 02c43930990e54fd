"""What TensorBoard says of a scalar: what is near 0 by construction is so, and nothing else is."""

from __future__ import annotations

import pytest

from dtp_dist.algorithm.alignment import alignment
from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.rules import RULES
from dtp_dist.monitor.tensorboard.descriptions import Descriptions, exact_layers, note_of
from dtp_dist.monitor.tensorboard.probe import PHASE, passages
from networks import SEED, build, dense, minibatch, rule
from runs import small_config

UPDATES = tuple(f"{of}_update_{what}" for of in ("weight", "bias") for what in ("angle", "distance"))


def angles(name: str) -> dict[str, dict[int, float]]:
    """Return what is measured in a network of five layers that has just begun to learn."""
    settings = rule(name)
    layers = build(dense((6, 9, 8, 7, 6, 5)), settings)
    x, labels = minibatch()
    learned = settings.build(len(layers))
    calls = [Call(Randomness(SEED, layer.index, 5, PHASE)) for layer in layers]
    names = ("target_angle", "update_angle", *UPDATES)
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for at in passages(learned, CROSS_ENTROPY, layers, calls, x, labels):
        for kind, value in alignment(learned, at):
            found.get(kind, {})[at.layer.index] = value.item()
    return found


@pytest.mark.parametrize("name", [name for name in RULES if name != "ccl"])  # it has no displacements
def test_what_is_near_0_by_construction_says_so_and_nothing_else_does(name):
    config = small_config(f"rule.name={name}")
    exact, said = exact_layers(config), Descriptions(config)
    for kind, values in angles(name).items():
        last_alone = name in ("autoencoder", "sdtp") and kind.endswith("distance")
        known = {5} if last_alone else {1, 2, 3, 4, 5}
        assert set(values) == known
        for layer, value in values.items():
            told = "by construction" in said.of(f"per_layer/{kind}/layer {layer}")
            due = layer in exact["update_angle" if kind in UPDATES else kind]
            limit = 1e-4 if kind.endswith("distance") else 0.01
            assert told == due == (value < limit), f"{kind} of layer {layer}: {value}"


def test_a_stale_anchor_turns_updates_away():
    config = small_config("rule.anchor=stale")
    assert exact_layers(config) == {"target_angle": range(4, 6), "update_angle": range(5, 6)}
    assert note_of(config) == "near 0 by construction: target of layers 4 to 5, update of layer 5"
    assert note_of(config, "update_angle") == "near 0 by construction: update of layer 5"


@pytest.mark.parametrize(("stages", "alone"), [(1, True), (2, False)])
def test_a_single_stage_has_nobody_to_wait_for(stages, alone):
    said = Descriptions(small_config(f"parallel.stages={stages}"))
    for quantity in ("waiting", "sent_mb", "inverse_pass_waiting"):
        assert ("by construction" in said.of(f"pipeline/{quantity}/stage 0")) == alone
    assert "by construction" not in said.of("pipeline/busy/stage 0")
    assert said.of("learning/test_error") == "error on the test split, percent"
