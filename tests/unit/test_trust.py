"""No code, no reference and no order to the terminal comes from a file that nobody said to trust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import dtp_dist
from dtp_dist.cli.commands import app
from dtp_dist.config import load_config, read_config
from dtp_dist.errors import ConfigError
from dtp_dist.report import read_run
from dtp_dist.report.listing import facts, run_table
from dtp_dist.report.page import page
from dtp_dist.storage.run_dir import CONFIG, METRICS, open_run_dir
from dtp_dist.text.printable import printable
from runs import PATIENCE, small, write_config

SECRET = "s3cret-of-the-environment"


def with_layer(**layer: Any) -> dict[str, Any]:
    raw = small()
    raw["model"]["layers"].insert(0, layer)
    return raw


def call(*arguments: str | Path) -> tuple[int, str]:
    """Run a command in this process as ``main`` does; return its exit code and what it said."""
    done = CliRunner().invoke(app, [*map(str, arguments)], standalone_mode=False)
    if done.exception is not None:
        assert isinstance(done.exception, dtp_dist.errors.DtpDistError), repr(done.exception)
        return done.exception.exit_code, str(done.exception)
    return 0, done.output


CODE = [
    with_layer(kind="subprocess:getoutput", args={"cmd": "touch MARK"}),
    {
        **with_layer(),
        "model": {
            **small()["model"],
            "defaults": {"kind": "os:mkdir"},
            "layers": [{"args": {"path": "MARK"}}],
        },
    },
]


@pytest.mark.parametrize("raw", CODE)
@pytest.mark.parametrize("command", ["config", "resume", "eval", "export", "report", "runs"])
def test_no_command_that_looks_at_a_file_calls_what_it_names(tmp_path, monkeypatch, raw, command):
    monkeypatch.chdir(tmp_path)
    path = write_config(tmp_path, raw, CONFIG)
    target = {"config": path, "runs": tmp_path}.get(command, tmp_path)
    code, said = call(command, target, *(["out.safetensors"] if command == "export" else []))
    if command in ("runs", "report"):
        assert code == 0, "it shows what is there"
    else:
        assert code == 2
        assert "would import" in said
        assert "add --allow-code if you trust this file" in said
    assert not (tmp_path / "MARK").exists()


def test_config_imports_with_allow_code_and_a_trusted_configuration_always(tmp_path, monkeypatch):
    (tmp_path / "made_here.py").write_text(
        "from torch import nn\ndef layer():\n    return nn.Linear(64, 64), nn.Linear(64, 64)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write_config(tmp_path, with_layer(kind="made_here:layer"))
    code, said = call("config", path)
    assert (code, "made_here" in sys.modules) == (2, False), said
    code, said = call("config", path, "--allow-code")
    assert (code, "made_here" in sys.modules) == (0, True)
    assert "made_here:layer" in said
    assert load_config(path).model.layers[0].kind == "made_here:layer"


REFERENCES = [
    "${oc.env:SECRET}",
    "a${oc.env:SECRET,x}",
    "${oc.decode:'1'}",
    "${oc.create:{}}",
    "${seed}",
    "${.${name}}",
    "${",
]


@pytest.mark.parametrize("text", REFERENCES)
@pytest.mark.parametrize("command", ["config", "resume", "eval", "export"])
def test_what_a_foreign_file_refers_to_is_not_looked_up(tmp_path, monkeypatch, text, command):
    monkeypatch.setenv("SECRET", SECRET)
    path = write_config(tmp_path, {**small(), "data": {"name": "digits", "root": text}}, CONFIG)
    code, said = call(
        command, path if command == "config" else tmp_path, *(["out"] if command == "export" else [])
    )
    assert code == 2
    assert f"data.root: {text!r} refers to something else" in said
    assert SECRET not in said
    with pytest.raises(ConfigError, match="refers to something else"):
        open_run_dir(tmp_path, allow_code=False)


def test_references_of_a_trusted_configuration_are_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "elsewhere")
    raw = {**small(), "seed": "${data.batch_size}", "data": {"root": "${oc.env:SECRET}", "batch_size": 40}}
    config = load_config(write_config(tmp_path, raw))
    assert (config.seed, config.data.root) == (40, "elsewhere")
    code, said = call("config", write_config(tmp_path, raw), "--allow-code")
    assert (code, "root: elsewhere" in said) == (0, True)
    plain = write_config(tmp_path, small())
    assert read_config(plain, ["data.root=${oc.env:SECRET}"], trusted=False)["data"]["root"] == "elsewhere"


WRONG_PLACES = [
    ("train", {"epochs": "${oc.env:SECRET}"}),
    ("train", {"epochs": "${oc.decode:${oc.env:SECRET}}"}),
    ("train", {"epochs": ["${oc.env:SECRET}"]}),
    ("train", {"epochs": {"a": {"b": "${oc.env:SECRET}"}}}),
    ("train", "x ${oc.env:SECRET} y"),
    ("data", {"name": "${oc.env:SECRET}"}),
    ("rule", {"name": "${oc.env:SECRET}"}),
    ("optimizer", "${oc.env:SECRET}"),
]


@pytest.mark.parametrize(("section", "value"), WRONG_PLACES)
@pytest.mark.parametrize("secret", [SECRET, "0x", 'it\'s "one"\nwith [brackets', "{a: 1"])
def test_a_message_does_not_tell_the_environment(tmp_path, monkeypatch, section, value, secret):
    monkeypatch.setenv("SECRET", secret)
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path, {**small(), section: value}))
    assert secret not in str(caught.value)
    assert repr(secret)[1:-1] not in str(caught.value)
    assert section in str(caught.value)


def test_a_variable_that_is_not_set_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SECRET", raising=False)
    with pytest.raises(ConfigError, match="seed: Environment variable 'SECRET' not found"):
        load_config(write_config(tmp_path, {**small(), "seed": "${oc.env:SECRET}"}))


STANDARD = ("yaml", "random", "json", "typer", "rich", "torch", "numpy", "triton", "dtp_dist_layers")


def run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its console script does, in a folder."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from dtp_dist.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(dtp_dist.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


SLOW = pytest.mark.slow  # they import torch


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "."),
        ("report", "."),
        pytest.param(("eval", "."), marks=SLOW),
        pytest.param(("config", CONFIG), marks=SLOW),
    ],
)
def test_no_module_that_lies_in_a_run_s_folder_is_imported(tmp_path, arguments):
    """Commands are typed in a run's folder, too, and what lies there has the names of modules."""
    write_config(tmp_path, small(), CONFIG)
    for name in STANDARD:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'MARK')!r}, 'a').write({name!r})\n")
    done = run_here(tmp_path, *arguments)
    assert not (tmp_path / "MARK").exists(), (tmp_path / "MARK").read_text()
    assert done.returncode == (1 if arguments[0] == "eval" else 0), done.stderr


UGLY = "\x1b[31mred\x1b]0;title\x07\r\n\u202eevil\u2066\u200b\x9b0m\udcff\u2028"


def test_what_is_not_printable_is_escaped():
    said = printable(UGLY)
    assert said.isprintable()
    assert said.startswith("\\x1b[31mred\\x1b]0;title\\x07\\r\\n\\u202eevil\\u2066\\u200b\\x9b0m\\udcff")
    assert printable("Größe 3 µm – ok") == "Größe 3 µm – ok"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def ugly_run(folder: Path) -> Path:
    path = folder / "run\x1b[2J\u202e\n"
    path.mkdir()
    write_config(path, {**small(), "name": UGLY.replace("\udcff", "")}, CONFIG)
    lines = [
        {"step": 1, "epoch": 1, "time": 1.0, f"layer/1/{UGLY}": 2.0, f"{UGLY}": 1.0},
        {"step": 1, "epoch": UGLY, "time": 1.0, "event": UGLY, UGLY: UGLY},
        {"step": 1, "epoch": 1, "time": 1.0, "event": "failed", "message": UGLY},
    ]
    (path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    spans = [{"ph": "X", "tid": 0, "name": UGLY, "ts": 0, "dur": 5, "args": {"minibatch": 1}}]
    spans += [{"ph": "M", "tid": 0, "name": "thread_name", "args": {"name": UGLY}}]
    (path / "trace.json").write_text(json.dumps({"traceEvents": spans}))
    (path / "result.json").write_text(json.dumps({"name": UGLY, "runtime": UGLY, "weights_sha256": UGLY}))
    return path


def shown(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@pytest.mark.parametrize("width", [40, 80, 300])
def test_names_of_others_give_no_orders_to_the_terminal(tmp_path, width):
    runs = [facts(read_run(ugly_run(tmp_path)))]
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(run_table(runs, tmp_path, width))
    assert shown(capture.get())
    assert len(capture.get().splitlines()) == 2, "a line break in a name makes no row"


def test_commands_and_reports_show_names_of_others_as_they_can_be_read(tmp_path):
    path = ugly_run(tmp_path)
    for arguments in (
        ("runs", tmp_path),
        ("runs", tmp_path, "--json"),
        ("report", path, "--out", tmp_path / "r.html"),
    ):
        code, said = call(*arguments)
        assert code == 0
        assert shown(said)
    html = (tmp_path / "r.html").read_text()
    assert shown(html)
    assert "\\x1b[31mred" in html
    assert shown(page([read_run(path)] * 2))


def test_an_error_is_one_line_without_orders(tmp_path):
    done = run_here(tmp_path, "runs", UGLY.replace("\udcff", ""))
    assert done.returncode == 2
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert "\\x1b[31mred" in done.stderr
