"""Whether a changed configuration is still the same experiment, and still ends with the same bits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from dtp_dist.config.load import to_dict
from dtp_dist.config.schema import Config
from dtp_dist.errors import ConfigError
from dtp_dist.storage.manifest import Origin
from dtp_dist.text.dotted import flat

FREE = (
    "name",
    "run_dir",
    "code_dir",
    "compare",
    "monitor.",
    "parallel.",
    "data.root",
    "data.cache",
    "data.loaders",
    "data.verify",
    "data.eval_batch_size",
    "train.epochs",
    "train.max_steps",
    "train.keep_best",
    "train.keep_checkpoints",
    "train.min_delta",
    "train.patience",
    "train.evaluate_every",
    "train.evaluate_passes",
    "train.checkpoint_every",
)
"""What may change when a run continues: where it runs, how long and what it reports."""

PIPELINED = ("parallel.stages", "parallel.partition", "parallel.in_flight", "train.checkpoint_every")
"""What changes the bits of a run with more than one minibatch in flight."""

BOUNDARIES = ("parallel.stages", "parallel.partition")
"""What changes the bits of a run whose messages are rounded."""

NUMERIC = ("parallel.threads", "parallel.device", "parallel.message_dtype")
"""What changes the bits of any run."""

CHOOSING = ("name", "kind", "schedule")
"""Keys that choose a variant, whose class has its own as the default."""


def compare(old: Config, new: Config) -> list[str]:
    """Return, in words, what ends the guarantee of the same bits, nothing where it holds.

    Raises:
        ConfigError: a change makes it another experiment; names the key and both values.
    """
    before, after = flat(to_dict(old)), flat(to_dict(new))
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    for key in changed:
        if not key.startswith(FREE):
            values = f"was {before.get(key)!r}, now {after.get(key)!r}"
            raise ConfigError(f"{key}: {values}: that is another experiment; train it in a run of its own")
    deep = max(old.parallel.in_flight, new.parallel.in_flight) > 1
    notes = [
        f"{key} changed with more than one minibatch in flight"
        for key in changed
        if deep and key in PIPELINED
    ]
    if not deep and "bfloat16" in (old.parallel.message_dtype, new.parallel.message_dtype):
        notes += [f"{key} changed with bfloat16 messages" for key in changed if key in BOUNDARIES]
    notes += [f"{key} changed" for key in changed if key in NUMERIC]
    return notes


def origin_of(config: Config) -> Origin:
    """Return what a checkpoint of the configuration's experiment must be of.

    The hash is over all that is not ``FREE``, as far as it differs from its default: so it stays the same
    when a run continues elsewhere or longer, and when a later version has further keys.
    """
    told = {key: value for key, value in flat(_written(config)).items() if not key.startswith(FREE)}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
    return Origin(config.seed, digest, len(config.model.options))


def _written(value: Any) -> Any:
    """Return options as plain data without defaults; the modules of an instance are not told."""
    if is_dataclass(value):
        told = {item.name: getattr(value, item.name) for item in fields(value) if item.name != "pair"}
        return {
            name: _written(each)
            for name, each in told.items()
            if name in CHOOSING or each != _default(value, name)
        }
    if isinstance(value, (list, tuple)):
        return [_written(each) for each in value]
    return {str(name): _written(each) for name, each in value.items()} if isinstance(value, dict) else value


def _default(options: Any, name: str) -> Any:
    item: Field[Any] = next(each for each in fields(options) if each.name == name)
    return item.default_factory() if item.default_factory is not MISSING else item.default
