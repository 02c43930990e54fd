"""Checkpoints: one safetensors file per layer, and a manifest that is written last.

A folder ``checkpoints/step-000000500`` without a whole ``manifest.json`` is no checkpoint. Nothing is
pickled. Layers, not stages, are the unit, so a run may continue with another number of stages.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dtp_dist.errors import StorageError
from dtp_dist.storage.files import unreadable, unwritable, write_file
from dtp_dist.storage.manifest import LAYER_BYTES, Origin, compare_origin, pack_manifest, unpack_manifest
from dtp_dist.storage.manifest import FileEntry as FileEntry
from dtp_dist.storage.manifest import Manifest as Manifest
from dtp_dist.storage.manifest import layer_file as layer_file
from dtp_dist.text.foreign import TEXT_BYTES, is_regular, open_regular, parse_json, read_file
from dtp_dist.text.printable import printable

log = logging.getLogger(__name__)

FOLDER, MANIFEST = "checkpoints", "manifest.json"
ORDER = "order"  # the tensors' names in torch's order, which the format itself does not keep


def pack_layer(index: int, state: Mapping[str, Tensor]) -> tuple[FileEntry, bytes]:
    """Return one layer's state as the bytes of its file, and the file's entry in the manifest."""
    data = safetensors.torch.save(dict(state), {ORDER: json.dumps(list(state))})
    return FileEntry(layer_file(index), len(data), hashlib.sha256(data).hexdigest()), data


def write_layer(directory: Path, index: int, state: Mapping[str, Tensor]) -> FileEntry:
    """Write one layer's state.

    Raises:
        StorageError: it can't be written.
    """
    entry, data = pack_layer(index, state)
    write_file(directory / entry.name, data)
    return entry


def read_layer(directory: Path, index: int) -> dict[str, Tensor]:
    """Return one layer's state in the order it was written, each tensor in an allocation of its own.

    Raises:
        StorageError: the file is missing or damaged.
    """
    return unpack_layer(layer_bytes(directory, index), str(directory / layer_file(index)))


def layer_bytes(directory: Path, index: int) -> bytes:
    """Return the content of a layer's file.

    Raises:
        StorageError: the file is missing.
    """
    path = directory / layer_file(index)
    try:
        return read_file(path, LAYER_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None


def unpack_layer(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the state in the bytes of a layer's file, which errors call ``name``.

    Raises:
        StorageError: it is damaged.
    """
    try:
        loaded = safetensors.torch.load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        names = parse_json(header["__metadata__"][ORDER])
        if not isinstance(names, list) or sorted(names) != sorted(loaded):
            raise ValueError("its tensors are not those that it names")
        return {name: loaded[name].clone() for name in names}
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StorageError(f"{name}: is damaged ({error})") from None


def new_checkpoint(run_dir: Path, step: int) -> Path:
    """Return an empty folder for the checkpoint of ``step``.

    Raises:
        StorageError: it can't be made.
    """
    path = run_dir / FOLDER / _name(step)
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error, "made") from None
    return path


def complete_checkpoint(directory: Path, manifest: Manifest, keep: int, *, keep_best: bool = False) -> None:
    """Write the manifest, which makes the folder a checkpoint, and drop all before it but ``keep - 1``.

    With ``keep_best`` those stay, too, that it or another one that is kept names as the best: so whichever of
    them a run goes back to, its best is there.

    Raises:
        StorageError: it can't be written.
    """
    write_file(directory / MANIFEST, pack_manifest(manifest))
    before = [path for step, path in _folders(directory.parent) if step < manifest.step]
    whole = [path for path in before if is_regular(path / MANIFEST)]
    dropped = whole[: max(0, len(whole) + 1 - keep)]
    best = {_best_of(manifest), *map(_read_best, whole[len(dropped) :])} if keep_best else set()
    for old in dropped:
        if old.name not in best:
            (old / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)


def _best_of(manifest: Manifest) -> str | None:
    """Return the folder's name of the best checkpoint that a manifest knows of."""
    best = manifest.totals.best
    return None if best is None else _name(best.step)


def _read_best(directory: Path) -> str | None:
    with suppress(OSError, StorageError):
        return _best_of(unpack_manifest(read_file(directory / MANIFEST, TEXT_BYTES)))
    return None


def newest_checkpoint(
    run_dir: Path, origin: Origin, passed_over: Callable[[str], None] = log.warning
) -> tuple[Path, Manifest]:
    """Return the newest checkpoint of an experiment whose files are all there and whole.

    Args:
        run_dir: the run's folder.
        origin: what the checkpoint must be of (``config.compare.origin_of``).
        passed_over: told in one line of each newer one that can't be used, and why. A folder without a
            manifest is none: a run that was ended while it wrote one leaves it.

    Raises:
        StorageError: there is none; names the first thing that was wrong with each that was tried.
    """
    wrong = []
    for _, path in reversed(_folders(run_dir / FOLDER)):
        try:
            found = path, read_manifest(path, origin)
        except StorageError as error:
            wrong.append((path, str(error)))
            continue
        for each, reason in wrong:
            if os.path.lexists(each / MANIFEST):
                passed_over(printable(f"checkpoint passed over, an older one taken: {reason}"))
        return found
    reasons = "; ".join(reason for _, reason in wrong)
    reasons = reasons or "it has not written one yet; dtp-dist resume starts it again"
    raise StorageError(f"{run_dir}: no whole checkpoint: {reasons}")


def best_checkpoint(run_dir: Path, origin: Origin) -> tuple[Path, Manifest]:
    """Return the checkpoint whose validation was best, as far as the newest whole one knows.

    Raises:
        StorageError: none was kept, or it can't be used; or as ``newest_checkpoint``.
    """
    best = newest_checkpoint(run_dir, origin)[1].totals.best
    if best is None or not has_checkpoint(run_dir, best.step):
        text = "train with train.keep_best=true, or take the newest one, without --best"
        raise StorageError(f"{run_dir}: no best checkpoint was kept; {text}")
    path = run_dir / FOLDER / _name(best.step)
    try:
        return path, read_manifest(path, origin)
    except StorageError as error:
        raise StorageError(f"{error}; it is the best one: take the newest, without --best") from None


def has_checkpoint(run_dir: Path, step: int) -> bool:
    """Whether a run has a checkpoint of ``step``, whole or not."""
    return os.path.lexists(run_dir / FOLDER / _name(step) / MANIFEST)


def no_checkpoint_yet(run_dir: Path) -> bool:
    """Whether a run has never come to a whole checkpoint: what it has begun, if anything, has no manifest."""
    return not any(os.path.lexists(path / MANIFEST) for _, path in _folders(run_dir / FOLDER))


def read_manifest(directory: Path, origin: Origin) -> Manifest:
    """Return the manifest of a checkpoint after checking all that it says, and every file against it.

    Raises:
        StorageError: the manifest or a file is missing, truncated or another one, or it is a checkpoint of
            another experiment or step.
    """
    path = directory / MANIFEST
    try:
        manifest = unpack_manifest(read_file(path, TEXT_BYTES))
        compare_origin(manifest, origin)
        if directory.name != _name(manifest.step):
            raise StorageError(f"is of step {manifest.step}, which its folder's name does not say")
    except OSError as error:
        raise unreadable(path, error) from None
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from None
    for entry in manifest.files:
        _compare(directory / entry.name, entry)
    return manifest


def _compare(path: Path, entry: FileEntry) -> None:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest() if size == entry.size else None
    except OSError as error:
        raise unreadable(path, error) from None
    if digest is None:
        raise StorageError(f"{path}: has {size} bytes instead of {entry.size}")
    if digest != entry.sha256:
        raise StorageError(f"{path}: is not the file that the manifest names (its SHA-256 differs)")


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _folders(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of what may be checkpoints, the newest last."""
    named = [(re.fullmatch(r"step-([0-9]{9,16})", path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in named if match and path.is_dir())


class LayerFile(Mapping[str, Tensor]):
    """One layer's state by name, in the order it was written; a tensor is read when it is asked for.

    Raises:
        StorageError: the file is missing or damaged.
    """

    def __init__(self, directory: Path, index: int) -> None:
        self._path = directory / layer_file(index)
        with self._open() as file:
            self._names: list[str] = parse_json(file.metadata()[ORDER])
            if sorted(self._names) != sorted(file.keys()):
                raise ValueError("it does not hold the tensors that it names")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with safe_open(self._path, framework="pt") as file:
                yield file
        except OSError as error:  # its words differ from the system's, and name the path again
            reason = os.strerror(errno.ENOENT) if isinstance(error, FileNotFoundError) else str(error)
            raise StorageError(f"{self._path}: can't be read ({reason})") from None
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise StorageError(f"{self._path}: is damaged ({error})") from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with self._open() as file:
            value: Tensor = file.get_tensor(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_layers(directory: Path, count: int) -> list[LayerFile]:
    """Return the states of layers 1 to ``count``, whose tensors are read one by one when they are asked for.

    Raises:
        StorageError: a file is missing or damaged.
    """
    return [LayerFile(directory, index) for index in range(1, count + 1)]
