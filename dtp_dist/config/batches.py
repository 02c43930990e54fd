"""The minibatches of a run by split, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from dtp_dist.algorithm.losses import Loss
from dtp_dist.config import Config, shapes_of
from dtp_dist.data import GIVEN, Batches, Given, Splits, check_options, ensure, load
from dtp_dist.data.augmentation import Augmentation
from dtp_dist.data.batches import fits, shapes_to_write
from dtp_dist.errors import ConfigError, DataError


class Data(NamedTuple):
    """The data of a run, or how they look without their contents.

    Attributes:
        splits: the examples.
        batches: the minibatches of ``train``, ``test`` and, where there is such a split, ``valid``.
        given: the data themselves, where they were handed over in Python.
    """

    splits: Splits
    batches: dict[str, Batches]
    given: Given | None = None


def check_data(config: Config) -> None:
    """Check all that ``load_batches`` checks, without loading or fetching what takes time.

    Modules and data that are handed over in Python are checked when they are.

    Raises:
        DataError, ConfigError: as ``load_batches``.
    """
    layers = config.model.options
    absent = any(layer.kind == "instance" and not hasattr(layer, "pair") for layer in layers)
    if not absent and config.data.name != GIVEN:
        load_batches(config, sketch=True)


def ensured(config: Config, given: Given | None = None) -> Data:
    """Return the data without their contents, for whoever needs their sizes alone.

    What is missing is fetched, and the files are checked, but the data take no memory.

    Raises:
        DataError, ConfigError: as ``load_batches``.
    """
    if given is None:
        ensure(config.data.name, config.data.root, verify=config.data.verify)
    splits = _splits(config, given, sketch=True)
    return Data(splits, _batches(config, splits), given)


def load_batches(config: Config, *, sketch: bool = False, given: Given | None = None) -> dict[str, Batches]:
    """Return the minibatches of ``train``, ``test`` and, where there is such a split, ``valid``.

    Args:
        config: of the run.
        sketch: whether sizes and shapes will do.
        given: the data, where they were handed over in Python.

    Raises:
        DataError: the data set is missing or damaged.
        ConfigError: examples do not fit ``model.input``, or labels the loss or the last layer; a minibatch
            of one example reaches a layer that needs several; or no validation split is there to judge by.
    """
    return _batches(config, _splits(config, given, sketch=sketch))


def _splits(config: Config, given: Given | None, *, sketch: bool) -> Splits:
    data, normalize = config.data, config.data.normalize
    if given is None:
        check_options(data.name, data.options)  # before one of them is taken for a parameter of ``load``
    return load(
        data.name,
        data.root,
        train_examples=data.train_examples,
        valid_examples=data.valid_examples,
        test_examples=data.test_examples,
        normalize=normalize if isinstance(normalize, str) else (normalize.mean, normalize.deviation),
        cache=data.cache,
        verify=data.verify,
        sketch=sketch,
        given=given,
        **data.options if given is None else {},
    )


def _batches(config: Config, splits: Splits) -> dict[str, Batches]:
    data = config.data
    check_labels(config, splits)
    shape = config.model.shape
    if not fits(splits.shape, shape):
        text = f"{list(shape)} does not fit the {list(splits.shape)} examples of {data.name}"
        raise ConfigError(f"model.input: {text}; write {shapes_to_write(splits.shape)}")
    found = {
        "train": Batches(
            splits.train,
            shape,
            data.batch_size,
            seed=config.seed,
            shuffle=data.shuffle,
            drop_last=data.drop_last,
            augmentation=Augmentation(data.augment, config.seed) if data.augment else None,
        ),
        "test": Batches(splits.test, shape, data.eval_batch_size, shuffle=False),
    }
    if splits.valid is not None:
        found["valid"] = Batches(splits.valid, shape, data.eval_batch_size, shuffle=False)
    _check_several_examples(config, found["train"])
    _check_several_in_evaluation(config, [found[name] for name in ("valid", "test") if name in found])
    _check_validation(config, found)
    return found


def _check_validation(config: Config, found: Mapping[str, Batches]) -> None:
    """Check that there are validation examples where a run is judged by them."""
    train = config.train
    judged = {"keep_best": train.keep_best, "patience": train.patience is not None}
    key = next((name for name, on in judged.items() if on), None)
    if key is not None and "valid" not in found:
        count = max(1, len(found["train"].examples) // 10)
        text = f"is by validation, and {config.data.name} has no validation split here"
        raise ConfigError(f"train.{key}: {text}; write data.valid_examples={count}")


def check_labels(config: Config, splits: Splits) -> None:
    """Check that the loss takes the labels, and that the last layer has an output for each class or number.

    Raises:
        ConfigError: they are not, or it has not.
        DataError: a label is no number that the loss takes; names its split and place.
    """
    name, loss, of = config.data.name, config.model.loss, config.build_loss()
    if splits.classes is None and of.of_numbers is None:
        text = f"{loss} takes classes, but {name} labels an example with {splits.outputs} numbers"
        raise ConfigError(f"model.loss: {text}; write mse, or binary_cross_entropy for labels of 0 and 1")
    if splits.classes is None and config.build_rule().classes_alone:
        text = f"{config.rule.name} takes classes, but {name} labels an example with {splits.outputs} numbers"
        raise ConfigError(f"rule.name: {text}; write another rule")
    outputs = shapes_of(config)[-1][0]
    if outputs != splits.outputs:
        last, kind = len(config.model.options), "classes" if splits.classes else "numbers for each example"
        text = f"the last layer has {outputs} outputs, but {name} has {splits.outputs} {kind}"
        raise ConfigError(f"model.layers.{last}.units: {text}; write {splits.outputs}")
    for split, examples in (("training", splits.train), ("validation", splits.valid), ("test", splits.test)):
        if examples is not None and splits.classes is None:
            _check_numbers(examples.labels, of, f"model.loss={loss}", f"{name}: {split} example")


def _check_numbers(labels: Tensor, loss: Loss, key: str, where: str) -> None:
    wrong = (~loss.allowed(labels)).nonzero()
    if len(wrong):
        example, column = wrong[0].tolist()
        found = f"{where} {example} is labelled {labels[example, column].item():g} (column {column})"
        raise DataError(f"{found}, but {key} takes numbers {loss.numbers}; mend it or leave it out")


def label_columns(config: Config) -> int | None:
    """Return how many numbers label an example, None where a class does, as far as can be known at once.

    Where the data can't be read they are taken to be numbers, if the loss takes any.
    """
    if config.build_loss().of_numbers is None:
        return None
    try:
        labels = load_batches(config, sketch=True)["train"].examples.labels
    except DataError:
        return shapes_of(config)[-1][0]
    return labels.shape[1] if labels.dim() > 1 else None


def _check_several_examples(config: Config, train: Batches) -> None:
    """Check that no minibatch holds a single example where a layer takes statistics over the minibatch."""
    if not _leaves_one(train, train.batch_size):
        return
    layers, shapes = config.model.options, shapes_of(config)
    inverted = config.build_rule().inverted()
    needing = [
        index
        for index, each in enumerate(layers, 1)
        if each.needs_several_examples(shapes[index - 1], inverse=index in inverted)
    ]
    if not needing:
        return
    text = f"one example, over which layer {needing[0]} can't normalize"
    if train.batch_size == 1:
        raise ConfigError(f"data.batch_size: 1 makes minibatches of {text}; write at least 2")
    text = f"leaves an epoch's last minibatch with {text}; write data.drop_last=true"
    raise ConfigError(f"data.batch_size: {train.batch_size} {text}")


def _check_several_in_evaluation(config: Config, splits: Sequence[Batches]) -> None:
    """Check the same of evaluation, where a layer takes statistics over the minibatch there too."""
    size, shapes = config.data.eval_batch_size, shapes_of(config)
    if not any(_leaves_one(each, size) for each in splits):
        return
    for index, layer in enumerate(config.model.options, 1):
        if layer.mixes_examples and layer.needs_several_examples(shapes[index - 1], inverse=False):
            most = max(len(each.examples) for each in splits)
            others = (n for n in range(2, most + 1) if not any(_leaves_one(each, n) for each in splits))
            better = min(others, key=lambda n: abs(n - size), default=None)
            how = f"write {better}" if better else "evaluate more examples"
            text = f"leaves a minibatch with one example, over which layer {index} can't normalize"
            raise ConfigError(f"data.eval_batch_size: {size} {text}; {how}")


def _leaves_one(batches: Batches, size: int) -> bool:
    """Return whether minibatches of that size, of the same examples, have one with a single example."""
    return size == 1 or (len(batches.examples) % size == 1 and not batches.drop_last)
