"""Under which tags TensorBoard shows what a run measures: its page sorts their groups by name.

``learning`` comes first, then ``per_layer``, ``pipeline``, ``system`` and the histograms of ``tensors``.
Within a group all layers' (or stages') charts of one quantity are neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dtp_dist.config import Config

LEARNING, LAYERS, PIPELINE, SYSTEM, TENSORS = "learning", "per_layer", "pipeline", "system", "tensors"
_NUMBERED = re.compile(r"(layer|stage)/(\d+)/(.+)")
_SPEED = ("samples_per_second", "idle")
_EPOCH_MEANS = ("train_loss", "train_error", "samples_per_second")

Charts = dict[str, dict[str, Sequence[str | Sequence[str]]]]


def tags_of(values: Mapping[str, float], *, inverse_pass: bool = False) -> dict[str, float]:
    """Return a line's values by tag.

    A line at an epoch's end holds means over the whole epoch, which have curves of their own; so has a pass
    of inverse updates alone (``inverse_pass``), which goes over the same minibatches as the forward updates.
    """
    of_epoch = not any(_NUMBERED.fullmatch(name) for name in values)
    found = {}
    for name, value in values.items():
        tag = tag_of(name)
        if of_epoch and name in _EPOCH_MEANS:
            tag += "_of_epoch" if name.startswith("train") else "_so_far"
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


def charts(config: Config) -> Charts:
    """Return the charts of the custom-scalars page, by category: several curves in each, none empty."""
    layers = len(config.model.options)
    rule = config.rule.build(layers)
    errors = ["train_error_of_epoch", *(["valid_error"] if has_valid(config) else []), "test_error"]
    learning = {
        "error, percent": errors,
        "loss": [name.replace("error", "loss") for name in errors],
    }
    per_layer = {}
    if rule.learned_inverses():
        per_layer["inverse loss of each layer"] = "inverse_loss"
    per_layer["forward loss of each layer"] = "forward_loss"
    per_layer["displacement, length over the activation's"] = "displacement"
    if config.monitor.alignment_every:
        per_layer["update to backpropagation's, degrees"] = "update_angle"
        per_layer["target to backpropagation's, degrees"] = "target_angle"
    stages = {
        "share of time each stage computes": f"{PIPELINE}/busy/",
        "share of time each stage waits": f"{PIPELINE}/waiting/",
        "memory, MB": f"{SYSTEM}/memory_mb/",
    }
    return {
        "learning": {
            title: ["Multiline", [f"{LEARNING}/{name}$" for name in names]]
            for title, names in learning.items()
        },
        "layers": {title: ["Multiline", [f"{LAYERS}/{name}/.*"]] for title, name in per_layer.items()},
        "pipeline and system": {
            "samples a second": ["Multiline", [f"{PIPELINE}/samples_per_second$"]],
            **{title: ["Multiline", [f"{start}.*"]] for title, start in stages.items()},
        },
    }


def has_valid(config: Config) -> bool:
    """Return whether the run has a validation split."""
    return config.data.valid_examples != 0
