"""Whole runs on data of a user's own: the same bits however they come, and what a run keeps of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from dtp_dist import load_config, resume, train
from dtp_dist.data import load
from dtp_dist.errors import ConfigError, DataError, StorageError
from dtp_dist.storage.export_file import export
from dtp_dist.storage.run_dir import advice_at_end
from dtp_dist.training.evaluate import evaluate
from own_data import NETWORK, pixels, write_folder, write_image, write_table
from runs import LOCAL, small


def run(folder: Path, name: str, data: Any, *overrides: str, given: Any = None, model: Any = NETWORK) -> Any:
    """Train a small network in ``folder/name``; return its result."""
    data = {"batch_size": 4, **data}
    raw = small(model=model, data=data, monitor={"tensorboard": False})
    config = load_config(raw, [f"run_dir={folder / name}", "train.epochs=2", *overrides])
    return train(config, data=given).result


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Any]:
    return {"name": "image_folder", "root": str(write_folder(tmp_path / "photos"))}


@pytest.mark.slow
@pytest.mark.usefixtures("warm_stages")
def test_the_bits_are_the_same_however_images_are_kept_and_stages_run(tmp_path, photos):
    due = run(tmp_path, "due", photos)["weights_sha256"]
    assert run(tmp_path, "read", photos, "data.cache=none")["weights_sha256"] == due
    local = run(tmp_path, "local", photos, "data.cache=none", *LOCAL)
    assert local["weights_sha256"] == due
    assert json.loads((tmp_path / "local" / "data.json").read_text()) == {
        "classes": 3,
        "names": ["cat", "dog", "eel"],
        "shape": [3, 4, 5],
        "examples": {"train": 22, "valid": 2, "test": 6},
        "fingerprint": load("image_folder", tmp_path / "photos", sketch=True).fingerprint,
        "mean": None,
        "deviation": None,
    }


def test_an_export_needs_no_data_once_a_run_is_at_its_end(tmp_path):
    x, y = torch.from_numpy(pixels((40, 3, 4, 5))), torch.arange(40) % 3
    done = run(tmp_path, "run", {}, "data.normalize=standardize", given={"train": (x, y), "test": (x, y)})
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert len(facts["mean"]) == len(facts["deviation"]) == 3
    lines = export(tmp_path / "run", tmp_path / "network.safetensors")
    assert "as in the data; bytes are divided by 255" in "\n".join(lines)
    here: dict[str, Any] = {}
    exec("\n".join(lines), here)
    wrong = (here["network"](x / 255).argmax(1) != y).float().mean().item() * 100
    assert wrong == pytest.approx(done["test_error"])
    (tmp_path / "run" / "data.json").write_text(json.dumps({**facts, "mean": [1.0]}))
    with pytest.raises(StorageError, match=r"data.json: is damaged"):
        export(tmp_path / "run", tmp_path / "other.safetensors")


def test_a_folder_of_cifars_images_gives_the_bits_of_cifars_files_in_the_same_order(tmp_path):
    names = sorted(f"class {number}" for number in range(10))
    for split, count in (("train", 4), ("test", 1)):
        for label, name in enumerate(names):
            for index in range(count):
                place = tmp_path / "images" / split / name / f"{index}.png"
                write_image(place, (32, 32, 3), seed=100 * label + index + (split == "test") * 5000)
    folder = {"name": "image_folder", "root": str(tmp_path / "images"), "valid_examples": 8}
    whole = load("image_folder", tmp_path / "images", valid_examples=0)
    files = tmp_path / "files" / "cifar-10-batches-py"
    files.mkdir(parents=True)
    parts = {f"data_batch_{number + 1}": (whole.train, 8 * number, 8 * number + 8) for number in range(5)}
    for name, (split, start, stop) in {**parts, "test_batch": (whole.test, 0, 10)}.items():
        some = split.part(start, stop)
        content = {"data": some.rows.all().flatten(1).numpy(), "labels": some.labels.tolist()}
        (files / name).write_bytes(pickle.dumps(content))
    (files / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    cifar = {"name": "cifar10", "root": str(tmp_path / "files"), "verify": False, "valid_examples": 8}
    layers = [
        {"kind": "conv", "channels": 4, "kernel": 5, "pool": "average"},
        {"kind": "flatten"},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ]
    model = {"input": [3, 32, 32], "layers": layers}
    one, other = (
        run(tmp_path, name, data, "data.normalize=standardize", model=model)
        for name, data in (("folder", folder), ("files-run", cifar))
    )
    assert one["weights_sha256"] == other["weights_sha256"]
    assert (one["valid_error"], one["test_error"]) == (other["valid_error"], other["test_error"])


def test_a_folder_that_changed_is_noticed_on_resume_and_one_that_moved_is_not(tmp_path, photos):
    due = run(tmp_path, "due", photos, "train.epochs=3")["weights_sha256"]
    run(tmp_path, "run", photos)
    root = Path(photos["root"])
    write_image(root / "cat" / "3.png", (4, 6, 3))
    with pytest.raises(DataError, match=r"does not hold the data that this run began with .names, sizes"):
        resume(tmp_path / "run", ["train.epochs=3"])
    write_image(root / "cat" / "10.png")
    with pytest.raises(DataError, match=r"'train': 22.*, now .*'train': 23"):
        resume(tmp_path / "run", ["train.epochs=3"])
    (root / "cat" / "10.png").unlink()
    write_image(root / "cat" / "3.png", seed=3)
    moved = root.rename(tmp_path / "elsewhere")
    done = resume(tmp_path / "run", ["train.epochs=3", f"data.root={moved}"])
    assert done.result["weights_sha256"] == due


def test_eval_refuses_other_classes_and_takes_other_images(tmp_path, photos):
    run(tmp_path, "run", photos)
    root = Path(photos["root"])
    write_image(root / "cat" / "10.png")
    evaluate(tmp_path / "run", "test")
    (root / "cat").rename(root / "gnu")
    with pytest.raises(DataError, match=r"names was .*'cat'.*, now .*'gnu'"):
        evaluate(tmp_path / "run", "test")


@pytest.mark.slow
def test_data_that_are_handed_over_train_resume_and_evaluate(tmp_path):
    x, y = torch.from_numpy(pixels((40, 3, 4, 5))), torch.arange(40) % 3
    pair = {"train": (x, y), "classes": ["cat", "dog", "eel"]}
    dataset = {"train": TensorDataset(x, y), "classes": ["cat", "dog", "eel"]}
    due = run(tmp_path, "due", {}, "train.epochs=3", given=pair)["weights_sha256"]
    first = run(tmp_path, "run", {}, "data.cache=none", given=dataset)
    with pytest.raises(ConfigError, match=r"data.name=given: such data are handed over in Python"):
        resume(tmp_path / "run", ["train.epochs=3"])
    assert resume(tmp_path / "run", ["train.epochs=3"], data=pair).result["weights_sha256"] == due
    assert first["test_error"] is not None
    assert evaluate(tmp_path / "run", "valid", data=dataset)[1] == 3 * 8
    with pytest.raises(DataError, match="does not hold the data"):
        resume(tmp_path / "run", ["train.epochs=4"], data={"train": (x[:39], y[:39])})
    config = load_config(tmp_path / "run" / "config.yaml")
    assert "resume(" in advice_at_end(config, tmp_path / "run", ValueError())
    assert "data=...)" in advice_at_end(config, tmp_path / "run", ValueError())


def test_data_that_are_handed_over_stay_in_this_process(tmp_path):
    given = {"train": (np.zeros((20, 60), np.float32), np.arange(20) % 3)}
    with pytest.raises(ConfigError, match=r"parallel.runtime: data .* data.name=package.module:function"):
        run(tmp_path, "run", {}, *LOCAL, given=given)
    assert not (tmp_path / "run").exists()


def test_what_a_user_should_know_of_the_data_is_in_the_log(tmp_path, photos):
    (Path(photos["root"]) / "cat" / "notes.txt").write_text("")
    run(tmp_path, "run", photos)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    said = [line["message"] for line in lines if line.get("event") == "warning"]
    assert said == [
        f"data.root: {photos['root']}/cat/notes.txt is not read: no image in the folder of a class"
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("warm_stages")
def test_a_table_and_a_function_run_in_processes_too(tmp_path, monkeypatch):
    root = write_table(tmp_path / "here" / "t.csv")
    (tmp_path / "here" / "my_rows.py").write_text(
        "import numpy as np\n"
        "def load(root, column):\n"
        "    rows = [line.split(',') for line in root.read_text().splitlines()[1:]]\n"
        "    x = np.array([[float(a), float(b)] for a, b, _ in rows], np.float32)\n"
        "    return {'train': (x, np.array([row[column] for row in rows]))}\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "here")
    layers = [{"kind": "dense", "units": 8}, {"kind": "dense", "units": 3, "activation": "linear"}]
    model = {"input": [2], "layers": layers}
    table = {"name": "table", "root": str(root), "options": {"y": "kind"}, "normalize": "standardize"}
    function = {**table, "name": "my_rows:load", "options": {"column": 2}}
    due = run(tmp_path, "table", table, model=model)["weights_sha256"]
    assert run(tmp_path, "function", function, *LOCAL, model=model)["weights_sha256"] == due


def test_an_image_can_be_read_for_a_prediction_as_the_data_set_reads_it(tmp_path, photos):
    """The first image says how all are seen; another one is refused with the key that converts it."""
    Image.fromarray(pixels((4, 5))).save(Path(photos["root"]) / "eel" / "1.png")
    with pytest.raises(DataError, match=r"is gray, .*; write data.options.color=rgb"):
        run(tmp_path, "run", photos)
    run(tmp_path, "run", {**photos, "options": {"color": "rgb"}})
