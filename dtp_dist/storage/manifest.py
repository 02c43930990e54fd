"""The manifest of a checkpoint: what it holds, where its run stood, and of which experiment it is.

It carries the SHA-256 of all else that it says, so that what was changed by accident or by hand is told from
what was written. It is no signature: whoever can write a checkpoint can write its hashes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from dtp_dist.errors import StorageError
from dtp_dist.schedule import Phase
from dtp_dist.text.foreign import parse_json

FORMAT = 2
"""The form of a manifest; those of form 1 had no such number, nor a hash of their own."""

LAYER_BYTES = 2**36
"""So many bytes the file of one layer may have."""

Count = Annotated[int, Field(ge=0, lt=2**53)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Sums = dict[str, tuple[Finite, Finite]]
"""Of a meter: name -> (sum, weight)."""


class _Whole:
    """What is read may have no keys but its own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class FileEntry(_Whole):
    """A written file: its name, size in bytes and SHA-256."""

    name: str
    size: Annotated[int, Field(gt=0, le=LAYER_BYTES)]
    sha256: Digest


@dataclass(frozen=True)
class Mark(_Whole):
    """What an evaluation in ``epoch`` (0-based), after ``step`` minibatches, came to."""

    step: Count
    epoch: Count
    value: Finite


@dataclass(frozen=True)
class TotalsState(_Whole):
    """A driver's own sums (losses of the epoch, bytes, seconds) and its best evaluation as plain data."""

    bytes_sent: Count
    examples: Count
    seconds: Amount
    busy: list[Amount]
    errors: dict[str, Finite]
    this_epoch: Sums
    before: Sums
    reading: Amount = 0.0  # checkpoints of earlier versions have none of these
    best: Mark | None = None
    improved: Mark | None = None
    waited: Count = 0
    epoch_examples: Count = 0
    epoch_seconds: Amount = 0.0


@dataclass(frozen=True)
class Manifest(_Whole):
    """What a checkpoint holds and where its run stood.

    ``step`` is the number of minibatches whose last update is done, which is the next one's number.
    ``config_sha256`` is that of everything in the configuration that makes the experiment. With ``totals`` a
    run that continues from here ends with the same result.
    """

    step: Count
    epoch: Count
    phase: Phase
    seed: Annotated[int, Field(ge=0)]
    config_sha256: Digest
    files: tuple[FileEntry, ...]
    totals: TotalsState


class Origin(NamedTuple):
    """What a checkpoint must be of: the seed and the hash of its experiment, and its number of layers."""

    seed: int
    config_sha256: str
    layers: int


_ADAPTER = TypeAdapter(Manifest)


def layer_file(index: int) -> str:
    """Return the file name of a layer."""
    return f"layer-{index:03d}.safetensors"


def pack_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest's file."""
    told = {"format": FORMAT, **asdict(manifest), "phase": str(manifest.phase)}
    return json.dumps({**told, "sha256": digest(told)}, indent=1).encode()


def unpack_manifest(data: bytes) -> Manifest:
    """Return the manifest in the bytes of its file, with every type and range checked, and its own hash.

    Raises:
        StorageError: it is none, of another form, or changed; says what is wrong.
    """
    try:
        raw = parse_json(data)
    except ValueError as error:
        raise StorageError(f"is not a manifest ({error})") from None
    if not isinstance(raw, dict) or not {"step", "files"} <= raw.keys():
        raise StorageError("is not a manifest")
    form = raw.pop("format", 1)
    if form != FORMAT:
        older = "an older" if form == 1 else "another"
        text = "resume with the version of dtp_dist that wrote it, or train again"
        raise StorageError(f"is of {older} form than this version reads; {text}")
    sha256 = raw.pop("sha256", None)
    try:
        found = _ADAPTER.validate_json(json.dumps(raw, allow_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StorageError(f"is not a manifest ({place}: {first['msg']})") from None
    except (ValueError, RecursionError) as error:
        raise StorageError(f"is not a manifest ({error})") from None
    if sha256 != digest({"format": FORMAT, **raw}):
        raise StorageError("was changed after it was written (its own SHA-256 differs)")
    return found


def digest(told: dict[str, Any]) -> str:
    """Return the hash of what a manifest says, but for the hash itself."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def compare_origin(manifest: Manifest, origin: Origin) -> None:
    """Compare a manifest with what it must be of.

    Raises:
        StorageError: it is of another experiment, or does not have each layer's file once.
    """
    told = (manifest.seed, manifest.config_sha256)
    if told != (origin.seed, origin.config_sha256):
        seeds = f"seed {manifest.seed}" if manifest.seed != origin.seed else "the configuration"
        raise StorageError(f"is of another experiment than the run's configuration ({seeds} differs)")
    due = [layer_file(index) for index in range(1, origin.layers + 1)]
    if sorted(entry.name for entry in manifest.files) != due:
        text = f"it must be each of {due[0]} to {due[-1]} once"
        raise StorageError(f"does not name the files of the network's layers; {text}")
