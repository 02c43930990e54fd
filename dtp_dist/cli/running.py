"""``train`` and ``resume``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from dtp_dist.cli.app import AllowCode, ConfigPath, Debug, Overrides, RunDir, app, out, set_debug

if TYPE_CHECKING:
    from dtp_dist.trainer import MakeMonitor

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors; result.json has the result.")
]


@app.command()
def train(
    config: ConfigPath, overrides: Overrides = None, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Train; exit code 0 done, 1 failed, 2 wrong configuration or usage."""
    set_debug(debug)
    from dtp_dist.config import load_config
    from dtp_dist.trainer import train as run

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
    """Go on from a run's newest checkpoint."""
    set_debug(debug)
    from dtp_dist.trainer import resume as run

    result = run(run_dir, overrides or [], allow_code=allow_code, watch=_watch(quiet)).result
    if not quiet:
        _tell(result)


def _watch(quiet: bool) -> list[MakeMonitor]:
    """Return the makers of what shows a run, none if it is to be quiet."""
    from dtp_dist.monitor.console import ConsoleMonitor

    return [] if quiet else [lambda steps, epochs: ConsoleMonitor(out, steps, epochs)]


def _tell(result: dict[str, Any]) -> None:
    """Print what a run reached and where to look."""
    reached = [
        f"{split} error {result[f'{split}_error']:.2f} %"
        for split in ("valid", "test")
        if result[f"{split}_error"] is not None
    ]
    if result["train_loss"] is not None:
        reached.append(f"train loss {result['train_loss']:.4f}")
    if result["virtual"]:
        reached = ["virtual run, nothing learned: stages slept as parallel.virtual_costs says"]
    speed = f"{result['seconds']:.0f} s, {result['samples_per_second']:.0f} samples/s"
    lines = [
        f"{', '.join(reached)} after {result['steps']} minibatches",
        f"{'virtual: ' if result['virtual'] else ''}{speed}, "
        f"{result['stages']} stage(s) on runtime {result['runtime']}, {result['in_flight']} in flight, "
        f"busy {' '.join(f'{100 * busy:.0f}%' for busy in result['stage_busy'])}",
        *([] if result["virtual"] else [f"weights_sha256 {result['weights_sha256']}"]),
        f"run in {result['run_dir']}; look at it with: tensorboard --logdir {result['run_dir']}",
    ]
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
