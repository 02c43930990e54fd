"""MLflow: a run in the store that ``MLFLOW_TRACKING_URI`` names, as everything that uses MLflow takes it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dtp_dist.loggers.base import Logger, Point, State, Tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "dtp_dist"
PARAMETERS, METRICS = 100, 1000
"""What one request may hold."""

STATES = {State.FINISHED: "FINISHED", State.FAILED: "FAILED", State.INTERRUPTED: "KILLED"}


class MLflow(Logger):
    """A run of MLflow, in the experiment ``MLFLOW_EXPERIMENT_NAME`` or "dtp_dist"."""

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._run_id = ""

    def open(self, run: Tracked, kept: str | None) -> str:
        from mlflow import MlflowClient

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # what it says of its tables disturbs the live view
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
        client = MlflowClient()
        before = self._continued(client, kept) if kept else None
        if before is None:
            made = client.create_run(_experiment(client), run_name=run.run_dir.name)
            self._run_id, before = made.info.run_id, {}
            client.set_tag(self._run_id, "dtp_dist.run_dir", str(run.run_dir))
        self._tell(client, run, before)
        self._client = client
        return self._run_id

    def _continued(self, client: MlflowClient, kept: str) -> dict[str, str] | None:
        """Continue a run and return its parameters, None where there is none of that id."""
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_run(kept)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        client.update_run(kept, status="RUNNING")
        self._run_id = kept
        return dict(found.data.params)

    def _tell(self, client: MlflowClient, run: Tracked, before: Mapping[str, str]) -> None:
        """Log the parameters; one that was changed is a tag, for those of a run can't be."""
        from mlflow.entities import Param

        told = {key: str(value) for key, value in run.parameters.items()}
        new = [Param(key, value) for key, value in told.items() if key not in before]
        for first in range(0, len(new), PARAMETERS):
            client.log_batch(self._run_id, params=new[first : first + PARAMETERS])
        for key, value in told.items():
            if before.get(key, value) != value:
                client.set_tag(self._run_id, f"resumed.{key}", value)

    def log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        assert self._client is not None, "it was opened"
        metrics = [
            Metric(name, value, int(point.time * 1000), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[first : first + METRICS])

    def end(self, state: State, facts: Mapping[str, str]) -> None:
        assert self._client is not None, "it was opened"
        for name, value in facts.items():
            self._client.set_tag(self._run_id, name, value)
        self._client.set_terminated(self._run_id, STATES[state])


def _experiment(client: Any) -> str:
    """Return the id of the experiment, which is made if it is not there yet."""
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another run has made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
