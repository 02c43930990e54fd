"""A trial inside a worker: trained from the start, or gone on with from its checkpoint."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtp_dist.checkpoint import newest_checkpoint
from dtp_dist.config import parse_config
from dtp_dist.errors import CheckpointError, ConfigError, DtpDistError, NonFiniteError
from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.report.read import is_number, read_run
from dtp_dist.trainer import resume, train
from dtp_dist.tune.trials import record

METRIC = "valid_error"
"""What trials are compared by, in percent: the less the better."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a trial.

    Attributes:
        folder: its run directory.
        record: the file for how it ended, if not well.
        config: its configuration as plain data.
        place: working directory of the search, which relative paths start from.
        path: where modules are imported from.
    """

    folder: Path
    record: Path
    config: Mapping[str, Any]
    place: str
    path: Sequence[str]


class Halted(KeyboardInterrupt):
    """The scheduler stops the trial; the run ends as one that was interrupted."""


class Reporter(Monitor):
    """Reports every validation error; Tune answers a report by SystemExit where the trial is to stop."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def write(self, line: Line) -> None:
        """Report the line if it has a validation error."""
        if line.event is None:
            report_values(self._report, line.epoch, line.values)

    def close(self) -> None:
        """Nothing to do."""


def report_values(report: Report, epoch: int, values: Mapping[str, Any]) -> None:
    """Report a validation error (percent) and its epoch (1-based), if there is one."""
    if is_number(values.get(METRIC)):
        try:
            report({METRIC: values[METRIC], "epoch": epoch})
        except SystemExit:
            raise Halted("stopped by the search's scheduler") from None


def run_trial(job: Job, report: Report) -> None:
    """Take a trial to its end; a failure is recorded in one line, and no error leaves this function.

    Raises:
        SystemExit: the scheduler has stopped it, as Tune expects.
    """
    os.chdir(job.place)
    sys.path.extend(entry for entry in job.path if entry not in sys.path)
    try:
        _go(job, report)
    except Halted:
        raise SystemExit(0) from None
    except DtpDistError as error:
        record(job.record, "failed", str(error), final=isinstance(error, NonFiniteError))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        record(job.record, "failed", text, final=False)


def _go(job: Job, report: Report) -> None:
    watch = [lambda steps, epochs: Reporter(report)]
    config = parse_config(dict(job.config))
    job.record.unlink(missing_ok=True)
    try:
        _, manifest = newest_checkpoint(job.folder)
    except CheckpointError:
        shutil.rmtree(job.folder, ignore_errors=True)
        result = train(config, watch=watch).result
    else:
        for line in read_run(job.folder, trace=False).lines:
            if line["step"] <= manifest.step:
                report_values(report, line["epoch"], line)
        result = resume(job.folder, allow_code=True, watch=watch).result
    if result[METRIC] is None:
        raise ConfigError(f"data.name: {config.data.name} has no validation split to compare trials by")
