"""Checks across sections: whether the parts of a configuration fit one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dtp_dist.algorithm.build import layer_maps, layer_shapes, weights_generator
from dtp_dist.algorithm.layers.base import LayerOptions, Shape, all_layers
from dtp_dist.algorithm.layers.initial import ZEROS
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.feedback import Feedback
from dtp_dist.algorithm.optimizers.kinds import ImportedOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.rules import Rule
from dtp_dist.config.parse import range_error, unknown_key
from dtp_dist.config.schema import Config
from dtp_dist.config.sections.parallel import ParallelConfig
from dtp_dist.errors import ConfigError
from dtp_dist.schedule import Kind

CLASS_BYTES, NUMBER_BYTES = 8, 4  # of labels: int64 and float32


def shapes_of(config: Config) -> list[Shape]:
    """Return the shapes of h_0 .. h_L, one example each.

    Raises:
        ConfigError: a layer does not fit the one below it.
    """
    try:
        return layer_shapes(config.model.shape, config.model.options)
    except RangeError as error:
        raise range_error("model.layers", error) from None


def label_bytes(columns: int | None) -> int:
    """Return the bytes of an example's labels: a class, or ``columns`` numbers."""
    return CLASS_BYTES if columns is None else NUMBER_BYTES * columns


def most_label_bytes(config: Config) -> int:
    """Return the bytes that an example's labels may have, whatever the data: one number for each output."""
    outputs = None if config.build_loss().of_numbers is None else shapes_of(config)[-1][0]
    return max(label_bytes(None), label_bytes(outputs))


def check(config: Config) -> None:
    """Check what no section can check alone.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    layers = len(config.model.options)
    parallel = config.parallel
    if layers < 2:
        raise ConfigError(
            "model.layers: one layer is not enough; write at least two, the last for the outputs"
        )
    if parallel.stages != "auto" and parallel.stages > layers:
        text = f"{parallel.stages} is not allowed; it must be at most {layers}, the number of layers"
        raise ConfigError(f"parallel.stages: {text}")
    if parallel.partition is not None:
        _check_partition(parallel.partition, parallel.stages, layers)
    _check_virtual_costs(parallel)
    _check_weights(config)
    instances = [i for i, layer in enumerate(config.model.options, 1) if layer.kind == "instance"]
    if instances and parallel.runtime != "inprocess":
        text = f"layer {instances[0]} is a module instance, which only parallel.runtime=inprocess can run"
        raise ConfigError(f"model.layers.{instances[0]}.kind: {text}; name an import path for other runtimes")
    if not instances or all(hasattr(config.model.options[i - 1], "pair") for i in instances):
        _check_network(config)


def _check_partition(partition: list[int], stages: object, layers: int) -> None:
    if sum(partition) != layers:
        text = f"{partition} holds {sum(partition)} layers, but the model has {layers}"
        raise ConfigError(f"parallel.partition: {text}")
    if stages not in ("auto", len(partition)):
        text = f"{partition} has {len(partition)} stages, but parallel.stages is {stages}"
        raise ConfigError(f"parallel.partition: {text}")


def _check_virtual_costs(parallel: ParallelConfig) -> None:
    costs, stages = parallel.virtual_costs, parallel.stages
    stages = len(parallel.partition) if parallel.partition else stages
    if isinstance(costs, list) and len(costs) != stages:
        text = f"has costs of {len(costs)} stages, but parallel.stages is {stages}"
        raise ConfigError(f"parallel.virtual_costs: {text}; write one entry for each stage")
    kinds = [kind.value for kind in Kind]
    for each in costs if isinstance(costs, list) else [costs]:
        for name in each if isinstance(each, dict) else ():
            if name not in kinds:
                raise unknown_key(f"parallel.virtual_costs.{name}", kinds)


def _check_weights(config: Config) -> None:
    weights, layers = config.model.weights, len(config.model.options)
    if weights.layers is not None and weights.file is None:
        raise ConfigError("model.weights.layers: is of a file; write model.weights.file as well")
    for number in weights.layers or ():
        if number > layers:
            text = f"{number} is no layer; they are counted from 1 to {layers}"
            raise ConfigError(f"model.weights.layers: {text}")


def _check_network(config: Config) -> None:
    shapes = shapes_of(config)
    try:
        rule = config.build_rule()
    except RangeError as error:
        raise range_error("rule", error) from None
    if len(shapes[-1]) != 1:
        text = f"gives {list(shapes[-1])}, but the last layer must give a row of outputs, one per class"
        raise ConfigError(f"model.layers.{len(shapes) - 1}: {text}")
    _check_inverses(config, shapes, rule)
    _check_passes(config, rule)
    if not rule.flow().target_reads_forward:
        _check_one_wave(config, shapes, rule.inverses())
    _check_minibatch_norms(config, rule)
    _check_optimizers(config, shapes, rule)
    _check_learning(config, shapes, rule)


def _check_inverses(config: Config, shapes: list[Shape], rule: Rule) -> None:
    """Check that every layer has what the rule wants in the place of its inverse."""
    lacks, layers = _LACKS[rule.feedback], config.model.options
    for index in rule.inverses():
        inside = rule.feedback is not Feedback.DIRECT
        _check_initial(layers[index - 1], shapes[index - 1], f"{index}", inside=inside)
        place = _lacking(layers[index - 1], shapes[index - 1], f"{index}", lacks)
        if place is not None and rule.feedback is Feedback.INVERSE:
            text = f"rule.name={config.rule.name} needs an inverse of layer {index}, which has none"
            how = "return (forward, inverse) from its function, or write inverse: auto"
            raise ConfigError(f"model.layers.{place}.kind: {text}; {how} for a small one")
        if place is not None:
            text = f"rule.name={config.rule.name} has weights of its own for the products in layer {index}"
            how = "which are not known of a module of yours; write layers of other kinds"
            raise ConfigError(f"model.layers.{place}.kind: {text}, {how}")


def _check_passes(config: Config, rule: Rule) -> None:
    """Check that passes of inverse updates have something to update."""
    for key in ("inverse_passes_first", "inverse_pass"):
        value = getattr(config.rule, key)
        if value and not rule.learned_inverses():
            text = f"{value} is not allowed with rule.name={config.rule.name}, whose inverses learn nothing"
            raise ConfigError(f"rule.{key}: {text}; leave it out")


def _check_one_wave(config: Config, shapes: Sequence[Shape], inverses: range) -> None:
    """Check that no inverse, and nothing that is measured in T, needs what F found."""
    name = f"rule.name={config.rule.name}"
    for index in inverses:
        options = config.model.options[index - 1]
        if options.inverse_reads_forward(shapes[index - 1]):
            text = f"the inverse of layer {index} needs what F found, and T of {name} does not wait for F"
            how = "leave dropout and layer norms out, pool averages, and take no derivative"
            raise ConfigError(f"model.layers.{index}.kind: {text}; {how}")
    if config.monitor.alignment_every:
        text = f"{config.monitor.alignment_every} is not allowed with {name}, which sends no displacements"
        raise ConfigError(f"monitor.alignment_every: {text}; write 0")


def _check_minibatch_norms(config: Config, rule: Rule) -> None:
    """Check that norms over the minibatch are where the rule must have them, and not where it can't."""
    layers = config.model.options
    for index, options in enumerate(layers[:-1], 1):
        if rule.normalizes_targets and not options.normalizes_minibatch:
            text = f"true needs outputs that are normalized over the minibatch, and layer {index}'s are not"
            raise ConfigError(f"rule.normalize_targets: {text}; write norm: minibatch, after the activation")
    for index in rule.inverses() if rule.joins_minibatches else ():
        if any(each.inverse.norm != "none" for each in all_layers([layers[index - 1]])):
            text = (
                f"is not allowed with rule.name={config.rule.name}: its loss takes three minibatches as one"
            )
            raise ConfigError(f"model.layers.{index}.inverse.norm: {text}; write none")


def _check_initial(options: LayerOptions, shape: Shape, place: str, *, inside: bool) -> None:
    """Check that no inverse of a layer, nor one ``inside`` it, starts with a layer's zeros."""
    if getattr(options, "init", None) == ZEROS and options.inverse.init is None:
        text = "null means the layer's own, zeros, and an inverse of zeros leads nowhere; write e.g. uniform"
        raise ConfigError(f"model.layers.{place}.inverse.init: {text}")
    for part in options.parts(shape) if inside else ():
        _check_initial(part.options, part.input_shape, f"{place}.{part.place}", inside=True)


_LACKS: dict[Feedback, Callable[[LayerOptions, Shape], bool]] = {
    Feedback.INVERSE: lambda options, shape: not options.has_inverse(shape),
    Feedback.WEIGHTS: lambda options, shape: options.products(shape) is None,
    Feedback.DIRECT: lambda options, shape: False,
}
"""Whether a layer lacks what stands in the place of an inverse."""


def _lacking(
    options: LayerOptions, shape: Shape, place: str, lacks: Callable[[LayerOptions, Shape], bool]
) -> str | None:
    """Return the place of a layer that lacks something, or of the first such layer inside it, else None."""
    if not lacks(options, shape):
        return None
    inside = (
        _lacking(part.options, part.input_shape, f"{place}.{part.place}", lacks)
        for part in options.parts(shape)
    )
    return next(filter(None, inside), place)


def _check_optimizers(config: Config, shapes: list[Shape], rule: Rule) -> None:
    """Check that an imported optimizer which does not take every shape takes those of its layers."""
    for index, options in enumerate(config.model.options, 1):
        pair = options.optimizer.over(config.optimizer.pair)
        if all(not isinstance(each, ImportedOptions) or each.takes_any_shape for each in pair):
            continue
        generator = weights_generator(config.seed, index)
        maps = layer_maps(options, index, shapes, rule, generator)
        maps = maps if index in rule.learned_inverses() else (maps[0], None)
        for side, map_, optimizer in zip(("forward", "inverse"), maps, pair, strict=True):
            if map_ is not None and isinstance(optimizer, ImportedOptions) and not optimizer.takes_any_shape:
                _check_shapes(f"optimizer.{side}", index, map_, optimizer)


def _check_learning(config: Config, shapes: list[Shape], rule: Rule) -> None:
    """Check that the rule can teach the inverses as they are."""
    for index in rule.learned_inverses():
        options = config.model.options[index - 1]
        if options.inverse.iterations == "auto" and not rule.measures_inverses:
            text = (
                f"auto needs a rule that measures its inverses; rule.name={config.rule.name} does not measure"
            )
            raise ConfigError(f"model.layers.{index}.inverse.iterations: {text} them; write a number")
        if rule.asks_of_inverses:
            generator = weights_generator(config.seed, index)
            f, g = layer_maps(options, index, shapes, rule, generator)
            try:
                if g is not None:
                    rule.check_inverse(index, f, g, options.optimizer.over(config.optimizer.pair)[1])
            except RangeError as error:
                raise range_error("rule", error) from None


def _check_shapes(key: str, index: int, map_: Map, optimizer: ImportedOptions) -> None:
    for name, parameter in map_.module.named_parameters():
        try:
            optimizer.try_shape(tuple(parameter.shape))
        except RangeError as error:
            text = f"can't move {name} of layer {index}, {list(parameter.shape)}: {error}"
            advice = f"give the layer another one (model.layers.{index}.{key})"
            advice += ", or write name: muon, which moves others by AdamW" if "Muon" in optimizer.name else ""
            raise ConfigError(f"{key}.name: {text}; {advice}") from None
