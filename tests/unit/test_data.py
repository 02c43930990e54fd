"""Data sets, their splits, and the minibatches of an epoch."""

from __future__ import annotations

import gzip
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_near, tolerance
from sklearn.datasets import load_digits
from torch import Tensor

from dtp_dist.data import SOURCES, Batches, Examples, Held, Splits, ensure, load, order, unpacked
from dtp_dist.data import files as data_files
from dtp_dist.data.digits_file import read_digits
from dtp_dist.errors import ConfigError, DataError
from own_data import MNIST_FILES, picked, write_idx


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
    return Examples(Held(pixels.to(torch.uint8)), labels)


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
        assert split.rows.dtype == torch.uint8
        assert split.rows.all().shape == (len(split), *shape)
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))
    x, _ = picked(real.train, torch.arange(1000))
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
    assert torch.equal(whole.train.rows.all()[:border], real.train.rows.all())
    assert torch.equal(whole.train.rows.all()[border:], real.valid.rows.all())
    assert torch.equal(whole.train.labels[border:], real.valid.labels)


def test_mnist_files_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    write_mnist(tmp_path)
    ours = load("mnist", tmp_path, valid_examples=10)
    theirs = MNIST(tmp_path, train=True)
    assert torch.equal(ours.train.rows.all()[:, 0], theirs.data[:20])
    assert torch.equal(ours.train.labels, theirs.targets[:20])
    assert torch.equal(ours.test.rows.all()[:, 0], MNIST(tmp_path, train=False).data)


def test_digits_are_split_without_overlap_and_with_every_class_in_its_share() -> None:
    from sklearn.datasets import load_digits

    splits = load("digits", "unused")
    assert splits.valid is not None
    parts = (splits.train, splits.valid, splits.test)
    assert [len(part) for part in parts] == [1200, 200, 397]
    everything = torch.cat([part.rows.all() for part in parts]).flatten(1).tolist()
    assert sorted(everything) == sorted(load_digits().data.astype(int).tolist())
    for part in parts:
        counts = part.labels.bincount()
        assert int(counts.max() - counts.min()) <= 0.01 * len(part) + 1
    assert picked(splits.train, torch.arange(1200))[0].max() == 1.0
    assert torch.equal(load("digits", "unused").train.rows.all(), splits.train.rows.all())


def test_fewer_examples_are_the_first_ones() -> None:
    small = load("digits", "", train_examples=100, valid_examples=50, test_examples=20)
    whole = load("digits", "")
    assert small.valid is not None
    assert whole.valid is not None
    assert (len(small.train), len(small.valid), len(small.test)) == (100, 50, 20)
    assert torch.equal(small.train.rows.all(), whole.train.rows.all()[:100])
    assert torch.equal(small.valid.rows.all(), whole.valid.rows.all()[150:])
    assert torch.equal(small.test.rows.all(), whole.test.rows.all()[:20])


def test_synthetic_data_is_the_same_every_time_and_of_the_size_asked_for() -> None:
    one, two = (load("synthetic", "", examples=300, shape=(3, 4, 5), classes=4) for _ in range(2))
    assert one.valid is not None
    assert (len(one.train), len(one.valid), len(one.test)) == (210, 30, 60)
    assert (one.shape, one.classes) == ((3, 4, 5), 4)
    assert torch.equal(one.train.rows.all(), two.train.rows.all())
    assert torch.equal(one.test.labels, two.test.labels)
    assert set(one.train.labels.tolist()) == {0, 1, 2, 3}


def test_synthetic_data_can_be_learned() -> None:
    splits = load("synthetic", "")
    train, test = splits.train.rows.all().flatten(1).float(), splits.test.rows.all().flatten(1).float()
    means = torch.stack([train[splits.train.labels == label].mean(0) for label in range(10)])
    found = torch.cdist(test, means).argmin(1)
    assert (found == splits.test.labels).float().mean() > 0.95


def write_cifar(root: Path, protocol: int = 2) -> np.ndarray:
    """Write a small CIFAR-10, 5 x 4 + 2 images, as bytes [22, 3072]; return those."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.random.RandomState(0).randint(0, 256, (22, 3072), dtype=np.uint8)
    contents: dict[str, dict[str, Any]] = {
        f"data_batch_{number + 1}": {"data": rows[4 * number :][:4], "labels": [3, 1, 2, number]}
        for number in range(5)
    }
    contents["test_batch"] = {"data": rows[20:], "labels": [1, 9]}
    contents["batches.meta"] = {"label_names": list("abcdefghij")}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    return rows


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make torchvision take the files in a folder, as they are now, for CIFAR-10's own."""

    def trust(root: Path) -> None:
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import calculate_md5

        folder = root / CIFAR10.base_folder
        for key in ("train_list", "test_list"):
            named = [[name, calculate_md5(folder / name)] for name, _ in getattr(CIFAR10, key)]
            monkeypatch.setattr(CIFAR10, key, named)
        meta = calculate_md5(folder / "batches.meta")
        monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})

    return trust


def test_cifar_images_are_channels_first(tmp_path: Path, trusted: Callable[[Path], None]) -> None:
    rows = write_cifar(tmp_path)
    trusted(tmp_path)
    splits = load("cifar10", tmp_path, valid_examples=1)
    assert (splits.shape, splits.names) == ((3, 32, 32), tuple("abcdefghij"))
    assert torch.equal(splits.train.rows.all(), torch.from_numpy(rows[:19]).view(19, 3, 32, 32))
    assert splits.test.labels.tolist() == [1, 9]

    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"not a pickle")
    for read in (load, ensure):
        with pytest.raises(DataError, match=r"test_batch is damaged"):
            read("cifar10", tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cifar_of_another_edition_is_read_as_torchvision_reads_it(
    tmp_path: Path, trusted: Callable[[Path], None], protocol: int
) -> None:
    write_cifar(tmp_path, protocol)
    with pytest.raises(DataError, match=r"its checksum is wrong; .* write data.verify=false"):
        ensure("cifar10", tmp_path)
    ensure("cifar10", tmp_path, verify=False)
    ours = load("cifar10", tmp_path, verify=False)
    sketched = load("cifar10", tmp_path, verify=False, sketch=True)
    trusted(tmp_path)
    theirs = load("cifar10", tmp_path, valid_examples=2)
    assert "it holds 20 training and 2 test images" in ours.notes[0]
    assert (sketched.notes, len(sketched.train), len(sketched.test)) == (ours.notes, 18, 2)
    for one, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert torch.equal(one.rows.all(), other.rows.all())
        assert torch.equal(one.labels, other.labels)
    assert ours.names == theirs.names


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda mark: {"data": Bomb(mark), "labels": [1]}, "it names posix.mkdir, which no file"),
        (lambda mark: {"data": np.array([object()]), "labels": [1]}, "is damaged: "),
        (lambda mark: {"data": np.zeros((1, 3072)), "labels": [1]}, "its images are no bytes"),
        (lambda mark: {"data": np.zeros((1, 3071), np.uint8), "labels": [1]}, "is damaged: no images"),
        (lambda mark: {"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "labels, 0 to 9"),
        (lambda mark: {"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}, "labels, 0 to 9"),
        (lambda mark: {"data": np.zeros((1, 3072), np.uint8)}, "is damaged: no images or no labels"),
        (lambda mark: [1], "it holds no dictionary"),
    ],
)
def test_nothing_that_an_unverified_file_names_is_called(
    tmp_path: Path, content: Callable[[Path], Any], words: str
) -> None:
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps(content(tmp_path / "mark")))
    with pytest.raises(DataError) as caught:
        load("cifar10", tmp_path, verify=False)
    assert words in str(caught.value)
    assert "data_batch_3 is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mark").exists()


def test_mnist_files_may_be_packed_with_gzip(tmp_path: Path) -> None:
    plain = load("mnist", write_mnist(tmp_path).parents[1], valid_examples=5)
    for name in MNIST_FILES[:3]:
        path = tmp_path / "MNIST" / "raw" / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load("mnist", tmp_path, valid_examples=5)
    assert torch.equal(packed.train.rows.all(), plain.train.rows.all())
    assert torch.equal(packed.test.labels, plain.test.labels)
    assert len(load("mnist", tmp_path, valid_examples=5, sketch=True).train) == 25


@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: data[:3], lambda data: b"x" + data])
@pytest.mark.parametrize("sketch", [False, True])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, sketch: bool, harm: Callable[[bytes], bytes]) -> None:
    path = write_mnist(tmp_path) / MNIST_FILES[0]
    path.with_name(f"{path.name}.gz").write_bytes(harm(gzip.compress(path.read_bytes())))
    path.unlink()
    with pytest.raises(DataError, match=rf"{MNIST_FILES[0]}.gz is damaged"):
        load("mnist", tmp_path, valid_examples=5, sketch=sketch)


def test_bytes_of_a_gzip_file_that_changed_are_noticed(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / MNIST_FILES[0]
    data = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
    data[len(data) // 2] ^= 1
    path.with_name(f"{path.name}.gz").write_bytes(data)
    path.unlink()
    with pytest.raises(DataError, match=rf"{MNIST_FILES[0]}.gz is damaged: CRC"):
        load("mnist", tmp_path, valid_examples=5)


# Normalisation


def test_standardize_uses_the_training_split_alone() -> None:
    plain, scaled = load("digits", ""), load("digits", "", normalize="standardize")
    x = picked(plain.train, torch.arange(1200))[0].double()
    y = picked(scaled.train, torch.arange(1200))[0].double()
    assert y.mean().abs() < tolerance()
    assert (y.std(correction=0) - 1).abs() < tolerance()
    for before, after in ((plain.valid, scaled.valid), (plain.test, scaled.test)):
        assert before is not None
        assert after is not None
        chosen = torch.arange(100)
        due = (picked(before, chosen)[0] - x.mean()) / x.std(correction=0)
        assert_near(picked(after, chosen)[0], due.float(), 16)


def test_standardize_follows_the_training_examples_that_are_used() -> None:
    few, all_of_them = (load("digits", "", train_examples=n, normalize="standardize") for n in (50, None))
    assert few.test.mean is not None
    assert all_of_them.test.mean is not None
    assert not torch.equal(few.test.mean, all_of_them.test.mean)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_statistics_are_those_of_each_channel(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (2100, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255.0
    mean, deviation = Examples(Held(images), torch.zeros(2100, dtype=torch.int64)).statistics()
    values = images.double() / (255.0 if dtype == torch.uint8 else 1.0)
    assert_near(mean, values.mean((0, 2, 3)).float(), 16)
    assert_near(deviation, values.std((0, 2, 3), correction=0).float(), 16)


def test_a_constant_channel_cannot_be_standardized() -> None:
    for images in (torch.full((20, 1, 2, 2), 7, dtype=torch.uint8), torch.full((20, 1, 2, 2), 0.1)):
        with pytest.raises(DataError, match=r"channel 0 .* constant"):
            Examples(Held(images), torch.zeros(20, dtype=torch.int64)).statistics()


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
        assert torch.equal(x, (y / 255).view(-1, 1).expand(-1, 6))


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
    examples = Examples(Held(torch.ones(4, 1, 2, 2, dtype=dtype)), torch.zeros(4, dtype=torch.int64))
    batches = Batches(examples, [4], 4, shuffle=False)
    for result in batches.minibatch(0, 0):
        result.fill_(9)
    assert examples.rows.all().max() == 1
    assert examples.labels.max() == 0


def test_pixels_are_divided_as_torchvision_divides_them() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x, _ = Batches(Examples(Held(images), torch.zeros(1, dtype=torch.int64)), [256], 1).minibatch(0, 0)
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
        ensure(name, tmp_path / "absent" / "data")
    text = str(caught.value)
    assert "\n" not in text
    for part in (file, str(tmp_path / "absent"), "Name or service not known", "data.name=digits"):
        assert part in text
    assert "downloading" in caplog.text
    assert "noise" not in capsys.readouterr().out
    assert socket.getdefaulttimeout() == before
    assert not (tmp_path / "absent").exists(), "folders that were made for a download that failed"


@pytest.mark.usefixtures("offline")
def test_folders_that_were_there_before_a_download_that_failed_stay(tmp_path: Path) -> None:
    (tmp_path / "data" / "MNIST").mkdir(parents=True)
    with pytest.raises(DataError, match="the download failed"):
        ensure("mnist", tmp_path / "data")
    assert list(tmp_path.rglob("*")) == [tmp_path / "data", tmp_path / "data" / "MNIST"]


def test_a_download_that_is_interrupted_leaves_no_empty_folder(tmp_path: Path, monkeypatch: Any) -> None:
    def interrupted(root: Path, **_: Any) -> None:
        (root / "MNIST" / "raw").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(data_files, "torchvision_class", lambda kind: interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure("mnist", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data\.root can't be written to"):
        load("mnist", tmp_path / "file" / "data")


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize("kept", [0, 3, 6, -1])
@pytest.mark.parametrize("sketch", [False, True])
def test_a_truncated_file_is_named(name: str, kept: int, tmp_path: Path, sketch: bool) -> None:
    path = write_mnist(tmp_path) / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        load("mnist", tmp_path, valid_examples=5, sketch=sketch)


@pytest.mark.parametrize("sketch", [False, True])
def test_labels_that_do_not_fit_are_damage(tmp_path: Path, sketch: bool) -> None:
    folder = write_mnist(tmp_path)
    for labels in (np.arange(30), np.arange(29) % 10):
        write_idx(folder / MNIST_FILES[1], labels)
        with pytest.raises(DataError, match=rf"{MNIST_FILES[1]} is damaged: it must hold 30 labels"):
            load("mnist", tmp_path, valid_examples=5, sketch=sketch)


def test_a_sketch_has_the_sizes_of_files_that_are_not_mnists_own(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=25, test=7)
    sketched = load("mnist", tmp_path, valid_examples=5, sketch=True)
    assert (len(sketched.train), len(sketched.test), sketched.shape) == (20, 7, (1, 28, 28))
    assert sketched.train.rows.all().untyped_storage().nbytes() == 1, "no image is read"


@pytest.mark.parametrize("normalize", ["none", "standardize"])
def test_examples_come_out_of_their_bytes_as_they_were(normalize: str) -> None:
    some = load("digits", "", normalize=normalize).train.part(3, 30)
    back = unpacked(some.packed())
    for one, other in zip(picked(some, torch.arange(27)), picked(back, torch.arange(27)), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(some.pixels(some.rows.all()), back.pixels(back.rows.all()))


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "text"),
    [
        (
            "minst",
            {},
            ConfigError,
            f"data.name=minst: must be one of {', '.join(SOURCES)}, package.module:function",
        ),
        ("digits", {"normalize": "l2"}, ConfigError, "data.normalize=l2: must be none or standardize"),
        ("digits", {"classes": 3}, ConfigError, "data.options.classes: not an option of data.name=digits"),
        ("synthetic", {"colour": 3}, ConfigError, "which has examples, shape, classes"),
        ("image_folder", {"colour": 3}, ConfigError, "which has color, size, fit"),
        ("arrays", {"z": 3}, ConfigError, "which has x, y, targets, classes, unit"),
        ("given", {}, ConfigError, "data.name=given: such data are handed over in Python"),
        ("synthetic", {"shape": (784,)}, ConfigError, "data.options.shape: [784]"),
        ("synthetic", {"classes": 1}, ConfigError, "data.options.classes: 1"),
        ("synthetic", {"examples": 1}, ConfigError, "data.options.examples: 1"),
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
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2)),
    ],
)
def test_tensors_that_are_no_examples_are_refused(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(DataError):
        Examples(Held(images), labels)


@pytest.mark.slow
def test_importing_the_package_leaves_torchvision_and_sklearn_alone() -> None:
    code = "import sys, dtp_dist.data; sys.exit('torchvision' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


KINDS_OF_DATA: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in ("digits", "mnist", "fashion_mnist", "synthetic")),
    ("synthetic", {"examples": 57, "shape": [3, 5, 4], "classes": 7}),
]


@pytest.mark.parametrize(("name", "options"), KINDS_OF_DATA)
def test_a_sketch_has_the_shapes_and_sizes_of_the_real_data(tmp_path, mnist_root, name, options):
    if name.endswith("mnist"):
        found = load(name, tmp_path, sketch=True)
        assert (len(found.train), len(found.test), found.shape) == (50_000, 10_000, (1, 28, 28))
        assert list(tmp_path.iterdir()) == [], "nothing is fetched"
        if mnist_root is None:  # nothing here to compare it with
            return
    root = mnist_root or tmp_path
    sketched, real = (load(name, root, sketch=sketch, **options) for sketch in (True, False))
    for each, other in zip(
        (sketched.train, sketched.valid, sketched.test), (real.train, real.valid, real.test), strict=True
    ):
        assert (len(each), each.shape, each.rows.dtype) == (len(other), other.shape, other.rows.dtype)
    assert (sketched.classes, sketched.shape) == (real.classes, real.shape)


def test_the_sketch_of_cifar_has_its_published_sizes(tmp_path):
    found = load("cifar100", tmp_path, sketch=True, normalize="standardize")
    assert found.valid is not None
    sizes = [len(split) for split in (found.train, found.valid, found.test)]
    assert (sizes, found.shape, found.classes) == ([45_000, 5_000, 10_000], (3, 32, 32), 100)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_sketch_says_what_is_missing_where_it_could_not_be_fetched(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match=r"not found in .*, and data.root can't be written to; put the files"):
        load(name, tmp_path / "none" / "there", sketch=True)


def test_the_digits_are_read_as_scikit_learn_reads_them():
    theirs = load_digits()
    images, labels = read_digits()
    assert (images == theirs.images).all()
    assert (labels == theirs.target).all()
