"""``compare``: a configuration and its twins by other rules, for several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtp_dist.cli.app import ConfigPath, Debug, Overrides, app, say, screen, set_debug
from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.storage.lock import locked
from dtp_dist.system.garbage import importing
from dtp_dist.system.named import named_file
from dtp_dist.system.output import make_optional
from dtp_dist.text.shell import typed

if TYPE_CHECKING:
    from dtp_dist.compare.result import Comparison
    from dtp_dist.report.files import Draw


@app.command()
def compare(
    config: ConfigPath,
    overrides: Overrides = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--with", help="Rule of a twin; may be given several times. backprop by default.", metavar="RULE"
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every rule's runs, e.g. 0-4 or 0,2,5.")] = "0-4",
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once; as many as there are cores for by default.", min=1)
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--dir", help="Folder; runs/NAME-compare by default.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a config and its twin by backpropagation for several seeds. The same call continues."""
    set_debug(debug)
    make_optional()
    with importing():
        from dtp_dist.compare.plan import open_comparison, plan_comparison, seeds_in
        from dtp_dist.compare.result import Comparison
        from dtp_dist.trials.pool import train_all
        from dtp_dist.trials.trial import outcome_of

    config, twins = named_file(config), list(dict.fromkeys(rules or ["backprop"]))
    folder = target or Path("runs") / f"{config.stem}-compare"
    planned = plan_comparison(config, overrides or [], twins, seeds_in(seeds), folder)
    draw = _draw()
    open_comparison(folder, config, overrides or [], twins)
    with locked(folder):
        left = [trial for trial in planned if not outcome_of(trial).final]
        try:
            if left:
                say(f"{len(left)} of {len(planned)} runs to train, in {folder}")
                train_all(left, jobs=jobs, folder=folder, tell=say)
        except KeyboardInterrupt:
            say("the same command continues from here")
            raise
        finally:
            found = Comparison([outcome_of(trial) for trial in planned])
            written = _write(folder, found, config.stem, draw)
    _show(folder, found, written)


def _draw() -> Draw | None:
    """Return what draws the figures, None where it is not installed, which is said."""
    from dtp_dist.report.files import drawing

    try:
        return drawing("figures")
    except ConfigError as error:
        say(f"{error}; tables and curves.csv are written without them")
        return None


def _write(folder: Path, found: Comparison, name: str, draw: Draw | None) -> list[Path]:
    """Write all that there is of a comparison so far, and return the files."""
    from dtp_dist.compare.figures import write_curves
    from dtp_dist.compare.table import CSV, MARKDOWN, as_csv, as_markdown
    from dtp_dist.storage.files import write_file

    write_file(folder / MARKDOWN, as_markdown(found, name).encode())
    write_file(folder / CSV, as_csv(found))
    groups = found.begun()
    return [folder / MARKDOWN, folder / CSV, *(write_curves(folder, groups, draw) if groups else [])]


def _show(folder: Path, found: Comparison, written: list[Path]) -> None:
    """Print what the runs reached.

    Raises:
        DtpDistError: one failed.
    """
    from dtp_dist.compare.table import by_rule, by_seed, on_screen

    for rows in (by_rule(found), by_seed(found)):
        screen().print(on_screen(rows, screen().width))
        say("")
    say(f"{folder}: {', '.join(path.name for path in written)}; more: {typed('dtp-dist', 'report', folder)}")
    failed = [each for each in found.outcomes if each.state != "done"]
    if failed:
        why = "; ".join(f"{each.trial.name}: {each.message}" for each in failed)
        again = "" if all(each.final for each in failed) else "; the same command tries again"
        raise DtpDistError(f"{folder}: {len(failed)} of {len(found.outcomes)} runs failed: {why}{again}")
