"""Checkpoints: one safetensors file per layer, and a manifest that is written last.

A folder ``checkpoints/step-000000500`` without a whole ``manifest.json`` is no checkpoint. Nothing is
pickled. Layers, not stages, are the unit, so a run may go on with another number of stages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from dtp_dist.errors import CheckpointError

FOLDER, MANIFEST = "checkpoints", "manifest.json"
ORDER = "order"  # the tensors' names in torch's order, which the format itself does not keep


@dataclass(frozen=True)
class FileEntry:
    """A written file: its name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds and where its run stood.

    ``step`` is the number of minibatches whose last update is done, which is the next one's number.
    ``totals`` are the driver's own sums (losses of the epoch, bytes, seconds), so that a run that goes on
    from here ends with the same result.
    """

    step: int
    epoch: int
    phase: str
    seed: int
    config_sha256: str
    files: tuple[FileEntry, ...]
    totals: dict[str, Any] = field(default_factory=dict)


def layer_file(index: int) -> str:
    """Return the file name of a layer."""
    return f"layer-{index:03d}.safetensors"


def write_file(path: Path, data: bytes) -> None:
    """Write and sync a file, which appears under its name only when it is whole.

    Raises:
        CheckpointError: it can't be written (no space, no right).
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be written ({error.strerror}); make room and resume") from None


def pack_layer(index: int, state: Mapping[str, Tensor]) -> tuple[FileEntry, bytes]:
    """Return one layer's state as the bytes of its file, and the file's entry in the manifest."""
    data = safetensors.torch.save(dict(state), {ORDER: json.dumps(list(state))})
    return FileEntry(layer_file(index), len(data), hashlib.sha256(data).hexdigest()), data


def write_layer(directory: Path, index: int, state: Mapping[str, Tensor]) -> FileEntry:
    """Write one layer's state.

    Raises:
        CheckpointError: it can't be written.
    """
    entry, data = pack_layer(index, state)
    write_file(directory / entry.name, data)
    return entry


def read_layer(directory: Path, index: int) -> dict[str, Tensor]:
    """Return one layer's state in the order it was written, each tensor in an allocation of its own.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = directory / layer_file(index)
    try:
        return unpack_layer(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from None


def unpack_layer(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the state in the bytes of a layer's file, which errors call ``name``.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        loaded = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        names = json.loads(header["__metadata__"][ORDER])
        return {name: loaded[name].clone() for name in names}
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{name}: is damaged ({error})") from None


def new_checkpoint(run_dir: Path, step: int) -> Path:
    """Return an empty folder for the checkpoint of ``step``.

    Raises:
        CheckpointError: it can't be made.
    """
    path = run_dir / FOLDER / f"step-{step:09d}"
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be made ({error.strerror})") from None
    return path


def complete_checkpoint(directory: Path, manifest: Manifest, keep: int) -> None:
    """Write the manifest, which makes the folder a checkpoint, and drop all but the ``keep`` newest.

    Raises:
        CheckpointError: it can't be written.
    """
    write_file(directory / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
    whole = [path for path in _folders(directory.parent) if (path / MANIFEST).exists()]
    for old in whole[:-keep]:
        (old / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


def newest_checkpoint(run_dir: Path) -> tuple[Path, Manifest]:
    """Return the newest checkpoint whose files are all there and whole.

    Raises:
        CheckpointError: there is none; names the first thing that was wrong with each that was tried.
    """
    wrong = []
    for path in reversed(_folders(run_dir / FOLDER)):
        try:
            return path, read_manifest(path)
        except CheckpointError as error:
            wrong.append(str(error))
    reason = "; ".join(wrong) if wrong else "it has not written one yet"
    raise CheckpointError(f"{run_dir}: no whole checkpoint: {reason}")


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a checkpoint after comparing every file with it.

    Raises:
        CheckpointError: the manifest or a file is missing, truncated or another one.
    """
    path = directory / MANIFEST
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        files = tuple(FileEntry(**entry) for entry in raw.pop("files"))
        manifest = Manifest(**raw, files=files)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError(f"{path}: is not a manifest") from None
    for entry in files:
        _compare(directory, entry)
    return manifest


def _compare(directory: Path, entry: FileEntry) -> None:
    path = directory / Path(entry.name).name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from None
    if len(data) != entry.size:
        raise CheckpointError(f"{path}: has {len(data)} bytes instead of {entry.size}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise CheckpointError(f"{path}: is not the file that the manifest names (its SHA-256 differs)")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_layers(directory: Path, count: int) -> Iterable[dict[str, Tensor]]:
    """Yield the states of layers 1 to ``count``.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    for index in range(1, count + 1):
        yield read_layer(directory, index)
