"""``train`` and ``resume``."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from dtp_dist.cli.app import AllowCode, ConfigPath, Debug, Overrides, RunDir, app, out, set_debug


@app.command()
def train(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Train; exit code 0 done, 1 failed, 2 wrong configuration or usage."""
    set_debug(debug)
    from dtp_dist.config import load_config
    from dtp_dist.monitor.console import ConsoleMonitor
    from dtp_dist.trainer import train as run

    settings = load_config(config, overrides or [])
    _tell(run(settings, watch=[lambda steps, epochs: ConsoleMonitor(out, steps, epochs)]).result)


@app.command()
def resume(
    run_dir: RunDir, overrides: Overrides = None, allow_code: AllowCode = False, debug: Debug = False
) -> None:
    """Go on from a run's newest checkpoint."""
    set_debug(debug)
    from dtp_dist.monitor.console import ConsoleMonitor
    from dtp_dist.trainer import resume as run

    watch = [lambda steps, epochs: ConsoleMonitor(out, steps, epochs)]
    _tell(run(run_dir, overrides or [], allow_code=allow_code, watch=watch).result)


def _tell(result: dict[str, Any]) -> None:
    """Print what a run reached and where to look."""
    errors = [
        f"{split} error {result[f'{split}_error']:.2f} %"
        for split in ("valid", "test")
        if result[f"{split}_error"] is not None
    ]
    lines = [
        f"{', '.join(errors)}, train loss {result['train_loss']:.4f} after {result['steps']} minibatches",
        f"{result['seconds']:.0f} s, {result['samples_per_second']:.0f} samples/s, "
        f"{result['stages']} stage(s) on runtime {result['runtime']}, {result['in_flight']} in flight, "
        f"busy {' '.join(f'{100 * busy:.0f}%' for busy in result['stage_busy'])}",
        f"weights_sha256 {result['weights_sha256']}",
        f"run in {result['run_dir']}; look at it with: tensorboard --logdir {result['run_dir']}",
    ]
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
