"""Exported networks are the trained ones: what ``export`` prints makes them again, without this package."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from closeness import tolerance
from safetensors.torch import save_file

from dtp_dist import load_config, train
from dtp_dist.algorithm.layers import ModuleOptions
from dtp_dist.config import Config
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError, StorageError
from dtp_dist.storage.export_file import export
from runs import PATIENCE, small

MINE = Path(__file__).parent
LAST = {"kind": "dense", "units": 10, "activation": "linear"}
CONV = {"kind": "conv", "kernel": 3, "padding": 1}
IMAGES = {
    "none": [{**CONV, "channels": 4}, {"kind": "flatten"}, LAST],
    "max": [{**CONV, "channels": 4, "pool": "max"}, {"kind": "flatten"}, LAST],
    "overlapping": [
        {**CONV, "channels": 4, "pool": "max", "pool_kernel": 3, "pool_stride": 2, "pool_padding": 1},
        {"kind": "conv", "channels": 3, "kernel": 3, "stride": 2, "bias": False, "activation": "linear"},
        {"kind": "flatten"},
        LAST,
    ],
    "average": [{**CONV, "channels": 4, "pool": "average", "activation": "relu"}, {"kind": "flatten"}, LAST],
}
BATCH_NORM = [
    {"kind": "dense", "units": 20, "norm": "batch", "activation": each} for each in ("tanh", "relu")
]
STANDARDIZE = ("data.normalize=standardize",)


def mine(kind: str, **args: Any) -> dict[str, Any]:
    return {"kind": f"user_layers:{kind}", "args": args}


def residual(*body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "residual", "body": list(body), **more}


def dense(*activations: str, **settings: Any) -> list[dict[str, Any]]:
    return [{"kind": "dense", "units": 20, "activation": each, **settings} for each in activations]


BATCH_NORM = dense("tanh", "relu", norm="batch")
RUNS: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "every activation": ([*dense("tanh", "sigmoid", "relu", "elu", "linear"), LAST], ()),
    "further activations": ([*dense("leaky_relu", "selu", "gelu", "silu"), LAST], ()),
    "no bias": ([*dense("tanh", bias=False), LAST], ()),
    **{f"images, {pool} pooling": (layers, STANDARDIZE) for pool, layers in IMAGES.items()},
    "batch normalisation": ([*BATCH_NORM, LAST], ()),
    "normalisation by the minibatch alone": (
        [
            {**CONV, "channels": 4, "norm": "minibatch"},
            {"kind": "flatten"},
            *dense("tanh", norm="minibatch"),
            LAST,
        ],
        (),
    ),
    "batch normalisation of images": (
        [{**CONV, "channels": 4, "norm": "batch", "pool": "max"}, {"kind": "flatten"}, LAST],
        (),
    ),
    "layer normalisation": (
        [
            *dense("tanh", "gelu", norm="layer", norm_affine=True, norm_place="before_activation"),
            {"kind": "layer_norm", "affine": False},
            LAST,
        ],
        (),
    ),
    "every other kind": (
        [
            {"kind": "local", "channels": 6, "padding": 1, "activation": "gelu"},
            {"kind": "pool", "pool": "max", "kernel": 3, "stride": 2, "padding": 1},
            {"kind": "layer_norm"},
            {**CONV, "channels": 30, "norm": "batch", "norm_affine": True, "norm_place": "before_activation"},
            {"kind": "dropout", "p": 0.2},
            {"kind": "pool", "pool": "average", "kernel": "global"},
            LAST,
        ],
        ("train.epochs=2",),
    ),
    "signs": ([*dense("tanh", "tanh", input_transmission="sign"), LAST], ()),
    "samples": (
        [*dense("sigmoid"), *dense("sigmoid", "sigmoid", input_transmission="sample"), LAST],
        ("train.evaluate_passes=30", "train.epochs=3"),
    ),
    "standardized pixels": ([*dense("tanh"), LAST], STANDARDIZE),
    "autoencoders": ([*dense("tanh", noise=0.3), LAST], ("rule.name=autoencoder", "train.epochs=3")),
    "bfloat16": ([*dense("tanh", "elu"), *BATCH_NORM, LAST], ("train.dtype=bfloat16", *STANDARDIZE)),
    "tied": ([mine("tied"), LAST], STANDARDIZE),
    "lazy": ([mine("lazy", units=20), LAST], ()),
    "mirrored": ([mine("mirrored", units=20), mine("mirrored", units=64), LAST], ("rule.name=dtp",)),
    "buffers": ([mine("counting", units=20), LAST], ()),
    "residual": (
        [
            residual(
                {**CONV, "channels": 3}, residual({**CONV, "channels": 3, "bias": False}), activation="relu"
            ),
            residual({**CONV, "channels": 4, "stride": 2}, {**CONV, "channels": 4}, activation="linear"),
            {"kind": "flatten"},
            residual(*dense("tanh", norm="batch")),
            LAST,
        ],
        STANDARDIZE,
    ),
    "modules of mine inside": (
        [
            residual(
                mine("tied"), residual(mine("counting", units=64)), projection=mine("mirrored", units=64)
            ),
            LAST,
        ],
        (),
    ),
    "one module of mine": ([mine("images", channels=3), {"kind": "flatten"}, LAST], ()),
}


def config_of(name: str, run_dir: Path) -> Config:
    layers, overrides = RUNS[name]
    images = any(layer["kind"] in ("flatten", "pool") for layer in layers)
    raw = small(
        model={"input": [1, 8, 8] if images else [64], "layers": layers},
        rule={"name": "backprop"},
        optimizer={"forward": {"name": "adam", "lr": 0.01}, "inverse": {"name": "adam", "lr": 0.003}},
        monitor={"tensorboard": False, "trace_minibatches": 0},
    )
    return load_config(raw, [f"run_dir={run_dir}", *overrides])


def pixels(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the test split as pixels in [0, 1], which nothing has standardized."""
    examples = load_batches(config)["test"].examples
    images = examples.rows.all().to(torch.float32) / examples.unit
    return images.view(-1, *config.model.input), examples.labels


BARE = """
import code, json, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "dtp_dist":
            raise ImportError("an exported network needs nothing of dtp_dist")

sys.meta_path.insert(0, Refused())
sys.path.append(sys.argv[1])
import torch
from safetensors.torch import load_file

torch.set_num_threads(1)
found = {}
for name in json.loads(sys.argv[2]):
    console = code.InteractiveConsole({})  # a line at a time, as they are typed or pasted
    console.showtraceback = console.showsyntaxerror = lambda *_, **__: sys.exit(f"{name}: {sys.exc_info()}")
    assert not any([console.push(line) for line in open(f"{name}.py").read().splitlines()][-1:]), name
    network, test = console.locals["network"], load_file(f"{name}.test")
    assert not any(module.training for module in network.modules()), name
    low = "bfloat16" in name
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
        logits = torch.stack([network(test["x"]) for _ in range(int(test["passes"]))]).float()
    mean = logits.softmax(-1).mean(0)
    top = logits[0].topk(2).values
    found[name] = {
        "error": 100 * (mean.argmax(1) != test["labels"]).double().mean().item(),
        "near": 100 * (top[:, 0] - top[:, 1] <= test["doubt"]).double().mean().item(),
        "draws": not torch.equal(logits[0], logits[-1]),
    }
print(json.dumps(found))
"""


def in_a_bare_interpreter(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return what networks made from printed lines do, in a process that can't import this package."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", BARE, str(MINE), json.dumps(names)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def export_run(name: str, config: Config) -> None:
    """Export a run beside its folder, with the lines that were printed and a test of them."""
    run_dir = Path(str(config.run_dir))
    folder = run_dir.parent
    lines = export(run_dir, folder / f"{name}.safetensors", allow_code=True)
    (folder / f"{name}.py").write_text("\n".join(lines) + "\n")
    x, labels = pixels(config)
    eps = torch.finfo(getattr(torch, config.train.dtype)).eps  # sums are float32 in either type
    doubt = torch.tensor(tolerance(torch.float32, 64) + len(config.model.layers) * eps)
    test = {"x": x, "labels": labels, "passes": torch.tensor(config.train.evaluate_passes), "doubt": doubt}
    save_file(test, folder / f"{name}.test")


@pytest.mark.slow
def test_what_is_printed_makes_the_trained_network_without_this_package(tmp_path):
    """A sampled layer draws from torch's own generator, so that its errors are alike and not the same."""
    results = {}
    for name in RUNS:
        config = config_of(name, tmp_path / f"run of {name}")
        results[name] = train(config).result["test_error"]
        export_run(name, config)
    found = in_a_bare_interpreter(tmp_path, list(RUNS))
    for name, error in results.items():
        assert error < 85, f"{name}: it does not learn"
        sampled = name == "samples"
        assert found[name]["draws"] == sampled, name
        assert found[name]["near"] < 5, f"{name}: nothing can be told from such logits"
        allowed = 4 if sampled else 1e-4 + found[name]["near"]
        assert found[name]["error"] == pytest.approx(error, abs=allowed), name
    assert "train.evaluate_passes of the run: 30" in (tmp_path / "samples.py").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(load_config(small(), [f"run_dir={folder}", "train.max_steps=2", "monitor.tensorboard=false"]))
    return folder


@pytest.mark.parametrize("name", ["out.pt", "out.pth", "out", "out.safetensors.pt", "out.bin"])
def test_another_ending_is_refused(run, tmp_path, name):
    with pytest.raises(ConfigError, match=r"is no name for a safetensors file; write .*\.safetensors$"):
        export(run, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_places_that_do_not_fit_are_named_before_anything_is_read(run, tmp_path):
    taken, link = tmp_path / "taken.safetensors", tmp_path / "link.safetensors"
    taken.write_text("mine")
    link.symlink_to(tmp_path / "nothing")
    for target, words in (
        (taken, "exists; name another file or remove it"),
        (link, "exists; name another file or remove it"),
        (tmp_path, "is a folder; name a file in it, .*network.safetensors"),
        (tmp_path / "no" / "out.safetensors", "there is no folder .*no; make it, or name another"),
    ):
        with pytest.raises(ConfigError, match=words):
            export(run, target)
    assert (taken.read_text(), link.is_symlink()) == ("mine", True)


def test_a_failed_export_leaves_nothing_and_says_to_export_again(run, tmp_path, monkeypatch):
    target = tmp_path / "out.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(
            StorageError, match=r"out.safetensors: .*; make room, then type the same command again,"
        ):
            export(run, target)
    assert list(tmp_path.iterdir()) == []
    export(run, target)
    assert [each.name for each in tmp_path.iterdir()] == ["out.safetensors"]


def test_a_buffer_that_no_exported_file_can_hold_is_named(tmp_path):
    raw = small(model={"input": [64], "layers": [mine("random_mask"), LAST]}, rule={"name": "backprop"})
    settings = [f"run_dir={tmp_path / 'run'}", "train.max_steps=2", "monitor.tensorboard=false"]
    train(load_config(raw, settings))
    with pytest.raises(StorageError, match=r"^layer 1: the buffer 'mask' is not persistent.*register"):
        export(tmp_path / "run", tmp_path / "out.safetensors", allow_code=True)


@pytest.mark.parametrize(
    ("kind", "args", "line"),
    [
        ("user_layers:normalized", {"units": 4}, "user_layers.normalized(input_shape=[64], units=4)"),
        ("user_layers:tied", {}, "user_layers.tied(input_shape=[64])[0]"),
        ("torch.nn:Linear", {"in_features": 64, "out_features": 4}, "torch.nn.Linear(in_features=64, out_"),
        ("torch.nn:Identity", {}, "torch.nn.Identity()"),
        ("torch.nn:Identity", {"a b": "c"}, "torch.nn.Identity(**{'a b': 'c'})"),
    ],
)
def test_how_a_users_module_is_made_again(kind, args, line):
    assert ModuleOptions(kind=kind, args=args).source((64,))[1].startswith(line)
