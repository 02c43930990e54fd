"""Trials as Ray Tune runs them: placed, watched, and stopped early by its scheduler."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a run writes its own logs
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a failed trial has nothing to report
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the search at once
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a box where it is told to be silent

import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler

from dtp_dist.config import Config
from dtp_dist.runtime.ray import cluster
from dtp_dist.trials.trial import Outcome, Trial, end, outcome_of, processes_of, progress, record
from dtp_dist.trials.worker import Job, job_of, run_trial

Tell = Callable[[str], None]


def run_trials(
    trials: Sequence[Trial], ended: Sequence[Outcome], *, parallel: int | None, asha: bool, tell: Tell
) -> None:
    """Train trials until each is done, stopped or failed.

    Args:
        trials: those that are not yet.
        ended: those that are; the scheduler compares the others with them.
        parallel: how many at once; None for as many as there are cores.
        asha: stop the worse half or more early, by asynchronous successive halving over epochs.
        tell: takes a line for whoever watches.

    Raises:
        StageError: Ray can't be reached.
    """
    cpus = max(processes_of(trial.config) * trial.config.parallel.threads for trial in trials)
    at_once = parallel or max(1, (os.cpu_count() or 1) // cpus)
    cluster.connect(at_once * cpus, tell)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what a trial died of is told in one line
    try:
        gpus = cluster.has_gpus()
        jobs = {trial.number: _job(trial, gpus) for trial in trials}
        on_gpus = any(device_to_ask_for(trial.config, gpus) == "cuda" for trial in trials)
        need = {"cpu": float(cpus), **({"gpu": float(cpus)} if on_gpus else {})}
        with tempfile.TemporaryDirectory(prefix="dtp-dist-") as storage:
            tune.Tuner(
                tune.with_resources(tune.with_parameters(_train, jobs=jobs), need),
                param_space={"trial": tune.grid_search(list(jobs))},
                tune_config=tune.TuneConfig(
                    metric=None if asha else trials[0].metric,
                    mode=None if asha else "min",
                    max_concurrent_trials=at_once,
                    reuse_actors=True,  # a new one imports torch again
                    scheduler=_scheduler(trials, ended) if asha else None,
                ),
                run_config=tune.RunConfig(storage_path=storage, verbose=0, callbacks=[_Watch(trials, tell)]),
            ).fit()
    finally:
        ray.shutdown()


def _scheduler(trials: Sequence[Trial], ended: Sequence[Outcome]) -> ASHAScheduler:
    """Return the scheduler, which has seen what the ended trials had reached."""
    train = trials[0].config.train
    grace = max(1, train.evaluate_every)
    limit = max(train.epochs, grace) + 1  # at which a trial would be stopped: one that is whole ends itself
    scheduler = ASHAScheduler("epoch", trials[0].metric, "min", max_t=limit, grace_period=grace)
    for outcome in ended:
        seen: Any = SimpleNamespace(trial_id=outcome.trial.name)
        controller: Any = None  # not looked at
        scheduler.on_trial_add(controller, seen)
        for line in outcome.run.lines:
            scheduler.on_trial_result(controller, seen, line)
    return scheduler


def _job(trial: Trial, gpus: bool) -> Job:
    parallel = replace(trial.config.parallel, device=device_to_ask_for(trial.config, gpus))
    return job_of(trial, replace(trial.config, parallel=parallel))


def device_to_ask_for(config: Config, gpus: bool) -> str:
    """Return the device of a trial: a GPU that is reserved for it must not stay unused without a word."""
    device = config.parallel.device
    return "cuda" if device == "auto" and gpus else device


def _train(settings: Mapping[str, Any], jobs: Mapping[int, Job]) -> None:
    """What Tune runs in a worker."""
    run_trial(jobs[settings["trial"]], tune.report)


class _Watch(TrialProgressCallback):
    """Reports what trials reach, and records which of them the scheduler has stopped.

    It stands in for Tune's own, which prints of failed trials even where it is told to be silent.
    """

    def __init__(self, trials: Sequence[Trial], tell: Tell) -> None:
        super().__init__(metric=trials[0].metric)
        self._trials, self._tell = {trial.number: trial for trial in trials}, tell

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Report what a trial has reached."""
        mine = self._trials[trial.config["trial"]]
        if mine.metric in result:
            self._tell(progress(mine, result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that ended neither by itself nor by a failure: the scheduler has stopped it."""
        mine = self._trials[trial.config["trial"]]
        if outcome_of(mine).state == "open":
            record(mine.record, "stopped", final=True)
        self._tell(end(mine))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial whose worker was lost."""
        mine = self._trials[trial.config["trial"]]
        record(mine.record, "failed", "its worker was lost; the same call resumes it", final=False)
        self._tell(end(mine))
