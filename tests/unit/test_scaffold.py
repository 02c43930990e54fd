"""``dtp-dist init``: a configuration that trains at once, for each kind of data that may lie in a folder."""

from __future__ import annotations

import gzip
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_data import write_cifar

from dtp_dist import DtpDistError, load_config, train
from dtp_dist.scaffold.write import write_start
from own_data import (
    CLASSES,
    MNIST_FILES,
    pixels,
    write_arrays,
    write_folder,
    write_idx,
    write_image,
    write_table,
)
from runs import run_cli, the_line


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_images(root: Path) -> None:
    write_folder(root, 6)


def large_images(root: Path) -> None:
    for split in ("train", "val", "test"):
        write_folder(root / split, 4, shape=(90, 60, 3))


def mixed_images(root: Path) -> None:
    write_folder(root, 5, shape=(20, 24, 3))
    write_image(root / "cat" / "gray.png", (40, 18))


def an_array(root: Path) -> None:
    write_arrays(root / "a.npz")


def images_in_arrays(root: Path) -> None:
    """As Keras has MNIST."""
    root.mkdir()
    splits = {"train": 40, "test": 10}
    parts = {f"x_{split}": pixels((count, 28, 28), count) for split, count in splits.items()}
    np.savez(root / "mnist.npz", **parts, **{f"y_{each}": np.arange(n) % 5 for each, n in splits.items()})


def arrays_of_other_names(root: Path) -> None:
    """Labels have holes."""
    root.mkdir()
    np.save(root / "Spectra.npy", pixels((40, 2, 9)).astype(np.float64))
    np.save(root / "element.npy", np.array([3, 5, 9, 11] * 10))


def numbers_in_arrays(root: Path) -> None:
    root.mkdir()
    x = np.random.default_rng(0).normal(size=(30, 5))
    np.savez(root / "a.npz", data=x, targets=x[:, :2] ** 2)


def several_labels(root: Path) -> None:
    root.mkdir()
    generator = np.random.default_rng(0)
    np.savez(root / "a.npz", x=generator.normal(size=(30, 5)), y=generator.integers(0, 2, (30, 4)))


def a_table(root: Path) -> None:
    write_table(root / "flowers.csv")


def a_table_with_flaws(root: Path) -> None:
    """Of several files; a column of words, one of nothing new, one that numbers the rows, one with a gap."""
    root.mkdir()
    for name, start in (("train", 0), ("test", 30)):
        rows = [f"{i},{i * i},,7,w{i},{100 + 7 * i},{i % 9}" for i in range(start, start + 30)]
        (root / f"{name}.csv").write_text("\n".join(["id,b,gap,same,word,price,c", *rows]) + "\n")


def mnist(root: Path) -> None:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count in zip(MNIST_FILES, (30, 30, 10, 10), strict=True):
        images = "images" in name
        write_idx(folder / name, pixels((count, 28, 28)) if images else np.arange(count) % 10)
    packed = folder / MNIST_FILES[0]
    Path(f"{packed}.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()


def cifar(root: Path) -> None:
    root.mkdir()
    write_cifar(root)


CONV, DENSE = "conv", "dense"
CLASSES_OF, NUMBERS, SEVERAL = "cross_entropy", "mse", "binary_cross_entropy"
CROPPED = {"size": 20, "fit": "crop", "color": "rgb"}
NAMED = {"x": "Spectra", "y": "element", "classes": [3, 5, 9, 11]}
KINDS: list[tuple[Callable[[Path], None], dict[str, Any], list[int], str, str]] = [
    (small_images, {"name": "image_folder", "root": "own"}, [60], DENSE, CLASSES_OF),
    (large_images, {"name": "image_folder", "options": {"size": [64, 44]}}, [3, 64, 44], CONV, CLASSES_OF),
    (mixed_images, {"name": "image_folder", "options": CROPPED}, [3, 20, 20], CONV, CLASSES_OF),
    (an_array, {"name": "arrays", "root": "own/a.npz"}, [6], DENSE, CLASSES_OF),
    (images_in_arrays, {"name": "arrays", "root": "own/mnist.npz"}, [784], DENSE, CLASSES_OF),
    (arrays_of_other_names, {"root": "own", "options": NAMED}, [18], DENSE, CLASSES_OF),
    (numbers_in_arrays, {"options": {"x": "data", "y": "targets"}}, [5], DENSE, NUMBERS),
    (several_labels, {"name": "arrays"}, [5], DENSE, SEVERAL),
    (a_table, {"root": "own/flowers.csv", "options": {"y": "kind"}}, [2], DENSE, CLASSES_OF),
    (a_table_with_flaws, {"options": {"y": "c", "x": ["b", "price"]}}, [2], DENSE, CLASSES_OF),
    (mnist, {"name": "mnist", "root": "own", "valid_examples": 3}, [1, 28, 28], CONV, CLASSES_OF),
    (cifar, {"name": "cifar10", "root": "own", "verify": False}, [3, 32, 32], CONV, CLASSES_OF),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", KINDS, ids=[row[0].__name__ for row in KINDS])
def test_what_is_found_trains_at_once(here, row):
    make, data, shape, layers, loss = row
    make(here / "own")
    path, found = write_start(Path("own"))
    written = yaml.safe_load(path.read_text())
    assert data.items() <= written["data"].items()
    assert written["model"]["input"] == shape
    assert written["model"]["layers"][0]["kind"] == layers
    assert written["model"].get("loss", "cross_entropy") == loss
    short = ["train.max_steps=2", "monitor.tensorboard=false", "run_dir=run"]
    config = load_config(path, short)
    assert config.name == "own"
    result, _ = train(config)
    assert result["steps"] == 2
    assert found.splits.outputs == config.model.options[-1].units


def test_what_was_left_out_is_said_next_to_the_key(here):
    a_table_with_flaws(here / "own")
    text = write_start(Path("own"))[0].read_text()
    for column in ("id (it numbers the rows)", "gap (values are missing)", "same (always the same)"):
        assert column in text
    assert "word (no numbers)" in text


def test_a_folder_in_the_folder_is_found_and_a_file_may_be_named(here):
    small_images(here / "photos")
    (here / "notes").mkdir()
    path, found = write_start(Path())
    assert path == Path(f"{here.name}.yaml")
    assert (found.name, found.root) == ("image_folder", Path("photos"))
    a_table(here / "tables")
    path, found = write_start(Path("tables/flowers.csv"))
    assert (path, found.name) == (Path("flowers.yaml"), "table")


def test_whole_numbers_that_count_are_numbers(here):
    rows = [f"{i},{i * i % 97}" for i in range(60)]
    (here / "counted.csv").write_text("\n".join(["hour,bikes", *rows]) + "\n")
    written = yaml.safe_load(write_start(Path("counted.csv"))[0].read_text())
    assert written["model"]["loss"] == "mse"
    assert written["data"]["options"] == {"y": "bikes", "targets": "numbers"}


def test_a_channel_that_is_always_the_same_is_not_standardized(here):
    x = np.random.default_rng(0).normal(size=(30, 3))
    x[:, 1] = 4
    np.savez(here / "a.npz", x=x, y=np.arange(30) % 2)
    path, _ = write_start(Path("a.npz"))
    assert "normalize" not in yaml.safe_load(path.read_text())["data"]
    train(load_config(path, ["train.max_steps=2", "monitor.tensorboard=false"]))


@pytest.mark.slow
def test_the_command_says_what_to_type_next(here):
    small_images(here / "my photos")
    done = run_cli("init", "my photos", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    said, command = done.stdout.strip().split("; train it: ")
    assert said == "my photos.yaml: a configuration for 18 images of 3 classes (cat, dog, eel)"
    assert shlex.split(command)[-2:] == ["train", "my photos.yaml"]
    before = (here / "my photos.yaml").read_text()
    assert f"# Train it: {shlex.join(['dtp-dist', 'train', 'my photos.yaml'])}\n" in before
    done = run_cli("init", "my photos", cwd=here)
    assert done.returncode == 2
    assert "exists, and is never overwritten; name another file: --out FILE.yaml" in the_line(done)
    assert (here / "my photos.yaml").read_text() == before
    assert run_cli("init", "my photos", "--out", "other.yaml", cwd=here).returncode == 0
    assert yaml.safe_load((here / "other.yaml").read_text()) == yaml.safe_load(before)


def nothing(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").touch()


def images_without_classes(root: Path) -> None:
    write_image(root / "0.png")


def one_class(root: Path) -> None:
    write_folder(root, 3, CLASSES[:1])


def an_empty_class(root: Path) -> None:
    small_images(root)
    (root / "fox").mkdir()


def a_sick_image(root: Path) -> None:
    small_images(root)
    (root / "dog" / "3.png").write_bytes(b"no image")


def several(root: Path) -> None:
    small_images(root / "photos")
    a_table(root / "tables")


def unnamed_arrays(root: Path) -> None:
    root.mkdir()
    np.savez(root / "a.npz", one=np.zeros(3), two=np.zeros(3), three=np.zeros(3))


def mnist_elsewhere(root: Path) -> None:
    mnist(root.parent / "fetched")
    (root.parent / "fetched" / "MNIST" / "raw").rename(root)


USELESS: list[tuple[Callable[[Path], None], str]] = [
    (lambda root: None, "own: is not there; name the folder or the file that holds the data"),
    (nothing, "own: holds no data for a configuration; init looks for a folder of images for each class"),
    (images_without_classes, "init looks for a folder of images for each class (CLASS/*.png"),
    (one_class, "own: holds images of one class alone, cat; there must be two at least"),
    (an_empty_class, "own/fox: holds no image"),
    (a_sick_image, "own/dog/3.png: is no whole image (it is of no format that Pillow knows)"),
    (several, "own: holds several data sets; name one of own/photos, own/tables/flowers.csv"),
    (unnamed_arrays, "own/a.npz: has the arrays one, two, three; call the examples x and the targets y"),
    (mnist_elsewhere, "own: holds MNIST's files, which are read from a folder MNIST/raw"),
]


@pytest.mark.parametrize("row", USELESS, ids=[row[1] for row in USELESS])
def test_what_can_t_be_trained_on_is_an_error_of_one_line(here, row):
    make, words = row
    make(here / "own")
    with pytest.raises(DtpDistError) as caught:
        write_start(Path("own"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (here / "own.yaml").exists()


def test_one_of_several_published_data_sets_is_named_by_its_folder(here):
    mnist(here / "own")
    write_cifar(here / "own")
    with pytest.raises(DtpDistError, match="name one of own/MNIST, own/cifar-10-batches-py"):
        write_start(Path("own"))
    for place in ("own/MNIST", "own/MNIST/raw"):
        path, found = write_start(Path(place), Path(f"{len(place)}.yaml"))
        assert (found.name, found.root) == ("mnist", Path("own"))
    path, found = write_start(Path("own/cifar-10-batches-py"))
    assert (path.name, found.name, found.root) == ("cifar-10-batches-py.yaml", "cifar10", Path("own"))


@pytest.mark.parametrize("make", [small_images, numbers_in_arrays])
def test_what_the_comments_advise_works(here, make):
    make(here / "own")
    text = write_start(Path("own"))[0].read_text()
    for old, new in (
        ("rule: {name: dtp, target_step: 0.33}", "rule: {name: backprop}"),
        ("# parallel: {runtime: local", "parallel: {runtime: inprocess"),
    ):
        assert old in text
        text = text.replace(old, new)
    assert "write rule: {name: backprop}" in text
    (here / "changed.yaml").write_text(text)
    config = load_config("changed", ["train.max_steps=2", "monitor.tensorboard=false"])
    assert (config.rule.name, config.parallel.stages, config.parallel.in_flight) == ("backprop", 2, 2)
    assert train(config).result["steps"] == 2
