"""A trial inside a worker: trained from the start, or gone on with from its checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtp_dist import import_path
from dtp_dist.config import Config, parse_config, to_dict
from dtp_dist.config.source import CODE, read_source
from dtp_dist.errors import ConfigError, DtpDistError, NonFiniteError, StorageError, in_one_line
from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.report.read import read_run
from dtp_dist.report.spans import is_number
from dtp_dist.storage.checkpoint import newest_checkpoint
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.run_files import CONFIG
from dtp_dist.system.paths import absolute
from dtp_dist.training.trainer import resume, train
from dtp_dist.trials.trial import Trial, record

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a trial.

    Attributes:
        folder: its run directory.
        record: the file for how it ended, if not well.
        config: its configuration as plain data.
        place: working directory of whoever trains them, which relative paths start from.
        path: where modules are imported from.
        metric: what trials are compared by.
        past: whether one that is resumed reports what it had reached before, too.
    """

    folder: Path
    record: Path
    config: Mapping[str, Any]
    place: str
    path: list[str]
    metric: str
    past: bool = True


def job_of(trial: Trial, config: Config | None = None) -> Job:
    """Return the job of a trial in this process's place, with another configuration if one is given."""
    raw, path = to_dict(config or trial.config), import_path.stage_path()
    return Job(trial.folder.resolve(), trial.record.resolve(), raw, os.getcwd(), path, trial.metric)


class Halted(KeyboardInterrupt):
    """The trial is to stop before its end; the run ends as one that was interrupted."""


class Reporter(Monitor):
    """Reports every value of the metric; a report that raises SystemExit stops the trial."""

    def __init__(self, report: Report, metric: str) -> None:
        self._report, self._metric = report, metric

    def write(self, line: Line) -> None:
        """Report the line if it has the metric."""
        if line.event is None:
            report_values(self._report, self._metric, line.epoch, line.values)

    def close(self) -> None:
        """Nothing to do."""


def report_values(report: Report, metric: str, epoch: int, values: Mapping[str, Any]) -> None:
    """Report a metric's value and its epoch (1-based), if there is one."""
    if is_number(values.get(metric)):
        try:
            report({metric: values[metric], "epoch": epoch})
        except SystemExit:
            raise Halted("stopped before its end") from None


def run_trial(job: Job, report: Report) -> None:
    """Take a trial to its end; a failure is recorded in one line, and no error leaves this function.

    Raises:
        SystemExit: a report did, as Tune's does where its scheduler stops a trial.
    """
    os.chdir(job.place)
    import_path.take(job.path)
    try:
        _go(job, report)
    except Halted:
        raise SystemExit(0) from None
    except DtpDistError as error:
        record(job.record, "failed", str(error), final=isinstance(error, NonFiniteError))
    except Exception as error:
        text = in_one_line(error)
        record(job.record, "failed", text, final=False)


def is_own(folder: Path, config: Config) -> bool:
    """Return whether a trial's folder says of code, and what is handed to it, what its configuration says."""
    told, due = (_code_of(each) for each in (read_source(folder / CONFIG, trusted=False), to_dict(config)))
    return told == due


def _code_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of code, its folder as a path that is the same from everywhere."""
    found = {key: raw.get(key) for key in (*CODE, "code_dir")}
    data, folder = found["data"], found["code_dir"]
    data = {**data, "root": None} if isinstance(data, Mapping) else data
    return {
        **found,
        "data": data,
        "code_dir": absolute("code_dir", folder) if isinstance(folder, str) else folder,
    }


def _go(job: Job, report: Report) -> None:
    watch = [lambda steps, epochs: Reporter(report, job.metric)]
    config = parse_config(dict(job.config))
    job.record.unlink(missing_ok=True)
    try:
        _, manifest = newest_checkpoint(job.folder, origin_of(config))
    except StorageError:
        shutil.rmtree(job.folder, ignore_errors=True)
        result = train(config, watch=watch).result
    else:
        for line in read_run(job.folder, trace=False).lines if job.past else ():
            if line["step"] <= manifest.step:
                report_values(report, job.metric, line["epoch"], line)
        result = resume(job.folder, allow_code=is_own(job.folder, config), watch=watch).result
    if result.get(job.metric) is None:
        raise ConfigError(f"data.name: {config.data.name} has no validation split to compare trials by")
