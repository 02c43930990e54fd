"""Under which tags TensorBoard shows what a run measures: its page sorts their groups by name.

``learning`` comes first, then ``per_layer``, ``pipeline``, ``system`` and the histograms of ``tensors``.
Within a group all layers' (or stages') charts of one quantity are neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dtp_dist.algorithm.losses.metrics import Metrics
from dtp_dist.config import Config
from dtp_dist.text.measures import MEASURES

LEARNING, LAYERS, PIPELINE, SYSTEM, TENSORS = "learning", "per_layer", "pipeline", "system", "tensors"
_NUMBERED = re.compile(r"(layer|stage)/(\d+)/(.+)")
_SPEED = ("samples_per_second", "samples_per_second_of_epoch", "samples_per_second_so_far", "idle")

Charts = dict[str, dict[str, list[str]]]
"""Regular expressions of the tags whose curves are in a chart, by category and title."""


def tags_of(values: Mapping[str, float], *, inverse_pass: bool = False) -> dict[str, float]:
    """Return a line's values by tag.

    A pass of inverse updates alone (``inverse_pass``) goes over the same minibatches as the forward updates,
    and has curves of its own for speed and memory.
    """
    found = {}
    for name, value in values.items():
        tag = tag_of(name)
        if inverse_pass and tag.startswith((PIPELINE, SYSTEM)):
            group, _, rest = tag.partition("/")
            tag = f"{group}/inverse_pass_{rest}"
        found[tag] = value
    return found


def tag_of(name: str) -> str:
    """Return the tag of a value of ``metrics.jsonl``: ``layer/2/inverse_loss`` is in ``per_layer``."""
    numbered = _NUMBERED.fullmatch(name)
    if numbered:
        kind, number, quantity = numbered.groups()
        group = LAYERS if kind == "layer" else SYSTEM if quantity.endswith("memory_mb") else PIPELINE
        return f"{group}/{quantity}/{kind} {number}"
    if name.startswith("driver/"):
        return f"{SYSTEM}/{name.removeprefix('driver/')}/driver"
    return f"{PIPELINE if name in _SPEED else LEARNING}/{name}"


def learning_charts(config: Config, metrics: Metrics) -> dict[str, list[str]]:
    """Return what is drawn of the outputs, by title: the values of training, validation and test together."""
    found = {}
    for name in (*metrics.names, *metrics.of_split, "loss"):
        training = [] if name in metrics.of_split else [f"train_{name}_of_epoch"]
        measure = MEASURES.get(name)
        title = name if measure is None else f"{measure.title}{', percent' if measure.percent else ''}"
        found[title] = [*training, *([f"valid_{name}"] if has_valid(config) else []), f"test_{name}"]
    return found


def charts(config: Config, metrics: Metrics) -> Charts:
    """Return the charts of the custom-scalars page, by category: several curves in each, none empty."""
    rule = config.build_rule()
    per_layer = {}
    if rule.learned_inverses():
        per_layer["inverse loss of each layer"] = "inverse_loss"
    per_layer["forward loss of each layer"] = "forward_loss"
    per_layer["displacement, length over the activation's"] = "displacement"
    if config.monitor.alignment_every:
        per_layer["update to backpropagation's, degrees"] = "update_angle"
        for kind, words in (("weight", "weights"), ("bias", "biases")):
            per_layer[f"update of {words} to backpropagation's, degrees"] = f"{kind}_update_angle"
            per_layer[f"update of {words}, distance from backpropagation's"] = f"{kind}_update_distance"
        per_layer["target to backpropagation's, degrees"] = "target_angle"
    stages = {
        "share of time each stage computes": f"{PIPELINE}/busy/",
        "share of time each stage waits": f"{PIPELINE}/waiting/",
        "memory, MB": f"{SYSTEM}/memory_mb/",
    }
    return {
        "learning": {
            title: [f"{LEARNING}/{name}$" for name in names]
            for title, names in learning_charts(config, metrics).items()
        },
        "layers": {title: [f"{LAYERS}/{name}/.*"] for title, name in per_layer.items()},
        "pipeline and system": {
            "samples a second": [f"{PIPELINE}/samples_per_second$"],
            **{title: [f"{start}.*"] for title, start in stages.items()},
        },
    }


def has_valid(config: Config) -> bool:
    """Return whether the run has a validation split."""
    return config.data.valid_examples != 0
