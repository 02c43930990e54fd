"""``train`` and ``resume``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtp_dist.cli.app import AllowCode, ConfigPath, Debug, Overrides, RunDir, app, say, screen, set_debug
from dtp_dist.system.garbage import importing
from dtp_dist.system.output import make_optional
from dtp_dist.text.measures import in_words
from dtp_dist.text.numbers import percent, short, whole
from dtp_dist.text.shell import typed

if TYPE_CHECKING:
    from dtp_dist.training.trainer import MakeMonitor

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors; result.json has the result.")
]


@app.command()
def train(
    config: ConfigPath, overrides: Overrides = None, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Train; exit code 0 done, 1 failed, 2 wrong configuration or usage."""
    set_debug(debug)
    make_optional()
    with importing():
        from dtp_dist.config import load_config
        from dtp_dist.training.trainer import train as run

    settings = load_config(config, overrides or [])
    result = run(settings, watch=_watch(quiet)).result
    if not quiet:
        _tell(result)


@app.command()
def resume(
    run_dir: RunDir,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Resume a run from its newest checkpoint."""
    set_debug(debug)
    make_optional()
    with importing():
        from dtp_dist.training.trainer import resume as run

    result = run(run_dir, overrides or [], allow_code=allow_code, watch=_watch(quiet)).result
    if not quiet:
        _tell(result)


def _watch(quiet: bool) -> list[MakeMonitor]:
    """Return the makers of what shows a run, none if it is to be quiet."""
    from dtp_dist.monitor.console import ConsoleMonitor

    return [] if quiet else [lambda steps, epochs: ConsoleMonitor(screen(), steps, epochs)]


def _tell(result: dict[str, Any]) -> None:
    """Print what a run reached and where to look."""
    from dtp_dist.monitor.console import pack

    reached = list(in_words(result, "valid", "test"))
    if result["train_loss"] is not None:
        reached.append(f"train loss {short(result['train_loss'])}")
    if result["virtual"]:
        reached = ["virtual run, nothing learned: stages slept as parallel.virtual_costs says"]
    reached[-1] += f" after {result['steps']} minibatches"
    speed = [
        f"{'virtual: ' if result['virtual'] else ''}{whole(result['seconds'])} s",
        f"{whole(result['samples_per_second'])} samples/s",
        f"{result['stages']} stage(s) on runtime {result['runtime']}",
        f"{result['in_flight']} in flight",
        f"busy {' '.join(map(percent, result['stage_busy']))}",
    ]
    look = typed("tensorboard", "--logdir", result["run_dir"])
    lines = [
        *pack(reached, screen()).split("\n"),
        *_best(result),
        *pack(speed, screen()).split("\n"),
        *([] if result["virtual"] else [f"weights_sha256 {result['weights_sha256']}"]),
        f"run in {result['run_dir']}; look at it with: {look}",
    ]
    for line in lines:
        say(line)


def _best(result: dict[str, Any]) -> list[str]:
    """Return a line about the best checkpoint, none where none is kept."""
    how = f"in epoch {result.get('best_epoch')}, step {result.get('best_step')}"
    return [
        f"{text.replace('_', ' ', 1)} {how}; eval and export take it with --best"
        for text in in_words(result, "best_valid", brief=False)
    ]
