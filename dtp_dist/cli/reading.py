"""``eval``, ``export`` and ``config``: what reads a run or a configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dtp_dist.cli.app import AllowCode, Debug, Overrides, RunDir, app, out, set_debug
from dtp_dist.errors import ConfigError


@app.command("eval")
def evaluate(
    run_dir: RunDir,
    split: Annotated[str, typer.Option(help="test, valid or train.")] = "test",
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Print the error of a run's newest weights."""
    set_debug(debug)
    from dtp_dist.trainer import evaluate as measure

    means, step = measure(run_dir, split, allow_code=allow_code)
    text = f"{split} error {means['error']:.2f} %, loss {means['loss']:.4f}, step {step}"
    out.print(text, highlight=False)


@app.command()
def export(
    run_dir: RunDir,
    target: Annotated[Path, typer.Argument(help="File to write.", metavar="OUT.safetensors")],
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Write the forward network as a plain torch state dict."""
    set_debug(debug)
    import safetensors.torch

    from dtp_dist.checkpoint import newest_checkpoint, write_file
    from dtp_dist.network import describe, load_network, state_dict_of
    from dtp_dist.run_dir import open_run_dir

    config = open_run_dir(run_dir, allow_code=allow_code)
    if target.exists():
        raise ConfigError(f"{target}: exists; name another file or remove it")
    folder, manifest = newest_checkpoint(run_dir)
    network = load_network(config, folder)
    write_file(target, safetensors.torch.save(dict(state_dict_of(network))))
    out.print(f"step {manifest.step} written to {target}; load it with:", highlight=False, soft_wrap=True)
    out.print(f"  network = {describe(list(network))}", highlight=False, soft_wrap=True, markup=False)
    out.print(
        f'  network.load_state_dict(safetensors.torch.load_file("{target}"))', highlight=False, soft_wrap=True
    )


@app.command("config")
def show_config(
    config: Annotated[Path | None, typer.Argument(help="Configuration file.", metavar="CONFIG.yaml")] = None,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Explain every key instead.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --explain: as Markdown.")] = False,
    debug: Debug = False,
) -> None:
    """Check a configuration and print it resolved."""
    set_debug(debug)
    if explain or markdown:
        _explain(markdown=markdown)
        return
    if config is None:
        raise ConfigError("CONFIG.yaml: is missing; name a configuration file, or write --explain")
    from dtp_dist.config import load_config, to_yaml
    from dtp_dist.runtime.layout import resolve

    settings = load_config(config, overrides or [])
    sys.stdout.write(to_yaml(resolve(settings)))


def _explain(*, markdown: bool) -> None:
    from dtp_dist.config.explain import as_markdown, explain

    if markdown:
        sys.stdout.write(as_markdown())
        return

    table = Table("key", "type", "default", "meaning")
    for row in explain():
        table.add_row(*(escape(cell) for cell in row))
    wide = Console(width=None if out.is_terminal else 180)
    wide.print(table)
