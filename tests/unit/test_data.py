"""Data sets, their splits, and the minibatches of an epoch."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dtp_dist.data import SOURCES, Batches, Examples, Splits, load, order
from dtp_dist.data import files as data_files
from dtp_dist.errors import ConfigError, DataError

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root: Path, *, train: int = 30, test: int = 10) -> Path:
    """Write a small data set in MNIST's files; return the folder that holds them."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("t10k", test)):
        images = np.arange(count * 784).reshape(count, 28, 28) % 251
        write_idx(folder / f"{split}-images-idx3-ubyte", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte", np.arange(count) % 10)
    return folder


def numbered(count: int, shape: Sequence[int] = (1, 2, 3)) -> Examples:
    """Examples whose label is their own number, and whose pixels are too."""
    labels = torch.arange(count)
    pixels = labels.view(-1, 1, 1, 1).expand(count, *shape)
    return Examples(pixels.to(torch.uint8), labels)


def labels_of(batches: Batches, epoch: int) -> list[int]:
    return torch.cat([batches.minibatch(epoch, index)[1] for index in range(batches.count)]).tolist()


@pytest.fixture(scope="module")
def real(mnist_root: Path | None) -> Splits:
    """MNIST where it is at hand, digits elsewhere."""
    return load("mnist", mnist_root) if mnist_root else load("digits", "unused")


# Data sets


def test_the_real_data_has_its_sizes_and_types(real: Splits, mnist_root: Path | None) -> None:
    sizes, shape = ((50_000, 10_000, 10_000), (1, 28, 28)) if mnist_root else ((1200, 200, 397), (1, 8, 8))
    assert real.valid is not None
    assert (len(real.train), len(real.valid), len(real.test)) == sizes
    assert (real.classes, real.shape) == (10, shape)
    for split in (real.train, real.valid, real.test):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), *shape)
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))
    x, _ = real.train.pick(torch.arange(1000))
    assert x.dtype == torch.float32
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)


def test_training_is_the_first_and_validation_the_last_of_the_training_examples(
    real: Splits, mnist_root: Path | None
) -> None:
    whole = (
        load("mnist", mnist_root, valid_examples=0) if mnist_root else load("digits", "", valid_examples=0)
    )
    assert whole.valid is None
    assert real.valid is not None
    border = len(real.train)
    assert len(whole.train) == border + len(real.valid)
    assert torch.equal(whole.train.images[:border], real.train.images)
    assert torch.equal(whole.train.images[border:], real.valid.images)
    assert torch.equal(whole.train.labels[border:], real.valid.labels)


def test_mnist_files_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    write_mnist(tmp_path)
    ours = load("mnist", tmp_path, valid_examples=10)
    theirs = MNIST(tmp_path, train=True)
    assert torch.equal(ours.train.images[:, 0], theirs.data[:20])
    assert torch.equal(ours.train.labels, theirs.targets[:20])
    assert torch.equal(ours.test.images[:, 0], MNIST(tmp_path, train=False).data)


def test_digits_are_split_without_overlap_and_with_every_class_in_its_share() -> None:
    from sklearn.datasets import load_digits

    splits = load("digits", "unused")
    assert splits.valid is not None
    parts = (splits.train, splits.valid, splits.test)
    assert [len(part) for part in parts] == [1200, 200, 397]
    everything = torch.cat([part.images for part in parts]).flatten(1).tolist()
    assert sorted(everything) == sorted(load_digits().data.astype(int).tolist())
    for part in parts:
        counts = part.labels.bincount()
        assert int(counts.max() - counts.min()) <= 0.01 * len(part) + 1
    assert splits.train.pick(torch.arange(1200))[0].max() == 1.0
    assert torch.equal(load("digits", "unused").train.images, splits.train.images)


def test_fewer_examples_are_the_first_ones() -> None:
    small = load("digits", "", train_examples=100, valid_examples=50, test_examples=20)
    whole = load("digits", "")
    assert small.valid is not None
    assert whole.valid is not None
    assert (len(small.train), len(small.valid), len(small.test)) == (100, 50, 20)
    assert torch.equal(small.train.images, whole.train.images[:100])
    assert torch.equal(small.valid.images, whole.valid.images[150:])
    assert torch.equal(small.test.images, whole.test.images[:20])


def test_synthetic_data_is_the_same_every_time_and_of_the_size_asked_for() -> None:
    one, two = (load("synthetic", "", examples=300, shape=(3, 4, 5), classes=4) for _ in range(2))
    assert one.valid is not None
    assert (len(one.train), len(one.valid), len(one.test)) == (210, 30, 60)
    assert (one.shape, one.classes) == ((3, 4, 5), 4)
    assert torch.equal(one.train.images, two.train.images)
    assert torch.equal(one.test.labels, two.test.labels)
    assert set(one.train.labels.tolist()) == {0, 1, 2, 3}


def test_synthetic_data_can_be_learned() -> None:
    splits = load("synthetic", "")
    train, test = splits.train.images.flatten(1).float(), splits.test.images.flatten(1).float()
    means = torch.stack([train[splits.train.labels == label].mean(0) for label in range(10)])
    found = torch.cdist(test, means).argmin(1)
    assert (found == splits.test.labels).float().mean() > 0.95


def test_cifar_images_are_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import calculate_md5

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rows = np.random.RandomState(0).randint(0, 256, (6, 3072), dtype=np.uint8)
    contents = {
        "data_batch_1": {"data": rows[:4], "labels": [3, 1, 2, 0]},
        "test_batch": {"data": rows[4:], "labels": [1, 9]},
        "batches.meta": {"label_names": list("abcdefghij")},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    sums = {name: calculate_md5(folder / name) for name in contents}
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})

    splits = load("cifar10", tmp_path, valid_examples=1)
    assert splits.shape == (3, 32, 32)
    assert torch.equal(splits.train.images, torch.from_numpy(rows[:3]).view(3, 3, 32, 32))
    assert splits.test.labels.tolist() == [1, 9]

    (folder / "test_batch").write_bytes(b"not a pickle")
    with pytest.raises(DataError, match=r"test_batch is damaged"):
        load("cifar10", tmp_path)


# Normalisation


def test_standardize_uses_the_training_split_alone() -> None:
    plain, scaled = load("digits", ""), load("digits", "", normalize="standardize")
    x = plain.train.pick(torch.arange(1200))[0].double()
    y = scaled.train.pick(torch.arange(1200))[0].double()
    assert y.mean().abs() < 1e-6
    assert (y.std(correction=0) - 1).abs() < 1e-6
    for before, after in ((plain.valid, scaled.valid), (plain.test, scaled.test)):
        assert before is not None
        assert after is not None
        chosen = torch.arange(100)
        due = (before.pick(chosen)[0] - x.mean()) / x.std(correction=0)
        torch.testing.assert_close(after.pick(chosen)[0], due.float())


def test_standardize_follows_the_training_examples_that_are_used() -> None:
    few, all_of_them = (load("digits", "", train_examples=n, normalize="standardize") for n in (50, None))
    assert few.test.mean is not None
    assert all_of_them.test.mean is not None
    assert not torch.equal(few.test.mean, all_of_them.test.mean)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_statistics_are_those_of_each_channel(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (2100, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255.0
    mean, deviation = Examples(images, torch.zeros(2100, dtype=torch.int64)).statistics()
    values = images.double() / (255.0 if dtype == torch.uint8 else 1.0)
    torch.testing.assert_close(mean, values.mean((0, 2, 3)).float())
    torch.testing.assert_close(deviation, values.std((0, 2, 3), correction=0).float())


def test_a_constant_channel_cannot_be_standardized() -> None:
    for images in (torch.full((20, 1, 2, 2), 7, dtype=torch.uint8), torch.full((20, 1, 2, 2), 0.1)):
        with pytest.raises(DataError, match=r"channel 0 .* constant"):
            Examples(images, torch.zeros(20, dtype=torch.int64)).statistics()


# Order and minibatches


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    first = order(seed=1, epoch=0, examples=100, shuffle=True)
    assert sorted(first.tolist()) == list(range(100))
    torch.rand(7)  # the global stream has no part in it
    assert torch.equal(order(1, 0, 100, True), first)
    assert not torch.equal(order(1, 1, 100, True), first)
    assert not torch.equal(order(2, 0, 100, True), first)
    assert order(1, 3, 5, False).tolist() == [0, 1, 2, 3, 4]


def test_order_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    order(1, 0, 100, True)
    load("synthetic", "")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_smaller_last_minibatch_is_kept_or_dropped(drop_last: bool, sizes: list[int]) -> None:
    batches = Batches(numbered(10), [6], 4, drop_last=drop_last)
    assert batches.count == len(sizes)
    assert [len(batches.minibatch(0, index)[1]) for index in range(batches.count)] == sizes
    with pytest.raises(IndexError):
        batches.minibatch(0, batches.count)


def test_an_epoch_has_each_example_once_and_images_keep_their_labels() -> None:
    batches = Batches(numbered(10), [6], 3, seed=5)
    assert labels_of(batches, 0) == order(5, 0, 10, True).tolist()
    for index in range(batches.count):
        x, y = batches.minibatch(0, index)
        torch.testing.assert_close(x, (y / 255).view(-1, 1).expand(-1, 6))


def test_a_minibatch_does_not_depend_on_what_was_asked_before() -> None:
    used, fresh = Batches(numbered(20), [6], 6, seed=3), Batches(numbered(20), [6], 6, seed=3)
    for epoch in (0, 2, 1):
        labels_of(used, epoch)
    assert labels_of(used, 1) == labels_of(fresh, 1) != labels_of(fresh, 2)
    assert sorted(labels_of(Batches(numbered(20), [6], 6, shuffle=False), 4)) == list(range(20))


@pytest.mark.parametrize("shape", [[784], [1, 28, 28], [28, 28]])
def test_minibatches_have_the_shape_of_the_model_input(shape: list[int]) -> None:
    splits = load("synthetic", "", examples=100)
    x, y = Batches(splits.train, shape, 16).minibatch(0, 0)
    assert (x.dtype, x.shape, y.dtype, y.shape) == (torch.float32, (16, *shape), torch.int64, (16,))
    assert x.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_minibatch_is_a_copy(dtype: torch.dtype) -> None:
    examples = Examples(torch.ones(4, 1, 2, 2, dtype=dtype), torch.zeros(4, dtype=torch.int64))
    batches = Batches(examples, [4], 4, shuffle=False)
    for result in batches.minibatch(0, 0):
        result.fill_(9)
    assert examples.images.max() == 1
    assert examples.labels.max() == 0


def test_pixels_are_divided_as_torchvision_divides_them() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x, _ = Batches(Examples(images, torch.zeros(1, dtype=torch.int64)), [256], 1).minibatch(0, 0)
    due: Tensor = torch.arange(256, dtype=torch.float32) / 255
    assert torch.equal(x[0], due)


# What goes wrong


def test_a_wrong_input_shape_names_the_key_and_both_shapes() -> None:
    with pytest.raises(DataError) as caught:
        Batches(numbered(4, (1, 28, 28)), [64], 2)
    for part in ("model.input=[64]", "[1, 28, 28]", "[784]"):
        assert part in str(caught.value)


def test_a_batch_size_that_leaves_no_minibatch_is_an_error() -> None:
    with pytest.raises(DataError, match=r"data\.batch_size=11 .* 10 examples"):
        Batches(numbered(10), [6], 11, drop_last=True)
    assert Batches(numbered(10), [6], 11).count == 1
    with pytest.raises(ConfigError, match=r"data\.batch_size=0"):
        Batches(numbered(10), [6], 0)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        assert socket.getdefaulttimeout() == data_files.PATIENCE
        print("noise")
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "file"), [("mnist", MNIST_FILES[0]), ("cifar100", "meta")])
def test_missing_data_says_what_was_looked_for_where_and_what_to_do(
    name: str,
    file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = socket.getdefaulttimeout()
    with caplog.at_level(logging.INFO), pytest.raises(DataError) as caught:
        load(name, tmp_path / "absent")
    text = str(caught.value)
    assert "\n" not in text
    for part in (file, str(tmp_path / "absent"), "Name or service not known", "data.name=digits"):
        assert part in text
    assert "downloading" in caplog.text
    assert "noise" not in capsys.readouterr().out
    assert socket.getdefaulttimeout() == before
    assert list((tmp_path / "absent").iterdir()) == []


def test_a_root_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data\.root can't be written to"):
        load("mnist", tmp_path / "file" / "data")


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize("kept", [0, 3, 6, -1])
def test_a_truncated_file_is_named(name: str, kept: int, tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        load("mnist", tmp_path, valid_examples=5)


def test_labels_that_do_not_fit_are_damage(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    for labels in (np.arange(30), np.arange(29) % 10):
        write_idx(folder / MNIST_FILES[1], labels)
        with pytest.raises(DataError, match=rf"{MNIST_FILES[1]} is damaged: it must hold 30 labels"):
            load("mnist", tmp_path, valid_examples=5)


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "text"),
    [
        ("minst", {}, ConfigError, f"data.name=minst: must be one of {', '.join(SOURCES)}"),
        ("digits", {"normalize": "l2"}, ConfigError, "data.normalize=l2: must be none or standardize"),
        ("digits", {"classes": 3}, ConfigError, "data.classes: not an option of data.name=digits"),
        ("synthetic", {"colour": 3}, ConfigError, "which has examples, shape, classes"),
        ("synthetic", {"shape": (784,)}, ConfigError, "data.shape=[784]"),
        ("synthetic", {"classes": 1}, ConfigError, "data.classes=1"),
        ("synthetic", {"examples": 1}, ConfigError, "data.examples=1"),
        ("digits", {"train_examples": 0}, ConfigError, "data.train_examples=0: must be at least 1"),
        ("digits", {"train_examples": 1201}, DataError, "digits has no more than 1200"),
        ("digits", {"valid_examples": 1400}, DataError, "digits has no more than 1399"),
        ("digits", {"test_examples": 398}, DataError, "digits has no more than 397"),
    ],
)
def test_wrong_arguments_name_the_key(
    name: str, arguments: dict[str, object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        load(name, "unused", **arguments)  # type: ignore[arg-type]
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2)),
    ],
)
def test_tensors_that_are_no_examples_are_refused(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(DataError):
        Examples(images, labels)


def test_importing_the_package_leaves_torchvision_and_sklearn_alone() -> None:
    code = "import sys, dtp_dist.data; sys.exit('torchvision' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
