"""Settings that are allowed and hardly meant: a line of warning each."""

from __future__ import annotations

from dtp_dist.config import Config
from dtp_dist.config.batches import Data
from dtp_dist.runtime.layout import layout_of


def doubts(config: Config, data: Data) -> list[str]:
    """Return what is doubtful in a resolved configuration and its data; empty for most."""
    parallel, stages, train = config.parallel, layout_of(config).stages, data.batches["train"]
    found = list(data.splits.notes)
    if parallel.runtime == "inprocess" and stages > 1 and not parallel.virtual:
        text = f"the {stages} stages take turns in one process, no faster than one"
        found.append(f"parallel.runtime=inprocess: {text}; write parallel.runtime=local for a process each")
    if parallel.in_flight > stages:
        text = f"more than there are stages adds nothing; {stages} will be in flight"
        found.append(f"parallel.in_flight={parallel.in_flight}: {text}")
    if train.batch_size > len(train.examples):
        text = f"more than the {len(train.examples)} training examples, so an epoch is one minibatch"
        found.append(f"data.batch_size={train.batch_size}: {text}")
    return found
