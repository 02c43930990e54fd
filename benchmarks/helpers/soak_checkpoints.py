"""Checkpoints that are swapped with another run's, or edited, while their own run is down."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.victim import Victim

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Good:
    """A copy of a run's checkpoints."""

    kept: Path
    place: Path

    def restore(self) -> None:
        """Put all of them back, and nothing else."""
        shutil.rmtree(self.place)
        shutil.copytree(self.kept, self.place)


def spoil(victim: Victim) -> tuple[str, Good, int]:
    """Spoil the newest whole checkpoint of a run that is down.

    Returns what was done, a copy of the good ones, and the step of the one that was spoilt (0 where there is
    none: the run is resumed from its start).
    """
    place = victim.run.run_dir / "checkpoints"
    place.mkdir(exist_ok=True)
    good = Good(victim.tokens.with_name("good"), place)
    shutil.rmtree(good.kept, ignore_errors=True)
    shutil.copytree(place, good.kept)
    whole = sorted(path.parent for path in place.glob(f"step-*/{MANIFEST}"))
    if not whole:
        return "none to spoil", good, 1
    name = victim.rng.choice(sorted(DEEDS))
    DEEDS[name](whole[-1], victim)
    return name, good, int(whole[-1].name.removeprefix("step-"))


def _other(checkpoint: Path, victim: Victim) -> Path:
    """Return another run's checkpoint of the same step."""
    return victim.others / checkpoint.name


def _swap(checkpoint: Path, victim: Victim) -> None:
    shutil.rmtree(checkpoint)
    shutil.copytree(_other(checkpoint, victim), checkpoint)


def _swap_a_layer(checkpoint: Path, victim: Victim) -> None:
    layer = _layer(checkpoint, victim.rng)
    shutil.copyfile(_other(checkpoint, victim) / layer.name, layer)


def _swap_the_manifest(checkpoint: Path, victim: Victim) -> None:
    shutil.copyfile(_other(checkpoint, victim) / MANIFEST, checkpoint / MANIFEST)


def _flip_a_byte(checkpoint: Path, victim: Victim) -> None:
    layer = _layer(checkpoint, victim.rng)
    data = bytearray(layer.read_bytes())
    data[victim.rng.randrange(len(data))] ^= 1 << victim.rng.randrange(8)
    layer.write_bytes(data)


def _cut_short(checkpoint: Path, victim: Victim) -> None:
    path = victim.rng.choice(sorted(checkpoint.iterdir()))
    path.write_bytes(path.read_bytes()[: victim.rng.randrange(path.stat().st_size)])


def _remove_a_layer(checkpoint: Path, victim: Victim) -> None:
    _layer(checkpoint, victim.rng).unlink()


def _edited(edit: Callable[[dict[str, Any], random.Random], None]) -> Callable[[Path, Victim], None]:
    def deed(checkpoint: Path, victim: Victim) -> None:
        path = checkpoint / MANIFEST
        manifest = json.loads(path.read_text())
        edit(manifest, victim.rng)
        path.write_text(json.dumps(manifest, indent=1))

    return deed


def _layer(checkpoint: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(checkpoint.glob("layer-*")))


def _repeat_a_layer(manifest: dict[str, Any], rng: random.Random) -> None:
    manifest["files"] = [rng.choice(manifest["files"])] * len(manifest["files"])


DEEDS: dict[str, Callable[[Path, Victim], None]] = {
    "swapped with another run's": _swap,
    "a layer of another run": _swap_a_layer,
    "the manifest of another run": _swap_the_manifest,
    "a bit flipped": _flip_a_byte,
    "a file cut short": _cut_short,
    "a layer removed": _remove_a_layer,
    "manifest: step moved": _edited(lambda manifest, rng: manifest.update(step=manifest["step"] + 10)),
    "manifest: seed changed": _edited(lambda manifest, rng: manifest.update(seed=manifest["seed"] + 1)),
    "manifest: no files": _edited(lambda manifest, rng: manifest.update(files=[])),
    "manifest: one layer again and again": _edited(_repeat_a_layer),
    "manifest: a key less": _edited(lambda manifest, rng: manifest.pop(rng.choice(sorted(manifest)))),
    "manifest: a wrong type": _edited(
        lambda manifest, rng: manifest.update({rng.choice(sorted(manifest)): rng.choice([None, [], "x", -1])})
    ),
}
