"""``tune``: a random search through Ray Tune."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dtp_dist.cli.app import ConfigPath, Debug, Overrides, app, say, screen, set_debug
from dtp_dist.cli.completion import spaces
from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.storage.lock import locked
from dtp_dist.system.garbage import importing
from dtp_dist.system.named import SPACES, named_file
from dtp_dist.system.output import make_optional
from dtp_dist.text.shell import typed


@app.command()
def tune(
    config: ConfigPath,
    space: Annotated[
        Path,
        typer.Option(
            help="The space: keys with distributions (YAML), or the name of one of the package's.",
            autocompletion=spaces,
        ),
    ],
    trials: Annotated[int, typer.Option(help="How many trials in all.", min=1)],
    overrides: Overrides = None,
    target: Annotated[Path | None, typer.Option("--out", help="Folder; runs/NAME-tune by default.")] = None,
    asha: Annotated[bool, typer.Option("--asha", help="Stop the worse trials early.")] = False,
    parallel: Annotated[
        int | None, typer.Option(help="Trials at once; as many as there are cores by default.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search.", min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Search over settings; each trial is a run. The same call continues where it was stopped."""
    set_debug(debug)
    make_optional()
    with importing():
        from dtp_dist.trials.trial import outcome_of
        from dtp_dist.tune.plan import open_search, plan_trials
        from dtp_dist.tune.space import read_space
        from dtp_dist.tune.summary import BEST, ranked, trial_table, write_best, write_trials

    config, space = named_file(config), named_file(space, SPACES)
    folder = target or Path("runs") / f"{config.stem}-tune"
    planned = plan_trials(config, overrides or [], read_space(space), trials, seed, folder)
    run_trials = _run_trials() if any(not outcome_of(trial).final for trial in planned) else None
    open_search(folder, config, overrides or [], space, seed)
    with locked(folder):
        ended = [each for each in map(outcome_of, planned) if each.final]
        left = [trial for trial in planned if not outcome_of(trial).final]
        try:
            if left and run_trials is not None:
                say(f"{len(left)} of {trials} trials to train, in {folder}")
                run_trials(left, ended, parallel=parallel, asha=asha, tell=say)
        except KeyboardInterrupt:
            say("the same call continues from here")
            raise
        finally:
            outcomes = ranked([outcome_of(trial) for trial in planned])
            write_trials(folder, outcomes)
    screen().print(trial_table(outcomes))
    for each in outcomes:
        if each.message:
            say(f"{each.trial.name} failed: {each.message}")
    best = write_best(folder, outcomes, f"{config.stem}-best")
    if best is None:
        raise DtpDistError(f"{folder}: no trial came to an evaluation; see its trials.csv")
    command = typed("dtp-dist", "train", folder / BEST)
    say(f"best: {best.trial.name}, {best.said}; train it: {command}")


def _run_trials() -> Callable[..., None]:
    """Import what needs Ray Tune."""
    try:
        from dtp_dist.tune.ray_tune import run_trials
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"tune: needs Ray Tune: pip install -e '.[ray]' in the project's folder ({text})"
        ) from None
    return run_trials
