"""The minibatches of a run by split, from its configuration."""

from __future__ import annotations

from math import prod

from dtp_dist.config import Config, shapes_of
from dtp_dist.data import Batches, load
from dtp_dist.errors import ConfigError


def load_batches(config: Config) -> dict[str, Batches]:
    """Return the minibatches of ``train``, ``test`` and, where there is such a split, ``valid``.

    Raises:
        DataError: the data set is missing or damaged.
        ConfigError: images do not fit ``model.input``, or classes the last layer; or a minibatch of one
            example reaches a layer that needs several.
    """
    data = config.data
    splits = load(
        data.name,
        data.root,
        train_examples=data.train_examples,
        valid_examples=data.valid_examples,
        test_examples=data.test_examples,
        normalize=data.normalize,
        **data.options,
    )
    outputs = shapes_of(config)[-1][0]
    if outputs != splits.classes:
        last = len(config.model.options)
        text = f"the last layer has {outputs} outputs, but {data.name} has {splits.classes} classes"
        raise ConfigError(f"model.layers.{last}.units: {text}; write {splits.classes}")
    shape = config.model.shape
    if prod(shape) != prod(splits.shape):
        text = f"{list(shape)} does not fit the {list(splits.shape)} images of {data.name}"
        raise ConfigError(f"model.input: {text}; write [{prod(splits.shape)}] or {list(splits.shape)}")
    found = {
        "train": Batches(
            splits.train,
            shape,
            data.batch_size,
            seed=config.seed,
            shuffle=data.shuffle,
            drop_last=data.drop_last,
        ),
        "test": Batches(splits.test, shape, data.eval_batch_size, shuffle=False),
    }
    if splits.valid is not None:
        found["valid"] = Batches(splits.valid, shape, data.eval_batch_size, shuffle=False)
    _check_several_examples(config, found["train"])
    return found


def _check_several_examples(config: Config, train: Batches) -> None:
    """Check that no minibatch holds a single example where a layer takes statistics over the minibatch."""
    needing = [index for index, each in enumerate(config.model.options, 1) if each.needs_several_examples]
    if not needing:
        return
    text = f"one example, over which layer {needing[0]} can't normalize (norm: batch)"
    if train.batch_size == 1:
        raise ConfigError(f"data.batch_size: 1 makes minibatches of {text}; write at least 2")
    if len(train.examples) - (train.count - 1) * train.batch_size == 1:
        text = f"leaves an epoch's last minibatch with {text}; write data.drop_last=true"
        raise ConfigError(f"data.batch_size: {train.batch_size} {text}")
