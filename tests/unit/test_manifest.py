"""What a checkpoint says of itself: everything in it is checked, and what fails lets an older one serve."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dtp_dist.algorithm.optimizers.kinds import OPTIMIZERS
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config import load_config, parse_config, to_dict
from dtp_dist.errors import StorageError
from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import (
    MANIFEST,
    complete_checkpoint,
    new_checkpoint,
    newest_checkpoint,
    write_layer,
)
from dtp_dist.storage.manifest import Manifest, Origin, pack_manifest, unpack_manifest
from dtp_dist.storage.origin import origin_of
from dtp_dist.training.totals import Totals
from runs import small, small_config

LAYERS = 6
ORIGIN = Origin(seed=3, config_sha256="ab" * 32, layers=LAYERS)
Raw = dict[str, Any]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def write(run_dir: Path, step: int, origin: Origin = ORIGIN, keep: int = 9) -> Path:
    folder = new_checkpoint(run_dir, step)
    files = tuple(write_layer(folder, index, {"w": torch.ones(index)}) for index in range(1, LAYERS + 1))
    totals = Totals(busy=[1.0, 0.5], evaluated={"valid_error": 2.5}).state()
    complete_checkpoint(folder, Manifest(step, 0, Phase.BOTH, *origin[:2], files, totals), keep)
    return folder


def change(folder: Path, edit: Callable[[Raw], Any], *, hashed: bool) -> None:
    """Edit a manifest by hand, with a new hash of its own if ``hashed``."""
    from dtp_dist.storage.manifest import digest

    raw = json.loads((folder / MANIFEST).read_text())
    raw = edit(raw) or raw
    if hashed and isinstance(raw, dict):
        raw.pop("sha256", None)
        raw["sha256"] = digest(raw)
    (folder / MANIFEST).write_text(json.dumps(raw))


def at(*path: Any, value: Any) -> Callable[[Raw], None]:
    def edit(raw: Raw) -> None:
        inner: Any = raw
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return edit


def without(name: str) -> Callable[[Raw], None]:
    return lambda raw: raw.pop(name) and None


def one_layer_six_times(raw: Raw) -> None:
    raw["files"] = [raw["files"][0]] * LAYERS


def a_layer_less(raw: Raw) -> None:
    raw["files"].pop()


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


KEYS = ("step", "epoch", "phase", "seed", "config_sha256", "files", "totals")
WRONG_TYPES = [
    *(at(key, value=value) for key in KEYS for value in (None, True, "x", 1.5, -1, [1], {"a": 1})),
    *(at(key, value=10**400) for key in ("step", "epoch")),
    *(
        at("totals", key, value=value)
        for key in ("seconds", "busy", "errors", "before")
        for value in (True, "x")
    ),
    at("totals", "seconds", value=-1.0),
    at("totals", "seconds", value=float("nan")),
    at("totals", "busy", value=[float("inf")]),
    at("totals", "this_epoch", value={"loss": [1.0]}),
    at("totals", "more", value=1),
    at("totals", "errors", value=nested(30)),
    at("totals", "errors", value=nested(300)),
    at("more", value=1),
    at("phase", value="sideways"),
    at("files", 0, "size", value=0),
    at("files", 0, "size", value=2**60),
    at("files", 0, "sha256", value="x"),
    at("files", 0, value=None),
    lambda raw: [raw],
]
FOREIGN = [
    at("files", value=[]),
    one_layer_six_times,
    a_layer_less,
    at("files", 0, "name", value="/etc/passwd"),
    at("files", 0, "name", value="../step-000000020/layer-001.safetensors"),
    at("step", value=31),
    at("seed", value=4),
    at("config_sha256", value="cd" * 32),
    at("format", value=3),
    *(without(key) for key in (*KEYS, "format")),
]


@pytest.mark.parametrize("edit", WRONG_TYPES + FOREIGN)
@pytest.mark.parametrize("hashed", [False, True])
def test_what_a_manifest_may_not_say_lets_the_older_checkpoint_serve(tmp_path, edit, hashed):
    folder = write(tmp_path, 30)
    before = (folder / MANIFEST).read_text()
    change(folder, edit, hashed=hashed)
    assert (folder / MANIFEST).read_text() != before
    with pytest.raises(StorageError) as caught:
        newest_checkpoint(tmp_path, ORIGIN)
    assert "no whole checkpoint: " in str(caught.value)
    assert str(folder / MANIFEST) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    older, said = write(tmp_path, 20), []
    found, manifest = newest_checkpoint(tmp_path, ORIGIN, said.append)
    assert (found, manifest.step) == (older, 20)
    assert len(said) == 1
    assert said[0].startswith(f"checkpoint passed over, an older one taken: {folder / MANIFEST}: ")


@pytest.mark.parametrize(
    "edit", [at("totals", "examples", value=7), at("epoch", value=1), at("phase", value="forward")]
)
def test_a_change_that_could_be_right_is_told_by_the_manifest_s_own_hash(tmp_path, edit):
    folder = write(tmp_path, 30)
    change(folder, edit, hashed=False)
    with pytest.raises(StorageError, match="was changed after it was written"):
        newest_checkpoint(tmp_path, ORIGIN)
    change(folder, edit, hashed=True)
    assert newest_checkpoint(tmp_path, ORIGIN)[1].step == 30, "the hash is no signature"


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"step":' * 100_000,
        b"\xff\xfe",
        b"",
        b"NaN",
        b'{"files": [], "step": 1e999}',
        b"9" * 5000,
    ],
)
def test_bytes_that_are_no_manifest_are_refused_in_one_line(tmp_path, text):
    folder = write(tmp_path, 30)
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(StorageError, match=r"manifest.json: is not a manifest|is of an older form"):
        newest_checkpoint(tmp_path, ORIGIN)


def test_a_manifest_of_the_older_form_says_so(tmp_path):
    folder = write(tmp_path, 30)
    older = {
        "step": 30,
        "epoch": 0,
        "phase": "both",
        "seed": 3,
        "config_sha256": "ab" * 32,
        "files": [],
        "totals": {},
    }
    (folder / MANIFEST).write_text(json.dumps(older))
    with pytest.raises(
        StorageError, match="is of an older form than this version reads; resume with the version"
    ):
        newest_checkpoint(tmp_path, ORIGIN)


@pytest.mark.parametrize("other", [ORIGIN._replace(seed=4), ORIGIN._replace(config_sha256="cd" * 32)])
def test_another_run_s_checkpoint_is_passed_over(tmp_path, other):
    write(tmp_path, 40, other)
    with pytest.raises(StorageError, match="is of another experiment"):
        newest_checkpoint(tmp_path, ORIGIN)
    write(tmp_path, 30)
    said: list[str] = []
    assert newest_checkpoint(tmp_path, ORIGIN, said.append)[1].step == 30
    assert len(said) == 1


def test_a_checkpoint_of_a_network_of_another_depth_is_passed_over(tmp_path):
    write(tmp_path, 30)
    with pytest.raises(StorageError, match=r"layer-001.safetensors to layer-007.safetensors once"):
        newest_checkpoint(tmp_path, ORIGIN._replace(layers=LAYERS + 1))


def test_a_checkpoint_that_was_renamed_is_passed_over(tmp_path):
    folder = write(tmp_path, 30)
    folder.rename(folder.with_name("step-000000050"))
    with pytest.raises(StorageError, match="is of step 30, which its folder's name does not say"):
        newest_checkpoint(tmp_path, ORIGIN)


def test_folders_of_other_names_are_none(tmp_path):
    folder = write(tmp_path, 30)
    for name in ("step-", "step-40", "step-00000004x", "step-" + "9" * 40, "step-\u0664" + "0" * 8):
        folder.parent.joinpath(name).mkdir()
    said: list[str] = []
    assert newest_checkpoint(tmp_path, ORIGIN, said.append)[0] == folder
    assert said == []


def test_an_unfinished_one_is_not_told_of(tmp_path):
    write(tmp_path, 30)
    new_checkpoint(tmp_path, 60)
    said: list[str] = []
    assert newest_checkpoint(tmp_path, ORIGIN, said.append)[1].step == 30
    assert said == []


def test_a_checkpoint_that_was_passed_over_does_not_displace_newer_work(tmp_path):
    """One of a later step that can't be used counted among those to keep, and the new one was removed."""
    change(write(tmp_path, 30), at("seed", value=9), hashed=True)
    write(tmp_path, 20)
    write(tmp_path, 25, keep=1)
    said: list[str] = []
    assert newest_checkpoint(tmp_path, ORIGIN, said.append)[1].step == 25


def test_what_is_no_file_neither_hangs_nor_fills_the_memory(tmp_path):
    for number, plant in enumerate((os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path))):
        for name in (MANIFEST, "layer-002.safetensors"):
            folder = write(tmp_path / str(number), 30)
            (folder / name).unlink()
            plant(folder / name)
            with pytest.raises(StorageError, match=rf"{name}: can't be read"):
                newest_checkpoint(tmp_path / str(number), ORIGIN)


def test_a_huge_manifest_is_refused_before_it_is_read(tmp_path):
    folder = write(tmp_path, 30)
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(StorageError, match="it has more than 16777216 bytes"):
        newest_checkpoint(tmp_path, ORIGIN)


def test_a_manifest_reads_back_as_it_was():
    totals = Totals(step=7, examples=3, seconds=0.1, busy=[0.1], evaluated={"test_error": 1 / 3})
    totals.this_epoch.add("loss", 1 / 3, 40)
    manifest = Manifest(7, 0, Phase.FORWARD, *ORIGIN[:2], (), totals.state())
    assert unpack_manifest(pack_manifest(manifest)) == manifest
    assert Totals.from_state(manifest.totals, 7, 0).state() == totals.state()


FREELY_CHANGED = (
    *("train.epochs=50", "train.max_steps=7", "parallel.stages=2", "parallel.in_flight=2", "monitor.every=3"),
    *("run_dir=x", "name=other", "data.root=elsewhere", "data.eval_batch_size=7", "train.keep_checkpoints=5"),
)
NOT_FREE = (
    *(
        "seed=1",
        "optimizer.forward.lr=0.5",
        "data.batch_size=20",
        "model.defaults.inverse.sigma=0.1",
        "rule.name=ldrl",
    ),
    *("train.dtype=bfloat16", "optimizer.forward={name: sgd, lr: 1.0e-3}", "model.defaults.activation=relu"),
)


@pytest.mark.parametrize("override", FREELY_CHANGED)
def test_where_and_how_long_a_run_goes_on_is_not_its_identity(override):
    assert origin_of(small_config(override)) == origin_of(small_config())


@pytest.mark.parametrize("override", NOT_FREE)
def test_what_decides_the_numbers_is_the_identity(override):
    assert origin_of(small_config(override)) != origin_of(small_config())


def test_the_identity_is_the_same_when_a_run_s_configuration_is_read_again(tmp_path):
    config = small_config("optimizer.forward.lr={schedule: cosine, start: 1, end: 0, length: 3, unit: epoch}")
    assert origin_of(parse_config(to_dict(config))) == origin_of(config)
    from dtp_dist.config import to_yaml

    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert origin_of(load_config(tmp_path / "config.yaml")) == origin_of(config)


def test_variants_with_nothing_but_defaults_have_identities_of_their_own():
    """A variant's own name is the default of its class, and may not be left out with the others."""
    raw = small()
    rules = {origin_of(load_config({**raw, "rule": {"name": name}})) for name in RULES}
    assert len(rules) == len(RULES)
    optimizers = set()
    for name in OPTIMIZERS:
        optimizer = {"forward": {"name": name, "lr": 0.1}, "inverse": {"name": "sgd", "lr": 0.1}}
        optimizers.add(origin_of(load_config({**raw, "optimizer": optimizer})))
    assert len(optimizers) == len(OPTIMIZERS)


def test_a_manifest_of_before_evaluations_were_judged_is_read(tmp_path):
    def without_later_keys(raw: Raw) -> None:
        for key in ("best", "improved", "waited", "epoch_examples", "epoch_seconds"):
            del raw["totals"][key]

    folder = write(tmp_path, 30)
    change(folder, without_later_keys, hashed=True)
    found = newest_checkpoint(tmp_path, ORIGIN)[1].totals
    assert (found.best, found.improved, found.waited, found.epoch_examples) == (None, None, 0, 0)
