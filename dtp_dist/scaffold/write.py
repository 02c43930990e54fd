"""The text of a first configuration, which is checked before it is written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dtp_dist.config import load_config
from dtp_dist.config.batches import check_data
from dtp_dist.config.source import ConfigLoader
from dtp_dist.errors import ConfigError
from dtp_dist.scaffold.found import Found
from dtp_dist.scaffold.looking import look
from dtp_dist.scaffold.network import network_for
from dtp_dist.storage.files import write_file
from dtp_dist.text.foreign import parse_yaml
from dtp_dist.text.numbers import short, whole
from dtp_dist.text.printable import printable

MINIBATCHES, LARGEST_BATCH, SMALLEST_BATCH = 20, 100, 5
"""Of an epoch, at least, and how many examples a minibatch has."""

SUFFIX = ".yaml"
WIDTH = 100


def write_start(path: Path, target: Path | None = None) -> tuple[Path, Found]:
    """Write a configuration for the data in a folder or a file; return its path and what was found.

    Args:
        path: the folder, or the file.
        target: the file to write; None: the folder's name with ``.yaml``, in the working directory.

    Raises:
        DataError: there are no data that can be trained on.
        ConfigError: the file is there already; nothing is overwritten.
        StorageError: it can't be written.
    """
    target = target or Path(f"{_stem(path)}{SUFFIX}")
    if target.exists() or target.is_symlink():
        raise ConfigError(
            f"{target}: exists, and is never overwritten; name another file: --out FILE{SUFFIX}"
        )
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: there is no folder {target.parent}; make it, or name another")
    found = look(path)
    text = start_text(found, target)
    check_data(load_config({"name": target.stem, **parse_yaml(text, ConfigLoader)}))
    write_file(target, text.encode())
    return target, found


def _stem(path: Path) -> str:
    """Return the name of the data: ``photos`` of ``photos/``, ``flowers`` of ``flowers.csv.gz``."""
    path = path.resolve()
    name = path.name if path.is_dir() else path.name.partition(".")[0]
    return printable(name) or "data"


def start_text(found: Found, target: Path) -> str:
    """Return a commented configuration, YAML."""
    return "\n".join(_lines(found, target)) + "\n"


def _lines(found: Found, target: Path) -> Iterator[str]:
    splits, network = found.splits, network_for(found.splits.shape)
    yield f"# A start for {found.in_words}, by dtp-dist init."
    yield f"# Train it: {shlex.join(['dtp-dist', 'train', str(target)])}"
    yield "# What every key means: dtp-dist config --explain"
    yield "model:"
    yield f"  input: {_flow(network.input)}{_remark(_of_input(network.input, splits.shape))}"
    yield from _loss(found)
    yield f"  defaults: {network.defaults}"
    yield "  layers:"
    for layer, remark in network.layers:
        yield f"    - {layer}{_remark(remark)}"
    each = "class" if splits.classes is not None else "number"
    yield f"    - {{kind: dense, units: {splits.outputs}, activation: linear}}  # an output for each {each}"
    yield "# Difference Target Propagation; to compare it with backpropagation write rule: {name: backprop}"
    yield "rule: {name: dtp, target_step: 0.33}"
    yield "optimizer:"
    yield "  forward: {name: adam, lr: 1.0e-3}  # of the layers"
    yield "  inverse: {name: adam, lr: 1.0e-3}  # of the inverses, which take targets down a layer"
    yield "train: {epochs: 20}"
    yield "data:"
    yield from _data(found)
    yield "# Two processes, each with half of the layers, at once:"
    yield "# parallel: {runtime: local, stages: 2, in_flight: 2}"


def _of_input(given: list[int], shape: tuple[int, ...]) -> str:
    if len(given) == 3:
        return "channels, height, width"
    return "" if len(shape) == 1 else f"the numbers of an example, which has the shape {_flow(list(shape))}"


def _loss(found: Found) -> Iterator[str]:
    if found.numbers is None:
        return
    if found.binary:
        yield "  loss: binary_cross_entropy  # each number says whether a label is there"
        return
    low, high = (short(float(each)) for each in (found.numbers.min(), found.numbers.max()))
    yield f"  loss: mse  # targets are from {low} to {high}; scale them if they are far from 0 and 1"


def _data(found: Found) -> Iterator[str]:
    train = len(found.splits.train)
    batch = max(SMALLEST_BATCH, min(LARGEST_BATCH, train // MINIBATCHES))
    yield f"  name: {found.name}"
    yield f"  root: {_flow(str(found.root))}"
    yield f"  batch_size: {batch}"
    if found.varies:
        channel = "channel" if len(found.splits.shape) > 1 else "feature"
        yield f"  normalize: standardize  # each {channel} has mean 0 and deviation 1 in the training split"
    else:
        yield "  # normalize: standardize is not possible: a channel or feature is the same in all examples"
    if found.valid_examples is not None:
        yield f"  valid_examples: {found.valid_examples}"
    if not found.verify:
        yield "  verify: false  # the files are whole, but their checksums are not torchvision's"
    if found.options:
        yield "  options:"
    for name, setting in found.options.items():
        if setting.remark:
            yield f"    # {printable(setting.remark)}"
        yield from _block(name, setting.value)
    yield from _splits(found)


def _splits(found: Found) -> Iterator[str]:
    parts = {"training": found.splits.train, "validation": found.splits.valid, "test": found.splits.test}
    sizes = ", ".join(f"{whole(len(each))} {name}" for name, each in parts.items() if each is not None)
    yield f"  # {sizes} {found.things} (valid_examples: N leaves N for validation)"


def _block(name: str, value: Any) -> Iterator[str]:
    first, *rest = _flow(value, WIDTH).splitlines()
    yield f"    {name}: {first}"
    yield from (f"      {line}" for line in rest)


def _flow(value: Any, width: int = 2**20) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=width, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _remark(text: str) -> str:
    return f"  # {text}" if text else ""
