"""The table of runs finds them at any depth, shows their states, and fits."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dtp_dist.errors import ConfigError
from dtp_dist.report.listing import facts, find_runs, run_table
from run_folders import CONFIG, FINISHED, MEASURED, STARTED, at, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs at several depths, a folder that is none, and files."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "file").write_text("")
    write_run(tmp_path / "done", [STARTED, *MEASURED, FINISHED])
    write_run(tmp_path / "deep" / "failed", [STARTED, at(4, event="failed", message="no")], result="")
    write_run(tmp_path / "deep" / "er" / "broken", config="a: [", metrics="{", result="", trace="")
    for second, name in enumerate(("deep/failed", "done", "deep/er/broken")):
        (tmp_path / name / f"events.out.tfevents.{1000 + second}.host.1").touch()
    (tmp_path / "done" / "checkpoints").mkdir()
    return tmp_path


def shown(folder: Path, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(run_table([facts(run) for run in find_runs(folder)], folder, width))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_runs_are_found_at_any_depth_the_newest_last(runs):
    found = find_runs(runs)
    assert [run.path.name for run in found] == ["failed", "done", "broken"]
    assert [run.state for run in found] == ["failed", "done", "running?"]
    assert [run.started for run in found] == [1000, 1001, 1002]


def test_a_wide_table_shows_all_columns(runs):
    head, failed, done, broken = shown(runs, 140)
    assert re.split("  +", head.strip())[-4:] == ["D", "runtime", "started", "folder"]
    assert re.split("  +", done.strip())[:6] == ["digits", "done", "–", "–", "0.001", "–"]
    assert re.split("  +", done.strip())[6:12] == ["1", "30", "4.50", "5.25", "12,345", "2"]
    assert "deep/failed" in failed
    assert "deep/er/broken" in broken


@pytest.mark.parametrize("width", [100, 80, 50])
def test_a_narrow_table_fits_and_keeps_state_error_and_folder(runs, width):
    lines = shown(runs, width)
    assert len(lines) == 4
    assert all(len(line.rstrip()) <= width for line in lines)
    for due in ("digits", "done", "5.25"):
        assert due in lines[2]


@pytest.mark.parametrize("width", [100, 80])
def test_two_runs_of_one_config_are_told_apart_where_it_is_narrow(tmp_path, width):
    """At 80 columns the name was gone, and neither rule, rate nor seed was ever shown."""
    for seed in (11, 12):
        config = f"{CONFIG}\nrule: {{name: fw_dtp}}\ndata: {{name: fashion_mnist}}\nseed: {seed}"
        config = config.replace("name: digits", "name: a_name_that_is_long_and_ends_in_2")
        write_run(tmp_path / f"a_name_that_is_long-2026112{seed}", config=config)
    head, *rows = shown(tmp_path, width)
    assert len(head.rstrip()) <= width
    for seed, row in zip((11, 12), rows, strict=True):
        for due in ("a_name_that", "_in_2", "fw_dtp", "0.001", f" {seed} ", "5.25", f"112{seed}"):
            assert due in row


def test_facts_are_plain_json(runs):
    found = [facts(run) for run in find_runs(runs)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found[0]["reason"] == "no"
    assert found[1]["test_error"] == 5.25
    assert "can't be read" in found[2]["problems"][0]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none: is no folder; name one that holds runs"):
        find_runs(tmp_path / "none")
