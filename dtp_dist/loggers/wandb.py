"""Weights & Biases: a run in the project ``WANDB_PROJECT``, or with ``WANDB_MODE=offline`` in files alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dtp_dist.loggers.base import Logger, Point, State, Tracked

if TYPE_CHECKING:
    from wandb import Run

PROJECT = "dtp_dist"


class WandB(Logger):
    """A run of W&B, whose files are in the run's own folder.

    Its curves are drawn over ``step``, a value of their own: W&B's internal step can't go back, as a run does
    that recovers from a loss.
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._id = secrets.token_hex(4)

    def open(self, run: Tracked, kept: str | None) -> str:
        import wandb

        quiet = wandb.Settings(silent=True, console="off")
        wandb.setup(settings=quiet)  # it asks nobody for a key, and prints nothing into the live view
        self._id = kept or self._id
        made = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=run.run_dir.name,
            id=self._id,
            resume="allow",
            dir=run.run_dir,
            config=dict(run.parameters),
            allow_val_change=True,
            reinit="create_new",
            settings=quiet,
        )
        made.define_metric("step", hidden=True)
        made.define_metric("*", step_metric="step")
        self._run = made
        return self._id

    def log(self, points: Sequence[Point]) -> None:
        assert self._run is not None, "it was opened"
        for point in points:
            self._run.log({"step": point.step, **point.values})

    def end(self, state: State, facts: Mapping[str, str]) -> None:
        assert self._run is not None, "it was opened"
        self._run.summary.update({**facts, "state": str(state)})
        self._run.finish(exit_code=0 if state is State.FINISHED else 1)
