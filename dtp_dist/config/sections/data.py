"""The section ``data`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dtp_dist.algorithm.options import Count, OneOf, Options, Positive, Variants, Whole, option
from dtp_dist.data import CACHES, GIVEN, NORMALIZE, SOURCES


@dataclass(frozen=True, kw_only=True)
class Normalization(Options):
    """What is taken off the values of each channel, and what they are divided by."""

    mean: list[float] = option(doc="of each channel, of pixels in [0, 1]; one number is that of all")
    deviation: list[Positive] = option(doc="of each channel, of pixels in [0, 1]; one number is that of all")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """The data set and how it is cut into minibatches."""

    name: Annotated[str, OneOf(*SOURCES, GIVEN, imported=True)] = option(
        "digits", doc="the data set (docs/data.md); given: what is handed to train(config, data=...)"
    )
    root: str = option(
        "data",
        doc="folder or file that is read; data sets in torchvision's layout are fetched there if missing",
    )
    batch_size: Count = option(100, doc="examples per minibatch")
    eval_batch_size: Count = option(1000, doc="examples per minibatch in evaluation")
    shuffle: bool = option(True, doc="a new order each epoch, from (seed, epoch) alone")
    drop_last: bool = option(False, doc="leave out an epoch's last, smaller minibatch")
    normalize: Annotated[
        str | Normalization,
        Variants(None, {"numbers": Normalization}, plain=Annotated[str, OneOf(*NORMALIZE)]),
    ] = option(
        "none",
        doc="none: pixels in [0, 1]; standardize: by the training split's mean and deviation; or these "
        "themselves, {mean: [...], deviation: [...]}",
    )
    augment: list[Any] = option(
        list,
        doc="torchvision.transforms.v2 of the training examples by name, one after another, such as "
        "[{random_crop: {size: 32, padding: 4}}, random_horizontal_flip] (docs/data.md)",
    )
    train_examples: Count | None = option(None, doc="use the first examples alone; null for all")
    valid_examples: Whole | None = option(
        None, doc="examples taken off the end of the training set; null for the data set's custom"
    )
    test_examples: Count | None = option(None, doc="use the first examples alone; null for all")
    cache: Annotated[str, OneOf(*CACHES)] = option(
        "auto",
        doc="memory: decoded once into memory; none: read when needed, where files allow it; auto: in memory "
        "if all takes at most half of what is free, and 8 GiB; the bits are the same",
    )
    loaders: Whole | Literal["auto"] = option(
        "auto",
        doc="processes that read the first stage's minibatches ahead, where they are not in memory as they "
        "are needed; auto: half of the cores, 1 to 4; 0: the stage reads; the bits are the same",
    )
    verify: bool = option(
        True, doc="compare CIFAR's files with torchvision's checksums; false: take them if they are whole"
    )
    options: dict[str, Any] = option(dict, doc="the data set's own (docs/data.md), a function's arguments")
