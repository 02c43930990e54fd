"""The data sets by name, and how their splits are cut.

Adding one is a file in ``sets/`` with its ``Source``, and its line in SOURCES. Nothing here depends on a
run's seed: a data set is the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtp_dist.algorithm.options import OneOf
from dtp_dist.data.examples import Pool, Splits
from dtp_dist.data.sets.arrays import ARRAYS
from dtp_dist.data.sets.cifar import CIFAR10, CIFAR100
from dtp_dist.data.sets.digits import DIGITS
from dtp_dist.data.sets.function import function_source, given_source
from dtp_dist.data.sets.image_folder import IMAGE_FOLDER
from dtp_dist.data.sets.mnist import FASHION_MNIST, MNIST
from dtp_dist.data.sets.synthetic import SYNTHETIC
from dtp_dist.data.sets.table import TABLE
from dtp_dist.data.source import NORMALIZE, Place, Source
from dtp_dist.errors import ConfigError, DataError
from dtp_dist.system.paths import expanded

SOURCES: Mapping[str, Source] = {
    "digits": DIGITS,
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "synthetic": SYNTHETIC,
    "image_folder": IMAGE_FOLDER,
    "arrays": ARRAYS,
    "table": TABLE,
}

Given = Mapping[str, Any]
"""Data that are handed over in Python: ``train`` and, optionally, ``valid``, ``test`` and ``classes``."""

Moments = tuple[Sequence[float], Sequence[float]]
"""Mean and deviation of each channel, of the values as the network would see them otherwise."""

GIVEN = "given"
"""The name of data that are handed over in Python."""


def ensure(name: str, root: str | Path, *, verify: bool = True) -> None:
    """Fetch into ``root`` what is missing of a data set, and check its files; nothing is kept in memory.

    Raises DataError if files are missing and can't be fetched, or are damaged.
    """
    source = source_of(name)
    if source.ensure is not None:
        source.ensure(_place(root, verify=verify))


def load(
    name: str,
    root: str | Path,
    *,
    train_examples: int | None = None,
    valid_examples: int | None = None,
    test_examples: int | None = None,
    normalize: str | Moments = "none",
    cache: str = "auto",
    verify: bool = True,
    sketch: bool = False,
    given: Given | None = None,
    **options: Any,
) -> Splits:
    """Return the splits of the data set ``name`` (a key of SOURCES), read from or fetched into ``root``.

    Validation is the last ``valid_examples`` of the training examples (None: the data set's custom; 0: no
    such split), or the first ones of a validation split that the data set has itself (None: all); training
    is the first ``train_examples`` of the others and test the first ``test_examples`` (None: all).
    ``normalize="standardize"`` takes off the mean of each channel and divides by its deviation, both of the
    training split; "none" leaves pixels in [0, 1]; a pair is mean and deviation themselves. ``cache`` and
    ``verify`` are as in ``Place``. ``sketch`` is for checks: the right shapes and sizes without the contents,
    nothing is fetched, and no more is read than shows that no channel is constant where they are to be
    standardized. ``given`` are data that were handed over in Python (``given_source``), for the name GIVEN.
    ``options`` belong to the source, as ``examples``, ``shape`` and ``classes`` do to "synthetic".

    Raises ConfigError for an unknown name, option or value; DataError if files are missing and can't be
    fetched, are damaged, or hold fewer examples than asked for.
    """
    source = source_of(name) if given is None else given_source(given)
    if isinstance(normalize, str) and normalize not in NORMALIZE:
        raise ConfigError(f"data.normalize={normalize}: must be none or standardize")
    source.check(name, options)
    place = _place(root, cache, verify=verify)
    inspected = sketch and normalize == "standardize" and source.unknown(place)
    if inspected:  # row by row, where the source can
        place = replace(place, cache="none")
    pool = (source.sketch if source.sketch and sketch and not inspected else source.load)(place, **options)
    splits = _cut(name, pool, train_examples, valid_examples, test_examples)
    if inspected:
        splits.train.check_varies()
        return _hollow(splits)
    if isinstance(normalize, str):
        wanted = normalize == "standardize" and not sketch
        return _standardized(splits, splits.train.statistics()) if wanted else splits
    return _standardized(splits, _moments(normalize, splits.shape))


def _place(root: str | Path, cache: str = "auto", *, verify: bool) -> Place:
    return Place(Path(expanded("data.root", root)).resolve(), cache, verify)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check that a source has all of the ``options``.

    Raises:
        ConfigError: it has not.
    """
    source_of(name).check(name, options)


def source_of(name: str) -> Source:
    """Return the data set of a name, or behind an import path.

    Raises:
        ConfigError: there is none; or its function can't be imported.
    """
    if ":" in name:
        return function_source(name)
    if name == GIVEN:
        text = f"data.name={GIVEN}: such data are handed over in Python: train(config, data=...), or resume"
        raise ConfigError(f"{text}; without Python, name a function: data.name=package.module:function")
    if name not in SOURCES:
        raise ConfigError(f"data.name={name}: must be one of {', '.join(SOURCES)}, {OneOf.IMPORTED}")
    return SOURCES[name]


def _cut(name: str, pool: Pool, train: int | None, valid: int | None, test: int | None) -> Splits:
    total, own = len(pool.training), pool.valid
    if own is None:
        valid = _size(name, "valid_examples", valid, pool.valid_examples, least=0, most=total - 1)
        own, rest = pool.training.part(total - valid, total), total - valid
    else:
        valid = _size(name, "valid_examples", valid, len(own), least=0, most=len(own))
        own, rest = own.part(0, valid), total
    train = _size(name, "train_examples", train, rest, least=1, most=rest)
    test = _size(name, "test_examples", test, len(pool.test), least=1, most=len(pool.test))
    return Splits(
        train=pool.training.part(0, train),
        valid=own if valid else None,
        test=pool.test.part(0, test),
        classes=pool.classes,
        shape=pool.training.shape,
        names=pool.names,
        fingerprint=pool.fingerprint,
        notes=pool.notes,
    )


def _size(name: str, key: str, asked: int | None, usual: int, *, least: int, most: int) -> int:
    """Return ``asked``, or ``usual`` for None, if it is from ``least`` to ``most``."""
    size = usual if asked is None else asked
    if size < least:
        raise ConfigError(f"data.{key}={size}: must be at least {least}")
    if size > most:
        raise DataError(f"data.{key}={size}: {name} has no more than {most} for that split")
    return size


def _hollow(splits: Splits) -> Splits:
    """Return the same sizes without the contents."""
    return replace(
        splits,
        train=splits.train.hollow(),
        valid=splits.valid.hollow() if splits.valid else None,
        test=splits.test.hollow(),
    )


def _moments(given: Moments, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return given mean and deviation, float32 [C]; one number is that of every channel.

    Raises:
        ConfigError: there are neither one nor as many as channels.
    """
    found = []
    for name, numbers in zip(("mean", "deviation"), given, strict=True):
        if len(numbers) not in (1, shape[0]):
            text = f"{list(numbers)} are {len(numbers)} numbers, but the examples of {list(shape)} have"
            what = f"{shape[0]} {'channels' if len(shape) > 1 else 'features'}"
            raise ConfigError(f"data.normalize.{name}: {text} {what}; write one for each, or one for all")
        found.append(torch.tensor(numbers, dtype=torch.float32).expand(shape[0]).contiguous())
    return found[0], found[1]


def _standardized(splits: Splits, moments: tuple[Tensor, Tensor]) -> Splits:
    mean, deviation = moments
    return replace(
        splits,
        train=splits.train.standardized(mean, deviation),
        valid=splits.valid.standardized(mean, deviation) if splits.valid else None,
        test=splits.test.standardized(mean, deviation),
    )
