"""What tells runs apart in the tables of a report."""

from __future__ import annotations

import pytest

from dtp_dist.report import read_run
from dtp_dist.report.differences import differences
from dtp_dist.report.page import page
from dtp_dist.report.settings import learning_rate
from run_folders import CONFIG, write_run

RATES = {"forward": {"lr": 0.001}, "inverse": {"lr": 0.0003}}


@pytest.mark.parametrize(
    ("optimizer", "layers", "due"),
    [
        (RATES, [], "0.001 / 0.0003"),
        ({**RATES, "inverse": {"lr": 0.001}}, [], "0.001"),
        ({"forward": {"lr": {"schedule": "cosine", "start": 0.2, "length": 60}}}, [], "0.2 cosine"),
        (RATES, [{"optimizer": {"forward": None, "inverse": {"lr": 1.0}}}], "0.001 / 0.0003*"),
        (RATES, [{"optimizer": {"forward": None, "inverse": None}}, "odd"], "0.001 / 0.0003"),
        ("odd", {"odd": 1}, None),
    ],
)
def test_learning_rates_are_told_in_few_characters(optimizer, layers, due):
    assert learning_rate({"optimizer": optimizer, "model": {"layers": layers}}) == due


def test_the_table_of_a_report_tells_runs_of_one_config_apart(tmp_path):
    config = CONFIG + "\nrule: {name: dtp}\ndata: {name: mnist}\nseed: %d"
    text = page([read_run(write_run(tmp_path / f"run{seed}", config=config % seed)) for seed in (7, 8)])
    for seed in (7, 8):
        assert f"<td>dtp</td><td>mnist</td><td>0.001</td><td>{seed}</td>" in text


def test_many_runs_are_compared_by_value(tmp_path):
    rates = ["0.001", "0.003"] * 4
    folders = [tmp_path / f"run{index}" for index in range(8)]
    for folder, rate in zip(folders, rates, strict=True):
        write_run(folder, config=CONFIG.replace("0.001", rate))
    text = differences([read_run(folder) for folder in folders], [folder.name for folder in folders])
    assert "<td>0.003</td><td>run1 run3 run5 run7</td>" in text
    assert text.count("<tr>") == 3


def test_differences_are_of_what_is_computed_and_in_plain_words(tmp_path):
    """Words had JSON's quotes, and what a run shows of itself was among what differs."""
    more = "\nmonitor: {every: %d, tensorboard: %s}\nrule: {name: %s}\ndata: {shape: %s}"
    first = write_run(tmp_path / "a", config=CONFIG + more % (1, "true", "dtp", "[8, 8]"))
    second = write_run(tmp_path / "b", config=CONFIG + more % (2, "false", "tp", "null"))
    third = write_run(tmp_path / "c", config=CONFIG + more % (3, "true", "dtp", "[8, 8]"))
    runs = [read_run(each) for each in (first, second, third)]
    text = differences(runs[:2], ["a", "b"])
    assert "<td>dtp</td><td>tp</td>" in text
    assert "<td>[8, 8]</td><td>null</td>" in text
    assert "monitor" not in text
    assert "are the same" in differences([runs[0], runs[2]], ["a", "c"])
