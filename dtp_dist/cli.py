"""The command line: thin; every error is one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from dtp_dist.errors import ConfigError, DtpDistError


class _Interrupted(Exception):  # noqa: N818 - an order, not an error
    """Ctrl-C or a signal; typer's versions differ in what they make of a KeyboardInterrupt."""


class _Commands(TyperGroup):
    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(str(error)) from error


app = typer.Typer(
    cls=_Commands,
    help="Train deep networks by Difference Target Propagation, layer-parallel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file (YAML).", metavar="CONFIG.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides, e.g. train.epochs=3.", metavar="[key=value ...]")
]
RunDir = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Import the user modules that the run names.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def train(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Train; exit code 0 done, 1 failed, 2 wrong configuration or usage."""
    _set_debug(debug)
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
    _set_debug(debug)
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


@app.command("eval")
def evaluate(
    run_dir: RunDir,
    split: Annotated[str, typer.Option(help="test, valid or train.")] = "test",
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Print the error of a run's newest weights."""
    _set_debug(debug)
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
    _set_debug(debug)
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
    debug: Debug = False,
) -> None:
    """Check a configuration and print it resolved."""
    _set_debug(debug)
    if explain:
        _explain()
        return
    if config is None:
        raise ConfigError("CONFIG.yaml: is missing; name a configuration file, or write --explain")
    from dtp_dist.config import load_config, to_yaml
    from dtp_dist.runtime.layout import resolve

    settings = load_config(config, overrides or [])
    sys.stdout.write(to_yaml(resolve(settings)))


def _explain() -> None:
    from dtp_dist.config.explain import explain

    table = Table("key", "type", "default", "meaning")
    for row in explain():
        table.add_row(*(escape(cell) for cell in row))
    wide = Console(width=None if out.is_terminal else 180)
    wide.print(table)


def _set_debug(debug: bool) -> None:
    if debug:
        os.environ["DTP_DIST_DEBUG"] = "1"


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")


def main() -> NoReturn:
    """Run the command line."""
    sys.path.insert(0, os.getcwd())  # user-made layers beside the configuration can be imported
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    sys.exit(_guarded())


def _guarded() -> int:
    try:
        app(standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return _say("stopped", 1)
    except DtpDistError as error:
        return _failed(error, error.exit_code)
    except (_Interrupted, KeyboardInterrupt) as error:
        return _say(f"interrupted{f' by {error}' if str(error) else ''}; nothing is left running", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(error, 1, f"{where}{error.strerror or error}")
    except Exception as error:
        return _usage_or_bug(error)
    return 0


def _usage_or_bug(error: Exception) -> int:
    show = getattr(error, "format_message", None)  # click's own usage errors
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed
        return 2
    if show is not None:
        return _say(f"error: {show()}; see dtp-dist --help", 2)
    return _failed(error, 1, f"{type(error).__name__}: {error} (a bug: run again with --debug and report it)")


def _failed(error: Exception, code: int, text: str | None = None) -> int:
    if os.environ.get("DTP_DIST_DEBUG"):
        err.print_exception()
    return _say(f"error: {text or error}", code)


def _say(text: str, code: int) -> int:
    err.print(escape(" ".join(text.split())), highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
