"""What TensorBoard says of a scalar under its name: its unit, and whether it is near 0 by construction."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dtp_dist.algorithm.rules import OneWaveRule
from dtp_dist.config import Config
from dtp_dist.text.measures import MEASURES, SPLITS

_QUANTITIES = {
    "forward_loss": "the rule's own loss of f",
    "inverse_loss": "the rule's own loss of g",
    "displacement": "length of the displacement over the activation's",
    "update_angle": "degrees between the rule's gradient of f and backpropagation's",
    "weight_update_angle": "the same of the weights alone, each by itself, mean over those of the layer",
    "bias_update_angle": "the same of the biases alone, each by itself, mean over those of the layer",
    "weight_update_distance": "length of F - G over that of F, of the weights: F the rule's gradient over "
    "its step, G backpropagation's",
    "bias_update_distance": "the same of the biases: length of F - G over that of F",
    "target_angle": "degrees between the displacement and the negative gradient",
    "jacobian_angle": "degrees between the Jacobian of g and the transpose of f's",
    "reconstruction_error": "length of g(f(h)) - h over that of h",
    "samples_per_second": "examples a second since the point before",
    "samples_per_second_of_epoch": "examples a second of training in the epoch",
    "samples_per_second_so_far": "examples a second of training since the start of the run",
    "idle": "share of time that stages do not compute, mean over the stages",
    "busy": "share of time that the stage computes",
    "waiting": "share of time that the stage waits for a message, or for room to send one",
    "reading": "share of time that the stage reads its minibatches, or waits for who reads them ahead",
    "sent_mb": "MB that the stage sent since the point before",
    "memory_mb": "MB of the process",
    "gpu_memory_mb": "MB of the stage's tensors on the GPU",
}
_LOSSES = {
    "cross_entropy": "cross-entropy",
    "mse": "squared error, summed over the outputs,",
    "binary_cross_entropy": "binary cross-entropy, summed over the outputs,",
}
EXACT = (
    "Near 0 by construction, which is no success of this layer: the rule takes the gradient itself to layers "
    "{first} to {last}, and no inverse comes in."
)
ALONE = "0 by construction: a single stage has nobody to wait for or to send to."


def _of_outputs(loss: str) -> Iterator[tuple[str, str]]:
    """Yield what is said of every value that the outputs are measured by, given the loss's name."""
    for split, words in SPLITS.items():
        if split != "train":
            yield f"{split}_loss", f"mean {_LOSSES[loss]} of the {words} split"
    yield "train_loss", f"mean {_LOSSES[loss]} of training since the point before"
    yield "train_loss_of_epoch", f"mean {_LOSSES[loss]} of training over the epoch"
    for name, measure in MEASURES.items():
        unit = ", percent" if measure.percent else ""
        yield f"train_{name}", f"training {measure.title} since the point before{unit}"
        yield f"train_{name}_of_epoch", f"training {measure.title} over the epoch{unit}"
        yield f"valid_{name}", f"{measure.title} on the validation split{unit}"
        yield f"test_{name}", f"{measure.title} on the test split{unit}"


def exact_layers(config: Config) -> dict[str, range]:
    """Return the layers whose angles to backpropagation are near 0 by construction, by the angle's name."""
    layers, rule = len(config.model.options), config.build_rule()
    if isinstance(rule, OneWaveRule):  # whose signals have no angle to a gradient
        return {"update_angle": rule.exact_updates(layers)}
    return {"target_angle": rule.exact(layers), "update_angle": rule.exact_updates(layers)}


class Descriptions:
    """What is said of each tag of a run."""

    def __init__(self, config: Config) -> None:
        self._exact, self._layers = exact_layers(config), len(config.model.options)
        self._alone = config.parallel.stages == 1
        self._said = {**_QUANTITIES, **dict(_of_outputs(config.model.loss))}

    def of(self, tag: str) -> str:
        """Return what a tag shows; "" where its name says it all."""
        quantity = tag.split("/")[1].removeprefix("inverse_pass_")
        said = self._said.get(quantity, "")
        layer = re.search(r"/layer (\d+)$", tag)
        update = re.fullmatch(r"(weight|bias)_update_(angle|distance)", quantity)
        exact = self._exact.get("update_angle" if update else quantity, range(0))
        if layer and int(layer[1]) in exact:
            said += f". {EXACT.format(first=exact[0], last=self._layers)}"
        if self._alone and quantity in ("waiting", "sent_mb"):
            said += f". {ALONE}"
        return said


def note_of(config: Config, angle: str = "") -> str:
    """Return what stands in a picture of all layers' angles, or of one: which are near 0 by construction."""
    angles: dict[range, list[str]] = {}
    for name, layers in exact_layers(config).items():
        if layers and angle in (name, ""):
            angles.setdefault(layers, []).append(name.removesuffix("_angle"))
    said = [f"{' and '.join(names)} of {_words(layers)}" for layers, names in angles.items()]
    return f"near 0 by construction: {', '.join(said)}" if said else ""


def _words(layers: range) -> str:
    return f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
