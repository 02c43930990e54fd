"""Data of a user's own: what is read from folders, arrays, tables and functions, and how it is cut."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from dtp_dist.data import Examples, Held, Splits, load
from dtp_dist.data.batches import fits
from dtp_dist.data.own import pieces
from dtp_dist.errors import ConfigError, DataError
from own_data import picked, pixels, write_arrays, write_folder, write_image, write_table


def parts_of(splits: Splits) -> list[Examples]:
    return [part for part in (splits.train, splits.valid, splits.test) if part is not None]


def sizes_of(splits: Splits) -> list[int]:
    return [len(part) for part in parts_of(splits)]


def all_of(part: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    return picked(part, torch.arange(len(part)))


def assert_same(one: Splits, other: Splits) -> None:
    for mine, theirs in zip(parts_of(one), parts_of(other), strict=True):
        for a, b in zip(all_of(mine), all_of(theirs), strict=True):
            assert torch.equal(a, b)


def assert_sketched(sketched: Splits, real: Splits) -> None:
    """A sketch is what it is a sketch of, but for the contents."""
    assert sizes_of(sketched) == sizes_of(real)
    for name in ("classes", "names", "outputs", "shape", "fingerprint", "notes"):
        assert getattr(sketched, name) == getattr(real, name), name
    for one, other in zip(parts_of(sketched), parts_of(real), strict=True):
        assert (one.rows.dtype, one.shape, one.unit) == (other.rows.dtype, other.shape, other.unit)
        assert (one.labels.dtype, one.labels.shape) == (other.labels.dtype, other.labels.shape)


# Image folders


def test_images_are_torchvisions_in_its_order_of_classes_and_cut_by_a_fixed_hash(tmp_path):
    from torchvision.datasets import ImageFolder

    splits = load("image_folder", write_folder(tmp_path))
    theirs = ImageFolder(tmp_path)
    assert (splits.classes, splits.names, splits.shape) == (3, tuple(theirs.classes), (3, 4, 5))
    assert sizes_of(splits) == [22, 2, 6]
    assert splits.train.labels.bincount().max() == 8, "each split has each class in its share"
    assert splits.test.labels.bincount().tolist() == [2, 2, 2]
    pairs = [pair for part in parts_of(splits) for pair in zip(*all_of(part), strict=True)]
    found = {x.numpy().tobytes(): int(y) for x, y in pairs}
    due = {
        (np.asarray(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255)).tobytes(): label
        for image, label in theirs
    }
    assert found == due, "every image once, with its label"
    assert_same(splits, load("image_folder", tmp_path))


def test_the_order_depends_on_the_names_alone(tmp_path):
    one, other = write_folder(tmp_path / "one"), write_folder(tmp_path / "elsewhere")
    assert_same(load("image_folder", one), load("image_folder", other))


def test_splits_of_their_own_are_taken_as_they_are(tmp_path):
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        write_folder(tmp_path / split, count)
    splits = load("image_folder", tmp_path)
    assert sizes_of(splits) == [18, 6, 9]
    assert splits.train.labels.bincount().tolist() == [6, 6, 6]
    assert sizes_of(load("image_folder", tmp_path, valid_examples=3, test_examples=4)) == [18, 3, 4]
    assert load("image_folder", tmp_path, valid_examples=0).valid is None


@pytest.mark.parametrize("options", [{}, {"size": 3}, {"color": "gray"}, {"size": [2, 6], "fit": "crop"}])
def test_images_have_the_same_bits_however_they_are_kept(tmp_path, options):
    write_folder(tmp_path)
    held, read, sketched = (
        load(
            "image_folder", tmp_path, cache=cache, normalize="standardize", sketch=cache == "auto", **options
        )
        for cache in ("memory", "none", "auto")
    )
    assert held.train.rows.held
    assert not read.train.rows.held
    assert_same(held, read)
    assert_sketched(sketched, held)
    sent = pickle.loads(pickle.dumps(read.train.rows))
    assert torch.equal(sent.all(), held.train.rows.all()), "rows that are read can be sent to a process"


def test_auto_reads_what_does_not_fit_into_memory(tmp_path, monkeypatch):
    write_folder(tmp_path)
    assert load("image_folder", tmp_path).train.rows.held
    monkeypatch.setattr(pieces, "available_bytes", lambda: 2 * 30 * 60 - 1)
    assert not load("image_folder", tmp_path).train.rows.held
    monkeypatch.setattr(pieces, "available_bytes", lambda: 30 * 60 - 1)
    with pytest.raises(DataError, match=r"data.cache=memory: the data take .* write data.cache=none"):
        load("image_folder", tmp_path, cache="memory")


def test_images_are_converted_and_resized_as_pillow_does(tmp_path):
    path = write_image(tmp_path / "cat" / "0.png", (6, 8, 3))
    for index in range(4):
        write_image(tmp_path / "dog" / f"{index}.png", (6, 8), seed=index)
        write_image(tmp_path / "cat" / f"{index + 1}.jpg", (5, 5, 3), seed=index)
    splits = load("image_folder", tmp_path, color="rgb", size=[3, 4], valid_examples=0)
    due = np.asarray(Image.open(path).resize((4, 3), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert splits.shape == (3, 3, 4)
    stored = [row for part in parts_of(splits) for row in part.rows.all()]
    assert any(torch.equal(row, torch.from_numpy(due.copy())) for row in stored)


def test_what_is_no_image_is_named_and_hidden_files_are_not(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "cat" / ".hidden").write_text("")
    assert load("image_folder", tmp_path).notes == ()
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "README").write_text("")
    (note,) = load("image_folder", tmp_path).notes
    assert note.startswith("data.root: ")
    assert "1 others, are not read" in note


def test_a_folder_that_leads_back_to_itself_is_read_once(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    assert sum(sizes_of(load("image_folder", tmp_path))) == 30


# Arrays


def test_arrays_of_any_shape_in_one_file_are_cut(tmp_path):
    path = write_arrays(tmp_path / "mine.npz", shape=(3, 2, 2, 2))
    splits = load("arrays", path)
    assert (splits.shape, splits.classes, sizes_of(splits)) == ((3, 2, 2, 2), 3, [22, 2, 6])
    x = np.load(path)["x"].astype(np.float32)
    found = torch.cat([all_of(part)[0] for part in parts_of(splits)]).numpy()
    assert sorted(row.tobytes() for row in found) == sorted(row.tobytes() for row in x)
    assert_same(load("arrays", tmp_path), splits)


def split_arrays(root: Path, dtype: Any, y: np.ndarray) -> Path:
    root.mkdir()
    x = (pixels((20, 2, 3)) % (2 if dtype == "bool" else 251)).astype(dtype)
    for split, rows in (("train", slice(0, 12)), ("valid", slice(12, 15)), ("test", slice(15, 20))):
        np.save(root / f"x_{split}.npy", x[rows])
        np.save(root / f"y_{split}.npy", y[rows])
    return root


@pytest.mark.parametrize("dtype", ["uint8", "int16", "<f4", ">f8", "bool", "float16"])
def test_rows_of_an_npy_have_the_same_bits_however_they_are_kept(tmp_path, dtype):
    split_arrays(tmp_path / "a", dtype, np.arange(20) % 4)
    held, read, sketched = (
        load("arrays", tmp_path / "a", cache=cache, normalize="standardize", sketch=cache == "auto")
        for cache in ("memory", "none", "auto")
    )
    assert held.train.rows.held
    assert not read.train.rows.held
    assert_same(held, read)
    assert_sketched(sketched, read)
    assert sizes_of(held) == [12, 3, 5]
    assert held.train.unit == (255.0 if dtype == "uint8" else 1.0)


def test_a_file_for_each_split_is_the_same_as_arrays_by_split(tmp_path):
    root = split_arrays(tmp_path / "npy", "int16", np.arange(20) % 4)
    (tmp_path / "npz").mkdir()
    for split in ("train", "valid", "test"):
        names = {name: np.load(root / f"{name}_{split}.npy") for name in "xy"}
        np.savez_compressed(tmp_path / "npz" / f"{split}.npz", **names)
    assert_same(load("arrays", root), load("arrays", tmp_path / "npz"))


@pytest.mark.parametrize(
    ("y", "options", "classes", "outputs"),
    [
        (np.arange(20) % 4, {}, 4, 4),
        (np.arange(20)[:, None] % 4, {}, 4, 4),
        (np.arange(20) % 2 == 0, {}, 2, 2),
        (np.arange(20) % 4, {"targets": "numbers"}, None, 1),
        (np.arange(20) % 4, {"classes": 7}, 7, 7),
        (np.arange(20) % 4 * 2 + 1, {"classes": [1, 3, 5, 7]}, 4, 4),
        (np.arange(20) % 4 / 3, {}, None, 1),
        (np.arange(20.0) % 4, {"targets": "classes"}, 4, 4),
        (np.eye(20)[:, :5], {}, None, 5),
        (np.eye(20, dtype=np.int64)[:, :5], {}, None, 5),
        (np.zeros((20, 2, 3)), {}, None, 6),
        (np.array(["red", "green"] * 10), {}, 2, 2),
    ],
)
def test_targets_are_classes_or_numbers(tmp_path, y, options, classes, outputs):
    root = split_arrays(tmp_path / "a", "float32", y)
    splits = load("arrays", root, **options)
    assert_sketched(load("arrays", root, sketch=True, **options), splits)
    assert (splits.classes, splits.outputs) == (classes, outputs)
    stored = np.concatenate([np.load(root / f"y_{split}.npy") for split in ("train", "valid", "test")])
    labels = torch.cat([part.labels for part in parts_of(splits)])
    if classes is None:
        assert labels.dtype == torch.float32
        assert sorted(labels.tolist()) == sorted(stored.reshape(20, -1).astype(np.float32).tolist())
    else:
        assert labels.bincount().tolist() == np.unique(stored, return_counts=True)[1].tolist()


def test_names_and_the_unit_of_arrays_are_options(tmp_path):
    np.savez(tmp_path / "a.npz", X=pixels((20, 3)), label=np.arange(20) % 2, weights=np.ones(20))
    splits = load("arrays", tmp_path / "a.npz", x="X", y="label", unit=16)
    assert splits.train.unit == 16.0
    assert "array weights" in splits.notes[0]


# Tables


@pytest.mark.parametrize("kind", ["mine.csv", "mine.tsv", "mine.csv.gz", "mine.parquet", "a folder"])
def test_a_table_is_read_by_the_names_of_its_columns(tmp_path, kind):
    import gzip

    from pyarrow import csv, parquet

    path = write_table(tmp_path / "plain" / "train.csv")
    if kind == "mine.parquet":
        parquet.write_table(csv.read_csv(path), tmp_path / kind)
    elif kind == "mine.csv.gz":
        (tmp_path / kind).write_bytes(gzip.compress(path.read_bytes()))
    elif kind != "a folder":
        (tmp_path / kind).write_text(path.read_text().replace(",", "\t" if ".tsv" in kind else ","))
    root = path.parent if kind == "a folder" else tmp_path / kind
    splits = load("table", root, y="kind")
    assert (splits.shape, splits.classes, splits.names) == ((2,), 3, ("x", "y", "z"))
    assert sizes_of(splits) == [22, 2, 6]
    assert_sketched(load("table", root, y="kind", sketch=True), splits)
    for part in parts_of(splits):
        x, labels = all_of(part)
        assert torch.equal(x[:, 0] % 3, labels.float())
        assert torch.equal(x[:, 1], (x[:, 0].double() ** 2 / 7).float())


def test_columns_are_features_and_targets_in_the_order_asked_for(tmp_path):
    path = write_table(tmp_path / "t.csv")
    splits = load("table", path, y=["b", "a"], x=["a"], targets="numbers")
    assert (splits.shape, splits.outputs, splits.names) == ((1,), 2, ("b", "a"))
    x, labels = all_of(splits.train)
    assert torch.equal(x[:, 0], labels[:, 1])


def test_a_table_says_how_to_install_what_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pyarrow can't be imported .*; install it: pip install 'dtp-dist"):
        load("table", write_table(tmp_path / "t.csv"), y="kind")


# Functions, and data that are handed over

MODULE = """
import random
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

class Squares(Dataset):
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, index):
        return torch.full((2, 3), float(index)), index % 4

class Pictures(Squares):
    classes = ["one", "two", "three"]
    def __getitem__(self, index):
        return Image.new("RGB", (5, 4), (index, 0, 255)), index % 2

class Random(Squares):
    def __getitem__(self, index):
        return np.array([random.random(), np.random.rand(), torch.rand(()).item()]), float(index)

def squares(root, count=20, test=0):
    return {"train": Squares(count)} | ({"test": Squares(test)} if test else {})

def pictures(root, *, count=20):
    return {"train": Pictures(count)}

def uncertain(root):
    return {"train": Random(20)}

def words(root):
    return {"train": [([1.0, 2.0], "ab"[i % 2]) for i in range(20)]}

def tensors(root):
    return {"train": (torch.arange(40.0).view(20, 2), torch.arange(20) % 4), "classes": list("abcd")}
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    (tmp_path / "mine_to_load.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "mine_to_load"


@pytest.mark.parametrize(
    ("function", "shape", "classes", "names"),
    [
        ("squares", (2, 3), 4, None),
        ("pictures", (3, 4, 5), 3, ("one", "two", "three")),
        ("words", (2,), 2, ("a", "b")),
        ("tensors", (2,), 4, ("a", "b", "c", "d")),
        ("uncertain", (3,), None, None),
    ],
)
def test_a_function_brings_data_sets_or_pairs(tmp_path, module, function, shape, classes, names):
    name = f"{module}:{function}"
    held, read, sketched = (
        load(name, tmp_path, cache=cache, sketch=cache == "auto") for cache in ("memory", "none", "auto")
    )
    assert (held.shape, held.classes, held.names, sizes_of(held)) == (shape, classes, names, [15, 1, 4])
    assert_same(held, read)
    assert_sketched(sketched, held)


def test_a_function_has_options_and_splits_of_its_own(tmp_path, module):
    splits = load(f"{module}:squares", tmp_path, count=40, test=8, valid_examples=0)
    assert sizes_of(splits) == [40, 8]
    with pytest.raises(ConfigError, match=r"data.options.colour: not an option .* has count, test"):
        load(f"{module}:squares", tmp_path, colour=1)
    with pytest.raises(ConfigError, match=r"data.name: 'mine_to_load:nothing' can't be imported"):
        load(f"{module}:nothing", tmp_path)


def test_data_sets_leave_the_global_streams_alone(tmp_path, module):
    before = torch.get_rng_state()
    load(f"{module}:uncertain", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_data_are_handed_over_in_python():
    x, y = torch.arange(40.0).view(20, 2), torch.arange(20) % 4
    pair = load("given", "", given={"train": (x, y), "test": (x, y)})
    dataset = load("given", "", given={"train": TensorDataset(x, y), "test": TensorDataset(x, y)})
    arrays = load("given", "", given={"train": (x.numpy(), y.numpy()), "test": (x.numpy(), y.numpy())})
    assert_same(pair, dataset)
    assert_same(pair, arrays)
    assert sizes_of(pair) == [18, 2, 20]


# Shapes and statistics


@pytest.mark.parametrize(
    ("example", "declared", "fit"),
    [
        ((1, 28, 28), (784,), True),
        ((1, 28, 28), (28, 28), True),
        ((784,), (1, 28, 28), True),
        ((32, 32, 3), (3, 32, 32), False),
        ((3, 32, 32), (3, 1024), True),
        ((5,), (5,), True),
        ((5,), (6,), False),
        ((2, 3), (3, 2), False),
    ],
)
def test_an_input_shape_that_would_mix_dimensions_up_does_not_fit(example, declared, fit):
    assert fits(example, declared) == fit


def test_statistics_of_features_keep_their_digits_far_from_zero():
    values = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([3e4, 0.0])
    mean, deviation = Examples(Held(values), torch.zeros(500, dtype=torch.int64)).statistics()
    due = values.double()
    assert torch.allclose(mean.double(), due.mean(0), rtol=1e-6, atol=1e-6)
    assert torch.allclose(deviation.double(), due.std(0, correction=0), rtol=1e-6)
    constant = torch.stack([values[:, 1], torch.full((500,), 3e4)], 1)
    with pytest.raises(DataError, match="feature 1 of the training examples is constant"):
        Examples(Held(constant), torch.zeros(500, dtype=torch.int64)).statistics()
