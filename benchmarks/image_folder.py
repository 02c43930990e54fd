"""CIFAR-10 as PNG files with crop and flip: what reading costs the first stage, and whether the bits are one.

    python benchmarks/image_folder.py --data ../shared/data [--examples 5000] [--minibatches 100]

LeNet (Ernoult et al. 2022's network) by DTP, Adam, two local stages with D = 2, minibatches of 100. The
images are written as PNG in torchvision's layout; CIFAR's own files are written once more in the order in
which the folder's examples come, so that ``cifar10`` has the same order. Each run trains for as many
minibatches; the last one's driver is killed on the way with SIGKILL, and resumed.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from dtp_dist.data import Examples, load
from helpers.disturbed import DisturbedRun
from helpers.measuring import ROOT, machine

AUGMENT = [
    {"random_crop": {"size": 32, "padding": 4, "padding_mode": "edge"}},
    {"random_horizontal_flip": {"p": 0.5}},
]
TESTED = 1000
KILLED = "folder, 1 loader, killed and resumed"


def write_images(examples: Examples, names: tuple[str, ...], folder: Path) -> None:
    """Write each example as FOLDER/CLASS/NUMBER.png."""
    for name in names:
        (folder / name).mkdir(parents=True)
    for index, (row, label) in enumerate(zip(examples.rows.all(), examples.labels.tolist(), strict=True)):
        Image.fromarray(row.permute(1, 2, 0).numpy()).save(folder / names[label] / f"{index:05d}.png")


def write_cifar(train: Examples, test: Examples, names: tuple[str, ...], root: Path) -> None:
    """Write CIFAR's files with these examples in their order."""
    files = root / "cifar-10-batches-py"
    files.mkdir(parents=True)
    fifth = len(train) // 5
    parts = {
        f"data_batch_{number + 1}": train.part(number * fifth, (number + 1) * fifth) for number in range(5)
    }
    for name, part in {**parts, "test_batch": test}.items():
        content = {"data": part.rows.all().flatten(1).numpy(), "labels": part.labels.tolist()}
        (files / name).write_bytes(pickle.dumps(content))
    (files / "batches.meta").write_bytes(pickle.dumps({"label_names": list(names)}))


def prepare(data: str, examples: int, folder: Path) -> None:
    """Write the same examples as images and as CIFAR's files, in the order of the former."""
    splits = load("cifar10", data, train_examples=examples, test_examples=TESTED)
    assert splits.names is not None
    write_images(splits.train, splits.names, folder / "images" / "train")
    write_images(splits.test, splits.names, folder / "images" / "test")
    ordered = load("image_folder", folder / "images", valid_examples=0)
    write_cifar(ordered.train, ordered.test, splits.names, folder / "files")


def config_of(data: dict[str, Any], minibatches: int) -> dict[str, Any]:
    """Return LeNet by DTP on two local stages."""
    lenet = yaml.safe_load((ROOT / "configs" / "ernoult2022_lenet_cifar10.yaml").read_text())
    layers = [
        {key: value for key, value in each.items() if key != "optimizer"} for each in lenet["model"]["layers"]
    ]
    for layer in layers:
        if "inverse" in layer:
            layer["inverse"] = {**layer["inverse"], "iterations": 1}
    return {
        "model": {**lenet["model"], "layers": layers},
        "rule": {"name": "dtp"},
        "optimizer": {"forward": {"name": "adam", "lr": 1.0e-4}, "inverse": {"name": "adam", "lr": 1.0e-4}},
        "train": {"epochs": 1000, "max_steps": minibatches, "evaluate_every": 0, "checkpoint_every": 20},
        "data": {"batch_size": 100, "valid_examples": 0, "augment": AUGMENT, **data},
        "parallel": {"runtime": "local", "stages": 2, "in_flight": 2},
        "monitor": {"every": 10, "tensorboard": False},
    }


def ways(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each run's name and its data."""
    yield (
        "cifar10, 0 loaders",
        {"name": "cifar10", "root": str(folder / "files"), "verify": False, "loaders": 0},
    )
    images = {"name": "image_folder", "root": str(folder / "images"), "cache": "none"}
    for loaders in (0, 1, 2):
        yield f"folder, {loaders} loader{'' if loaders == 1 else 's'}", {**images, "loaders": loaders}
    yield "folder held in memory, 1 loader", {**images, "cache": "memory", "loaders": 1}
    yield KILLED, {**images, "loaders": 1}


def measure(name: str, raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, and return the run's result."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    run = DisturbedRun(folder / name.replace(",", "").replace(" ", "-"))
    run.start("train", str(path), f"run_dir={run.run_dir}")
    if name == KILLED:
        run.wait_for_event("checkpoint")
        run.kill_driver(60.0)
        run.start("resume", str(run.run_dir))
    start = time.monotonic()
    while (code := run.ended(1.0)) is None:
        assert time.monotonic() - start < 3600, "the run does not end"
    assert code == 0, run.said()
    return json.loads((run.run_dir / "result.json").read_text())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the data sets, with CIFAR-10")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--minibatches", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    bits = set()
    with tempfile.TemporaryDirectory(prefix="image-folder-") as place:
        folder = Path(place)
        prepare(options.data, options.examples, folder)
        for name, data in ways(folder):
            result = measure(name, config_of(data, options.minibatches), folder)
            bits.add(result["weights_sha256"])
            milliseconds = 1e5 / result["samples_per_second"]
            print(
                f"{name}: {milliseconds:.1f} ms a minibatch, reading {100 * result['reading']:.2f} %, "
                f"{result['weights_sha256'][:16]}",
                flush=True,
            )
    print("all the same bits" if len(bits) == 1 else f"THE BITS DIFFER: {bits}")


if __name__ == "__main__":
    main()
