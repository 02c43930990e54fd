"""``eval``, ``export`` and ``config``: what reads a run or a configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dtp_dist.cli.app import AllowCode, Best, Debug, Overrides, RunDir, app, say, screen, set_debug
from dtp_dist.cli.completion import configs
from dtp_dist.errors import ConfigError
from dtp_dist.system.garbage import importing
from dtp_dist.text.measures import in_words
from dtp_dist.text.numbers import short


@app.command("eval")
def evaluate(
    run_dir: RunDir,
    split: Annotated[str, typer.Option(help="test, valid or train.")] = "test",
    best: Best = False,
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Print what a run's newest or best weights reach: error, or what else its labels are measured by."""
    set_debug(debug)
    with importing():
        from dtp_dist.training.evaluate import evaluate as measure

    means, step = measure(run_dir, split, allow_code=allow_code, best=best)
    found = in_words({f"{split}_{name}": value for name, value in means.items()}, split, brief=False)
    say(", ".join([*found, f"loss {short(means['loss'])}", f"step {step}"]))


@app.command()
def export(
    run_dir: RunDir,
    target: Annotated[Path, typer.Argument(help="File to write.", metavar="OUT.safetensors")],
    best: Best = False,
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Write the forward network as a plain torch state dict, and print the lines that load it."""
    set_debug(debug)
    with importing():
        from dtp_dist.storage.export_file import export as write

    sys.stdout.write("\n".join(write(run_dir, target, allow_code=allow_code, best=best)) + "\n")


@app.command("config")
def show_config(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="Configuration file, or the name of one of the package's.",
            metavar="[CONFIG]",
            autocompletion=configs,
        ),
    ] = None,
    overrides: Overrides = None,
    as_list: Annotated[
        bool, typer.Option("--list", help="List the package's configurations instead.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Explain every key instead.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --explain: as Markdown.")] = False,
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Check a configuration and print it resolved."""
    set_debug(debug)
    if as_list:
        _list()
        return
    if explain or markdown:
        _explain(markdown=markdown)
        return
    if config is None:
        raise ConfigError("CONFIG: is missing; name a configuration file, or write --explain or --list")
    with importing():
        from dtp_dist.compare.twin import check_entries
        from dtp_dist.config import parse_config, read_config, to_yaml
        from dtp_dist.config.batches import check_data
        from dtp_dist.loggers.table import check_loggers
        from dtp_dist.profiling.resolve import resolve
        from dtp_dist.storage.starting_weights import check_weights

    raw = read_config(config, overrides or [], trusted=allow_code)
    settings = parse_config(raw)
    check_entries(raw, config, allow_code=allow_code)
    check_data(settings)
    check_weights(settings)
    check_loggers(settings.monitor.loggers)
    sys.stdout.write(to_yaml(resolve(settings)))


def _list() -> None:
    """Print the package's configurations by name, and where they are, to be copied."""
    from dtp_dist.system.named import CONFIGS, described

    found = list(described())
    width = max(len(name) for name, _ in found)
    for name, text in found:
        say(f"{name.ljust(width)}  {text}")
    say(f"train one by its name, or a copy of your own; they are in {CONFIGS.resolve()}")


def _explain(*, markdown: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    with importing():
        from dtp_dist.config.explain import as_markdown, explain

    if markdown:
        sys.stdout.write(as_markdown())
        return

    table = Table("key", "type", "default", "meaning")
    for row in explain():
        table.add_row(*(escape(cell) for cell in row))
    wide = Console(width=None if screen().is_terminal else 180)
    wide.print(table)
