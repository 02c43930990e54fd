"""The page of everything measured is what its script makes of the files of results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results_table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results_table

    yield results_table
    for name in [each for each in sys.modules if each.partition(".")[0] in ("helpers", "results_table")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_committed_pages_are_what_the_script_makes(results_table):
    """If this fails: python benchmarks/results_table.py."""
    for path, text in results_table.written().items():
        assert path.read_text() == text, path.name


def test_a_changed_result_changes_both_pages(results_table, monkeypatch):
    before = results_table.written()
    read = results_table.read
    monkeypatch.setattr(
        results_table, "read", lambda name: [row for row in read(name) if row.get("seed") != "4"]
    )
    after = results_table.written()
    assert all(after[path] != before[path] for path in before)


def test_the_speed_of_plain_pytorch_is_shown_once_it_is_measured(results_table, monkeypatch):
    plain = {"run": "plain PyTorch backpropagation", "ms": "3.2", "times_exact": "2.28"}
    read = results_table.read
    rows = [row for row in read("speed") if row["run"] != plain["run"]]
    for given, shown in (([], "plain PyTorch: not yet measured"), ([plain], "plain PyTorch: 3.2 ms")):
        monkeypatch.setattr(
            results_table, "read", lambda name, g=given: rows + g if name == "speed" else read(name)
        )
        assert shown in results_table.first_screen()


def test_every_line_names_a_script_and_a_config_that_are_there_and_a_date(results_table):
    for line in results_table.lines():
        script, config = line.script.split()[0], line.config.split(",")[0]
        assert script == "dtp-dist" or (ROOT / "benchmarks" / script).exists(), line
        assert not config.endswith(".yaml") or (ROOT / "configs" / config).exists(), line
        assert line.date[:2] == "20" or line.value == results_table.MISSING, line
        assert line.machine, line


def test_spread_is_the_sample_deviation_and_none_of_a_single_run(results_table):
    assert results_table.listed([1.0, 2.0]) == "1.50 ± 0.71 (1.00, 2.00)"
    assert results_table.listed([1.0]) == "1.00 (1.00)"
