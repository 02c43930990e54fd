"""``dtp-dist predict``: new examples through a run's newest weights, read as its data are."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dtp_dist import DtpDistError, Prediction, load_config, predict, train
from dtp_dist.config.batches import load_batches
from own_data import CLASSES, picked, pixels, write_folder, write_image, write_table
from runs import run_cli, small, the_line

SHAPE = (6, 5, 3)


def trained(folder: Path, inputs: list[int], outputs: int, loss: str = "cross_entropy", **data: Any) -> Path:
    """Train on some data for an epoch, and return the run's folder."""
    layers = [{"kind": "dense", "units": 8}, {"kind": "dense", "units": outputs, "activation": "linear"}]
    first = [{"kind": "flatten"}] if len(inputs) > 1 else []
    model = {"input": inputs, "loss": loss, "layers": [*first, *layers]}
    raw = small(model=model, data={"batch_size": 5, **data}, run_dir=str(folder))
    train(load_config(raw, ["monitor.tensorboard=false"]))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with a test split, and a run of it in ``run``."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 8), ("test", 5)):
        write_folder(folder / "photos" / split, count, shape=SHAPE)
    data = {"name": "image_folder", "root": str(folder / "photos"), "normalize": "standardize"}
    trained(folder / "run", [3, 6, 5], 3, **data)
    return folder


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


def test_predictions_of_the_test_split_give_the_test_error(photos):
    found = predict(photos / "run", photos / "photos" / "test")
    assert [each.file for each in found] == sorted(map(str, (photos / "photos" / "test").glob("*/*")))
    wrong = sum(each.label != Path(each.file).parent.name for each in found)
    assert 100 * wrong / len(found) == pytest.approx(result(photos / "run")["test_error"])
    for each in found:
        assert list(each.values) == list(CLASSES)
        assert sum(each.values.values()) == pytest.approx(1, abs=1e-5)
        assert each.probability == max(each.values.values())


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_other_losses_of_classes_give_their_error_too(photos, tmp_path, loss):
    run = trained(tmp_path / "run", [90], 3, loss, name="image_folder", root=str(photos / "photos"))
    found = predict(run, photos / "photos" / "test")
    wrong = sum(each.label != Path(each.file).parent.name for each in found)
    assert 100 * wrong / len(found) == pytest.approx(result(run)["test_error"])
    assert (found[0].probability is None) == (loss == "mse")


def rows_of(found: list[Prediction]) -> list[list[float]]:
    return [list(each.values.values()) for each in found]


def test_arrays_give_what_the_same_images_give(photos, tmp_path):
    files = sorted((photos / "photos" / "test" / "cat").iterdir())
    x = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in files])
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "several.npz", x=x.reshape(5, -1), other=x)
    np.save(tmp_path / "one.npy", x[1] / np.float32(255))
    wanted = rows_of(predict(photos / "run", files))
    for given in (tmp_path / "x.npy", [tmp_path / "several.npz"], x, torch.from_numpy(x)):
        found = predict(photos / "run", given)
        assert [each.index for each in found] == list(range(5))
        np.testing.assert_allclose(rows_of(found), wanted, atol=1e-6)
    both = predict(photos / "run", [files[0], tmp_path / "one.npy", files[2]])
    assert [each.index for each in both] == [None, 0, None]
    np.testing.assert_allclose(rows_of(both), wanted[:3], atol=1e-6)


@pytest.mark.slow
def test_numbers_have_the_names_of_their_columns(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 4)).round(4)
    for name, part in (("train", values[:40]), ("test", values[40:])):
        lines = ["a,size,b,price", *(",".join(map(str, row)) for row in part)]
        (tmp_path / "houses").mkdir(exist_ok=True)
        (tmp_path / "houses" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    options = {"y": ["price", "size"]}
    data = {"name": "table", "root": str(tmp_path / "houses"), "normalize": "standardize", "options": options}
    run = trained(tmp_path / "run", [2], 2, "mse", **data)
    (tmp_path / "new.csv").write_text(
        "\n".join(["b,a", *(f"{row[2]},{row[0]}" for row in values[40:])]) + "\n"
    )
    found = predict(run, tmp_path / "new.csv")
    assert list(found[0].values) == ["price", "size"]
    error = np.abs(np.array(rows_of(found)) - values[40:][:, [3, 1]]).mean()
    assert error == pytest.approx(result(run)["test_mean_absolute_error"], rel=1e-4)
    done = run_cli("predict", run, tmp_path / "new.csv", "--csv", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["file", "index", "price", "size"]
    assert float(rows[3]["price"]) == pytest.approx(found[3].values["price"], rel=1e-6)


@pytest.mark.slow
def test_several_labels_have_their_probabilities(tmp_path):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, (60, 3))
    np.savez(tmp_path / "a.npz", x=generator.normal(size=(60, 4)) + y.sum(1)[:, None], y=y)
    run = trained(
        tmp_path / "run", [4], 3, "binary_cross_entropy", name="arrays", root=str(tmp_path / "a.npz")
    )
    test = load_batches(load_config(run / "config.yaml"))["test"].examples
    x, labels = picked(test, torch.arange(len(test)))
    found = predict(run, x)
    present = np.array([[name in each.labels for name in each.values] for each in found])
    distance = (present != labels.numpy().astype(bool)).mean()
    assert distance == pytest.approx(result(run)["test_hamming_distance"])
    done = run_cli("predict", run, tmp_path / "a.npz", "--json", cwd=tmp_path)
    first = json.loads(done.stdout)[0]
    assert list(first) == ["file", "index", "labels", "probabilities"]
    assert list(first["probabilities"]) == ["y0", "y1", "y2"]


def test_sampled_layers_are_averaged_and_the_same_each_time(tmp_path):
    layers = [
        {"kind": "dense", "units": 8, "activation": "sigmoid"},
        {"kind": "dense", "units": 10, "activation": "linear", "input_transmission": "sample"},
    ]
    raw = small(model={"input": [64], "layers": layers}, run_dir=str(tmp_path / "run"))
    train(load_config(raw, ["train.max_steps=2", "train.evaluate_passes=5", "monitor.tensorboard=false"]))
    x = torch.rand(4, 1, 8, 8)
    assert predict(tmp_path / "run", x) == predict(tmp_path / "run", x)


@pytest.mark.slow
def test_what_is_printed(photos):
    images = sorted((photos / "photos" / "test" / "dog").iterdir())[:2]
    wanted = predict(photos / "run", images)
    done = run_cli("predict", "run", *images, "--json", cwd=photos)
    assert (done.returncode, done.stderr) == (0, "")
    for told, each in zip(json.loads(done.stdout), wanted, strict=True):
        assert told["file"] == each.file
        assert told["label"] == each.label
        assert told["probabilities"] == pytest.approx(each.values, rel=1e-6)
    done = run_cli("predict", "run", *images, cwd=photos)
    (line,) = [line for line in done.stdout.splitlines() if str(images[1]) in line]
    assert line.split()[1:4] == [wanted[1].label, f"{100 * wanted[1].probability:.1f}", "%"]
    done = run_cli("predict", "run", *images, "--out", "found.csv", cwd=photos)
    assert (done.returncode, done.stdout) == (0, "")
    rows = list(csv.DictReader(io.StringIO((photos / "found.csv").read_text())))
    assert list(rows[0]) == ["file", "label", "probability", "p(cat)", "p(dog)", "p(eel)"]
    assert [row["label"] for row in rows] == [each.label for each in wanted]
    done = run_cli("predict", "run", *images, "--out", "found.csv", cwd=photos)
    assert done.returncode == 2
    assert "found.csv exists; name another file or remove it" in the_line(done)


def truncated(folder: Path) -> Path:
    path = write_image(folder / "sick.png", (60, 50, 3))
    path.write_bytes(path.read_bytes()[:-500])
    return path


def with_text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("cats")
    return folder / "notes.txt"


def without_images(folder: Path) -> Path:
    with_text(folder)
    return folder


def of_another_shape(folder: Path) -> Path:
    np.save(folder / "x.npy", pixels((4, 7)))
    return folder / "x.npy"


def a_table(folder: Path) -> Path:
    (folder / "x.csv").write_text("a,b\n1,2\n")
    return folder / "x.csv"


BAD: list[tuple[Callable[[Path], Path], str]] = [
    (lambda folder: write_image(folder / "large.png", (60, 50, 3)),
     "is rgb and has 60 x 50 pixels, but the network takes rgb of 6 x 5; add --convert"),
    (lambda folder: write_image(folder / "gray.png", (6, 5)), "is gray and has 6 x 5 pixels"),
    (truncated, "add --convert, or convert it"),
    (with_text, "is no whole image (it is of no format that Pillow knows)"),
    (without_images, "holds no image; name files: the run takes images, and .npy and .npz files"),
    (of_another_shape, "has the shape [4, 7], but the network takes [N, 3, 6, 5]"),
    (a_table, "is a table, but the run takes images"),
    (lambda folder: folder / "none.png", "can't be read (No such file or directory)"),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD, ids=[row[1] for row in BAD])
def test_what_is_not_like_the_runs_data_is_named(photos, tmp_path, row):
    make, words = row
    path = make(tmp_path)
    with pytest.raises(DtpDistError) as caught:
        predict(photos / "run", [photos / "photos" / "test", path])
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert caught.value.exit_code == 1


def test_images_are_converted_where_that_is_asked_for(photos, tmp_path):
    write_image(tmp_path / "a" / "large.png", (60, 50, 3))
    write_image(tmp_path / "a" / "gray.png", (6, 5))
    assert len(predict(photos / "run", tmp_path / "a", convert=True)) == 2


@pytest.mark.slow
def test_a_sick_image_ends_it_with_nothing_printed(photos, tmp_path):
    sick = truncated(tmp_path)
    done = run_cli("predict", photos / "run", photos / "photos" / "test", sick, "--convert", "--out", "a.csv",
                   cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert the_line(done).startswith(f"error: {sick}: is no whole image")
    assert not (tmp_path / "a.csv").exists()


def test_a_run_that_names_code_wants_to_be_allowed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef layer(input_shape):\n    return nn.Linear(64, 8), nn.Linear(8, 64)\n"
    )
    layers = [{"kind": "mine:layer"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    raw = small(
        model={"input": [64], "layers": layers}, run_dir=str(tmp_path / "run"), code_dir=str(tmp_path)
    )
    train(load_config(raw, ["train.max_steps=2", "monitor.tensorboard=false"]))
    with pytest.raises(DtpDistError, match="add --allow-code"):
        predict(tmp_path / "run", torch.rand(2, 64))
    found = predict(tmp_path / "run", torch.rand(2, 64), allow_code=True)
    assert [each.label in "0123456789" for each in found] == [True, True]


def changed(run: Path, target: Path, **facts: Any) -> Path:
    """Return a copy of a run whose data.json says otherwise."""
    shutil.copytree(run, target)
    told = json.loads((run / "data.json").read_text())
    (target / "data.json").write_text(json.dumps({**told, **facts}))
    return target


@pytest.mark.parametrize("shape", ["here", [3, 0, 5], [9, 9], [3, "6", 5], None])
def test_a_damaged_run_is_an_error_of_one_line(photos, tmp_path, shape):
    run = changed(photos / "run", tmp_path / "run", shape=shape)
    with pytest.raises(DtpDistError, match=r"data\.json: is damaged"):
        predict(run, photos / "photos" / "test")


@pytest.mark.parametrize("names", [None, ["a", "a", "b"], "abc", [1, 2]])
def test_classes_without_names_have_their_numbers(photos, tmp_path, names):
    run = changed(photos / "run", tmp_path / "run", names=names)
    found = predict(run, photos / "photos" / "test" / "cat" / "0.png")
    assert list(found[0].values) == ["0", "1", "2"]


@pytest.mark.slow
def test_names_of_others_order_nothing_at_the_terminal(photos, tmp_path):
    run = changed(photos / "run", tmp_path / "run", names=["\x1b[31mred", "b\rc", "c"])
    for form in ([], ["--csv"], ["--json"]):
        done = run_cli("predict", run, photos / "photos" / "test", *form, cwd=tmp_path)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert "\r" not in done.stdout


def test_a_table_that_is_gone_is_wanted_for_the_names_of_its_columns(tmp_path):
    write_table(tmp_path / "t.csv")
    data = {"name": "table", "root": str(tmp_path / "t.csv"), "options": {"y": "kind"}}
    run = trained(tmp_path / "run", [2], 3, **data)
    new = tmp_path / "new.csv"
    new.write_text("b,other,a\n1,x,2\n3,y,4\n")
    assert [each.label in "xyz" for each in predict(run, new)] == [True, True]
    assert rows_of(predict(run, new)) == rows_of(predict(run, np.array([[2.0, 1.0], [4.0, 3.0]])))
    (tmp_path / "t.csv").unlink()
    with pytest.raises(DtpDistError, match=r"there is no table at .*says which columns are features"):
        predict(run, new)
    run = trained(tmp_path / "run2", [2], 3, **{**data, "root": str(write_table(tmp_path / "u.csv")),
                                                "options": {"y": "kind", "x": ["a", "b"]}})  # fmt: skip
    (tmp_path / "u.csv").unlink()
    assert len(predict(run, new)) == 2
    new.write_text("a,c\n1,2\n")
    with pytest.raises(DtpDistError, match="there is no column 'b', which the network takes"):
        predict(run, new)
    new.write_text("a,b\n1,2\n3,\n")
    with pytest.raises(DtpDistError, match=r"new\.csv, index 1: column 'b'"):
        predict(run, new)


def test_bytes_are_divided_by_the_runs_own_unit(tmp_path):
    x = pixels((40, 6)) // 16
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    data = {"name": "arrays", "root": str(tmp_path / "a.npz"), "options": {"unit": 16}}
    run = trained(tmp_path / "run", [6], 2, **data)
    assert rows_of(predict(run, x)) == rows_of(predict(run, x.astype(np.float32)))
    test = load_batches(load_config(run / "config.yaml"))["test"].examples
    found = predict(run, test.rows.all())
    wrong = sum(each.label != str(label) for each, label in zip(found, test.labels.tolist(), strict=True))
    assert 100 * wrong / len(found) == pytest.approx(result(run)["test_error"])
    sick = np.full((3, 6), np.nan)
    np.save(tmp_path / "sick.npy", sick)
    with pytest.raises(DtpDistError, match=r"sick\.npy, index 0: its example holds NaN"):
        predict(run, tmp_path / "sick.npy")
