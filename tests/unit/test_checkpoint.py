"""Checkpoints: whole or not there, and what is damaged is never loaded."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import Tensor

from dtp_dist.errors import StorageError
from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import (
    MANIFEST,
    Manifest,
    complete_checkpoint,
    layer_file,
    new_checkpoint,
    newest_checkpoint,
    read_layer,
    read_layers,
    read_manifest,
    write_layer,
)
from dtp_dist.storage.files import write_file
from dtp_dist.storage.manifest import Origin
from dtp_dist.training.totals import Totals

STATE = {
    "forward.weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "forward.bias": torch.zeros(3),
    "forward.buffer.count": torch.tensor(7),
    "forward.optimizer.0.step": torch.tensor(2.0),
    "inverse.a.weight": torch.ones(2, 3),
    "forward.empty": torch.zeros(0, 4),
    "forward.nan": torch.tensor([float("nan"), float("inf")]),
}

ORIGIN = Origin(seed=0, config_sha256="0" * 64, layers=2)


def write_checkpoint(run_dir: Path, step: int, keep: int = 2) -> Path:
    folder = new_checkpoint(run_dir, step)
    files = tuple(write_layer(folder, index, STATE) for index in (1, 2))
    complete_checkpoint(folder, Manifest(step, 0, Phase.BOTH, *ORIGIN[:2], files, Totals().state()), keep)
    return folder


def steps(run_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").iterdir())


def assert_same_state(found: Mapping[str, Tensor]) -> None:
    assert list(found) == list(STATE), "in the order in which it was written"
    for name, value in STATE.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].numpy().tobytes() == value.numpy().tobytes()


def test_a_layer_comes_back_bit_for_bit_and_in_order(tmp_path):
    entry = write_layer(tmp_path, 12, STATE)
    assert entry.name == layer_file(12) == "layer-012.safetensors"
    assert entry.size == (tmp_path / entry.name).stat().st_size
    assert_same_state(read_layer(tmp_path, 12))


def test_each_tensor_has_an_allocation_of_its_own_that_is_aligned(tmp_path):
    """A view into the file's bytes would change the last bits of a product."""
    write_layer(tmp_path, 1, STATE)
    found = read_layer(tmp_path, 1)
    for value in found.values():
        assert value.storage_offset() == 0
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
        assert value.data_ptr() % 16 == 0


def test_two_writes_of_one_state_are_the_same_file(tmp_path):
    one = write_layer(tmp_path, 1, STATE)
    assert write_layer(tmp_path, 1, STATE) == one


def test_a_checkpoint_and_its_manifest_read_back(tmp_path):
    folder = write_checkpoint(tmp_path, 30)
    found, manifest = newest_checkpoint(tmp_path, ORIGIN)
    assert found == folder
    assert (manifest.step, manifest.epoch, manifest.phase) == (30, 0, "both")
    assert [entry.name for entry in manifest.files] == ["layer-001.safetensors", "layer-002.safetensors"]
    for state in read_layers(folder, 2):
        assert_same_state(state)
        assert len(state) == len(STATE)
        with pytest.raises(KeyError, match=r"forward\.wait"):
            state["forward.wait"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, r"layer-001.safetensors: can't be read \(No such file or directory\)$"),
        (b"", r"layer-001.safetensors: is damaged \("),
        (b"0" * 200, r"layer-001.safetensors: is damaged \("),
        (safetensors.torch.save(STATE), r"layer-001.safetensors: is damaged \("),
        (
            safetensors.torch.save(STATE, {"order": '["forward.bias"]'}),
            "it does not hold the tensors that it",
        ),
        (safetensors.torch.save(STATE, {"order": "[1, [2]]"}), r"layer-001.safetensors: is damaged \("),
    ],
)
def test_a_file_whose_tensors_are_read_one_by_one_is_whole_or_refused(tmp_path, data, said):
    if data is not None:
        (tmp_path / layer_file(1)).write_bytes(data)
    with pytest.raises(StorageError, match=said):
        read_layers(tmp_path, 1)


def test_a_file_that_is_cut_off_later_is_refused_too(tmp_path):
    write_layer(tmp_path, 1, STATE)
    (state,) = read_layers(tmp_path, 1)
    truncate(tmp_path / layer_file(1))
    with pytest.raises(StorageError, match=r"layer-001.safetensors: is damaged \("):
        state["forward.weight"]


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path):
    write_checkpoint(tmp_path, 30)
    write_layer(new_checkpoint(tmp_path, 60), 1, STATE)
    assert newest_checkpoint(tmp_path, ORIGIN)[1].step == 30


def test_a_folder_that_a_killed_run_left_is_begun_again(tmp_path):
    write_layer(new_checkpoint(tmp_path, 60), 3, STATE)
    folder = new_checkpoint(tmp_path, 60)
    assert list(folder.iterdir()) == []


def test_only_the_newest_are_kept_and_unfinished_ones_do_not_count(tmp_path):
    for step in (10, 20):
        write_checkpoint(tmp_path, step)
    new_checkpoint(tmp_path, 25)
    write_checkpoint(tmp_path, 30)
    assert steps(tmp_path) == [20, 25, 30]
    write_checkpoint(tmp_path, 40, keep=1)
    assert steps(tmp_path) == [25, 40]


def test_the_newest_is_by_number_not_by_text(tmp_path):
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, step, keep=9)
    assert newest_checkpoint(tmp_path, ORIGIN)[1].step == 100


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = [
    (truncate, layer_file(2), r"layer-002.safetensors: has \d+ bytes instead of \d+"),
    (flip, layer_file(2), r"layer-002.safetensors: .* SHA-256 differs"),
    (remove, layer_file(1), r"layer-001.safetensors: can't be read \(No such file"),
    (truncate, MANIFEST, "manifest.json: is not a manifest"),
    (remove, MANIFEST, r"manifest.json: can't be read \(No such file"),
]


@pytest.mark.parametrize(("damage", "name", "words"), DAMAGES)
def test_a_damaged_checkpoint_is_named_and_an_older_one_taken(
    tmp_path: Path, damage: Callable[[Path], None], name: str, words: str
):
    folder = write_checkpoint(tmp_path, 30)
    damage(folder / name)
    with pytest.raises(StorageError, match=words):
        read_manifest(folder, ORIGIN)
    with pytest.raises(StorageError, match=words):
        newest_checkpoint(tmp_path, ORIGIN)
    write_checkpoint(tmp_path, 20)
    assert newest_checkpoint(tmp_path, ORIGIN)[1].step == 20


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"files": [{"name": "x"}]}', '{"files": 3}', "null"])
def test_a_manifest_of_something_else_is_refused(tmp_path, text):
    folder = write_checkpoint(tmp_path, 30)
    (folder / MANIFEST).write_text(text)
    with pytest.raises(StorageError, match="is not a manifest"):
        read_manifest(folder, ORIGIN)


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, b"\xff" * 64, b"x" * 1000])
def test_a_file_that_holds_no_layer_is_refused(tmp_path, data):
    (tmp_path / layer_file(1)).write_bytes(data)
    with pytest.raises(StorageError, match=r"layer-001.safetensors: is damaged"):
        read_layer(tmp_path, 1)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(StorageError, match="no whole checkpoint: it has not written one yet"):
        newest_checkpoint(tmp_path, ORIGIN)


@pytest.mark.parametrize("call", ["open", "fsync", "rename"])
def test_a_file_appears_whole_or_not_at_all_and_nothing_is_left_of_it(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_file(path, b"old")

    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(*((Path, call) if call == "rename" else (os, call)), Mock(side_effect=full))
    with pytest.raises(
        StorageError,
        match=r"file: can't be written \(No space .*; make room, then type the same command again,",
    ):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_really_full_leaves_nothing(tmp_path):
    """Files of this process may grow to 4,096 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"file: can't be written \(File too large\)"):
            write_file(tmp_path / "file", bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed(tmp_path, monkeypatch):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"mine")
    for name in ("file", "file.partial"):
        (tmp_path / name).symlink_to(victim)
    write_file(path, b"new")
    assert (victim.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"mine", b"new", False)

    monkeypatch.setattr("dtp_dist.storage.files.secrets.token_hex", lambda size: "guessed")
    planted = tmp_path / ".dtp_dist-guessed.partial"
    planted.symlink_to(victim)
    with pytest.raises(StorageError, match=r"file: can't be written \(File exists\)"):
        write_file(path, b"newer")
    assert (victim.read_bytes(), path.read_bytes()) == (b"mine", b"new")


def test_a_place_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(StorageError, match=r"step-000000001: can't be made"):
        new_checkpoint(tmp_path, 1)
    with pytest.raises(StorageError, match=r"can't be written"):
        write_file(tmp_path / "missing" / "file", b"")
