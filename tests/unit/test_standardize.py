"""Whether every channel can be standardized is known before a run starts, from few examples if it can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dtp_dist import load_config, train
from dtp_dist.config.batches import check_data
from dtp_dist.data import Examples, Held, load
from dtp_dist.data.rows import Read
from dtp_dist.data.sources import SOURCES
from dtp_dist.errors import DataError
from own_data import MNIST_FILES, pixels, write_folder, write_idx
from runs import small

CONSTANT = r"data\.normalize=standardize: (channel|feature) {} of the training examples is constant"


class Counted(Read):
    """Rows that know how many of them were read."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.count = values, 0
        self.shape, self.dtype = tuple(values.shape[1:]), values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def read(self, index: int) -> Tensor:
        self.count += 1
        return self.values[index]


def examples(rows: Any) -> Examples:
    return Examples(rows, torch.zeros(len(rows), dtype=torch.int64))


def noise(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_ten_examples_show_that_every_channel_varies():
    rows = Counted(noise(3000, 3, 2, 2))
    examples(rows).check_varies()
    assert rows.count == 11, "and the first one, from which differences are taken"


def test_a_channel_that_varies_late_is_read_until_it_does():
    values = torch.zeros(3000, 2)
    values[:, 0] = noise(3000)
    values[500:, 1] = 1.0
    rows = Counted(values)
    examples(rows).check_varies()
    assert rows.count == 11 + 1001


@pytest.mark.parametrize(
    "values",
    [
        torch.full((3000, 1, 2, 2), 7, dtype=torch.uint8),
        torch.full((3000, 2), 0.1),
        torch.stack([noise(3000), torch.full((3000,), 3e4)], 1),
        torch.stack([noise(3000), 3e4 + 1e-3 * noise(3000)], 1),  # less than float32 can tell apart
        torch.cat([torch.full((2999, 1), 1e4), torch.full((1, 1), 1e4 + 0.1)]),
        torch.cat([torch.full((2999, 1), 1e4), torch.full((1, 1), 2e4)]),
        torch.cat([torch.full((1, 1), -1.0), torch.full((2999, 1), 1e9)]),
        torch.tensor([[0.0], [1e-30]]),
    ],
)
def test_it_agrees_with_the_statistics_of_all(values):
    def said(check: Any) -> str:
        try:
            check()
        except DataError as error:
            return str(error)
        return ""

    found = examples(Held(values))
    assert said(found.check_varies) == said(found.statistics)


def as_arrays(root: Path) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(40, 64))
    x[:, 5] = 2.5
    root.mkdir()
    np.save(root / "x.npy", x)
    np.save(root / "y.npy", np.arange(40) % 10)
    return {"name": "arrays"}


def as_table(root: Path) -> dict[str, Any]:
    names = [f"c{column}" for column in range(64)]
    rows = [[5 if column == 5 else row * (column + 1) % 67 for column in range(64)] for row in range(40)]
    lines = [",".join([*names, "y"]), *(",".join(map(str, [*row, k % 10])) for k, row in enumerate(rows))]
    root.mkdir()
    (root / "train.csv").write_text("\n".join(lines))
    return {"name": "table", "options": {"y": "y"}}


def as_mnist(root: Path) -> dict[str, Any]:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for images, labels in (MNIST_FILES[:2], MNIST_FILES[2:]):
        write_idx(folder / images, np.full((40, 8, 8), 9))
        write_idx(folder / labels, np.arange(40) % 10)
    return {"name": "mnist", "valid_examples": 4}


def as_pictures(root: Path) -> dict[str, Any]:
    for path in (root / str(label) / f"{index}.png" for label in range(10) for index in range(4)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 77).save(path)
    return {"name": "image_folder"}


@pytest.mark.parametrize(("write", "which"), [(as_arrays, 5), (as_table, 5), (as_mnist, 0), (as_pictures, 0)])
def test_constant_data_are_refused_before_anything_starts(tmp_path, write, which):
    """Both ``config`` and ``train`` say so, and no folder of a run is left."""
    data = {**write(tmp_path / "data"), "root": str(tmp_path / "data"), "batch_size": 4}
    config = load_config(small(data=data), [f"run_dir={tmp_path / 'run'}", "data.normalize=standardize"])
    for check in (check_data, train):
        with pytest.raises(DataError, match=CONSTANT.format(which)):
            check(config)
    assert not (tmp_path / "run").exists()
    check_data(load_config(small(data=data)))


def test_data_handed_over_in_python_are_refused_before_anything_starts(tmp_path):
    x = torch.from_numpy(pixels((40, 1, 8, 8))).float()
    given = {"train": (x * 0 + 3, torch.arange(40) % 10)}
    overrides = ["data.normalize=standardize", "data.batch_size=4", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(DataError, match=CONSTANT.format(0)):
        train(load_config(small(), overrides), data=given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["digits", "synthetic", "mnist", "cifar10"])
def test_nothing_is_read_of_what_is_known_to_vary_or_not_there(tmp_path, monkeypatch, name):
    source = SOURCES[name]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it was read")

    blind = replace(source, load=refuse, options=source.options or source.load)
    monkeypatch.setitem(SOURCES, name, blind)
    splits = load(name, tmp_path, normalize="standardize", sketch=True)
    assert len(splits.train) > 1000


def test_what_was_looked_into_is_as_hollow_as_any_sketch(tmp_path):
    write_folder(tmp_path)
    plain = load("image_folder", tmp_path, sketch=True)
    looked_into = load("image_folder", tmp_path, sketch=True, normalize="standardize")
    for one, other in ((plain.train, looked_into.train), (plain.test, looked_into.test)):
        assert (len(one), one.shape, one.rows.dtype) == (len(other), other.shape, other.rows.dtype)
        assert other.rows.held
        assert not other.rows.all().any()
        assert other.rows.all().untyped_storage().nbytes() == 1
    assert (plain.fingerprint, plain.names) == (looked_into.fingerprint, looked_into.names)
