"""scikit-learn's own handwritten digits, which need no files and no network."""

from __future__ import annotations

import torch

from dtp_dist.data.dealing import dealt
from dtp_dist.data.digits_file import read_digits
from dtp_dist.data.examples import Examples, Pool
from dtp_dist.data.rows import Held
from dtp_dist.data.source import Place, Source, blank

TRAINING, TEST, VALID = 1400, 397, 200
NAMES = tuple("0123456789")


def load(_place: Place) -> Pool:
    """Return scikit-learn's own handwritten digits: 1797 images [1, 8, 8] of 0..16, 10 classes; no files.

    The order is fixed and deals the classes evenly, so every run of examples in it (the first ones, the
    last ones) has each class in its share. The last 397 are the test split, 200 before them validation.
    """
    images, labels = map(torch.from_numpy, read_digits())
    order = dealt(labels.tolist(), range(len(labels)), "digits")
    everything = Examples(Held(images.unsqueeze(1)[order]), labels[order], divisor=16.0)
    test = everything.part(TRAINING, len(everything))
    return Pool(everything.part(0, TRAINING), test, classes=10, valid_examples=VALID, names=NAMES)


def sketch(_place: Place) -> Pool:
    """Return their sizes and shapes."""
    training, test = blank(TRAINING, (1, 8, 8)), blank(TEST, (1, 8, 8))
    return Pool(training, test, classes=10, valid_examples=VALID, names=NAMES)


DIGITS = Source(load, sketch, unknown=lambda place: False)
