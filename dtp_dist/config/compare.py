"""Whether a changed configuration is still the same experiment, and still ends with the same bits."""

from __future__ import annotations

from dtp_dist.config.load import to_dict
from dtp_dist.config.schema import Config
from dtp_dist.errors import ConfigError
from dtp_dist.flat import flat

FREE = (
    "name",
    "run_dir",
    "monitor.",
    "parallel.",
    "data.root",
    "data.eval_batch_size",
    "train.epochs",
    "train.max_steps",
    "train.keep_checkpoints",
    "train.evaluate_every",
    "train.evaluate_passes",
    "train.checkpoint_every",
)
"""What may change when a run goes on: where it runs, how long and what it tells."""

PIPELINED = ("parallel.stages", "parallel.partition", "parallel.in_flight", "train.checkpoint_every")
"""What changes the bits of a run with more than one minibatch in flight."""

BOUNDARIES = ("parallel.stages", "parallel.partition")
"""What changes the bits of a run whose messages are rounded."""

NUMERIC = ("parallel.threads", "parallel.device", "parallel.message_dtype")
"""What changes the bits of any run."""


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
