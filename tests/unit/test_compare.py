"""Comparisons: seeds, twins, the runs of both, their tables and figures; in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from dtp_dist import load_config
from dtp_dist.cli.commands import app
from dtp_dist.compare.plan import FILE, SEEDS, open_comparison, plan_comparison, seeds_in
from dtp_dist.compare.twin import check_entries
from dtp_dist.config import read_config, to_dict
from dtp_dist.errors import ConfigError, DataError
from dtp_dist.storage.lock import locked
from dtp_dist.storage.origin import origin_of
from dtp_dist.trials import child, pool
from dtp_dist.trials.pool import at_once
from dtp_dist.trials.trial import Trial, outcome_of
from runs import small, write_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICK = ("train.max_steps=6", "monitor.tensorboard=false", "data.train_examples=240")
SLOWER = {"backprop": {"optimizer.forward.lr": 3.0e-4}}


def plan(folder: Path, *overrides: str, rules: Sequence[str] = ("backprop",), **sections: Any) -> list[Trial]:
    source = write_config(folder, small(**sections))
    return plan_comparison(source, [*QUICK, *overrides], rules, [0, 1], folder / "both")


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2,5", [0, 2, 5]),
        (" 7 ", [7]),
        ("3-4, 0 - 1,4", [3, 4, 0, 1]),
        ("5-5", [5]),
    ],
)
def test_seeds_are_read(text, due):
    assert seeds_in(text) == due


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "0-4-5", "1.5", "0;1", "0,,1", "9" * 30, "²"])
def test_what_is_no_seed_is_one_line(text):
    with pytest.raises(ConfigError, match=r"--seeds: .* is not allowed; write seeds or ranges of them"):
        seeds_in(text)


def test_seeds_in_the_wrong_order_or_too_many_are_refused_with_what_to_write():
    with pytest.raises(ConfigError, match="--seeds: '4-0' ends before it begins; write 0-4"):
        seeds_in("1,4-0")
    with pytest.raises(ConfigError, match=f"are too many; write at most {SEEDS}"):
        seeds_in("0-1000000000")
    assert len(seeds_in(f"0-{SEEDS - 1}")) == SEEDS


def test_the_runs_are_of_each_rule_with_each_seed_side_by_side(tmp_path):
    trials = plan(tmp_path, compare=SLOWER, rules=["backprop", "tp"])
    assert [trial.name for trial in trials] == [
        *("dtp-seed0", "backprop-seed0", "tp-seed0"),
        *("dtp-seed1", "backprop-seed1", "tp-seed1"),
    ]
    own, twin, other = (trial.config for trial in trials[3:])
    assert [config.seed for config in (own, twin, other)] == [1, 1, 1]
    assert (own.rule.name, twin.rule.name, other.rule.name) == ("dtp", "backprop", "tp")
    rates = [config.optimizer.forward.lr for config in (own, twin, other)]
    assert rates == [1e-3, 3e-4, 1e-3]
    assert own.data == twin.data == other.data
    assert own.train == twin.train
    assert all(trial.metric == "valid_error" for trial in trials)
    alone = load_config(write_config(tmp_path), [*QUICK, "seed=1"])
    assert origin_of(own) == origin_of(alone), "a comparison is no part of the experiment"


def test_a_twin_without_inverses_has_no_options_of_theirs(tmp_path):
    more = ("model.defaults.inverse.iterations=3", "optimizer.inverse.lr=0.5")
    own, twin, other = (trial.config for trial in plan(tmp_path, *more, rules=["backprop", "tp"])[:3])
    assert [each.model.options[0].inverse.iterations for each in (own, twin, other)] == [3, 1, 3]
    assert [each.optimizer.pair[1].lr for each in (own, twin, other)] == [0.5, 1e-3, 0.5]


def test_what_a_twin_changes_may_be_anything_dotted_or_nested(tmp_path):
    entry = {"optimizer": {"forward": {"lr": 0.5}}, "model.layers.2.units": 16, "rule.target_step": 0.2}
    config = plan(tmp_path, compare={"tp": entry}, rules=["tp"])[1].config
    assert (config.optimizer.forward.lr, config.rule.target_step) == (0.5, 0.2)
    assert [layer.units for layer in config.model.options] == [32, 16, 32, 32, 10]
    later = plan(tmp_path, "compare.tp.optimizer.forward.lr=0.25", compare={"tp": entry}, rules=["tp"])
    assert later[1].config.optimizer.forward.lr == 0.25


REFUSED = [
    ({}, ["bckprop"], r"--with: 'bckprop' is not allowed; .*did you mean backprop\?"),
    ({}, ["dtp"], "--with: dtp is the configuration's own rule; name another one to compare it with"),
    ({}, ["nowhere:Rule"], r"rule.name: .*nowhere.* \(in the twin by nowhere:Rule\)"),
    ({"compare": 3}, [], "compare: 3 is not allowed; write rules with their keys, e.g. {backprop: "),
    ({"compare": {"bckprop": {}}}, [], r"compare: 'bckprop' is not allowed; .*did you mean backprop\?"),
    ({"compare": {"backprop": [1]}}, [], r"compare.backprop: \[1\] is not allowed; write dotted keys"),
    ({"compare": {"backprop": {"optimizer.forward.rate": 1}}}, [],
     "compare.backprop.optimizer.forward.rate: unknown key"),
    ({"compare": {"backprop": {"optimizer": {"forward": {"lr": "high"}}}}}, [],
     "compare.backprop.optimizer.forward.lr: 'high' is not allowed"),
    ({"compare": {"backprop": {"model.layers.9.units": 1}}}, [],
     "compare.backprop.model.layers.9: '9' is no layer"),
    ({"compare": {"backprop": {"a b": 1}}}, [], "compare.backprop.a b: is no key"),
    ({"compare": {"backprop": {"seed": 1}}}, [], "compare.backprop.seed: the comparison sets it itself"),
    ({"compare": {"backprop": {"rule.name": "tp"}}}, [], "compare.backprop.rule: .* is another rule"),
    ({"compare": {"tp": {"rule.target_step": -1}}}, ["backprop"], "compare.tp.rule.target_step: -1"),
    ({"parallel": {"virtual_costs": 1}}, [], "parallel.virtual_costs: virtual devices learn nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "rules", "told"), REFUSED)
def test_what_can_t_be_compared_is_told_before_anything_starts(tmp_path, sections, rules, told):
    with pytest.raises(ConfigError, match=told) as caught:
        plan(tmp_path, rules=rules or ["backprop"], **sections)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(("override", "told"), [("seed=3", "write --seeds"), ("run_dir=x", "write --dir")])
def test_what_the_comparison_sets_itself_is_no_override(tmp_path, override, told):
    with pytest.raises(ConfigError, match=f": the comparison sets it itself; {told}"):
        plan(tmp_path, override)


def test_what_the_environment_holds_is_in_no_message(tmp_path, monkeypatch):
    monkeypatch.setenv("MINE", "secret")
    for entry in (
        {"optimizer.forward.lr": "${oc.env:MINE}"},
        {"optimizer": {"forward": {"lr": "${oc.env:MINE}"}}},
    ):
        with pytest.raises(ConfigError, match=r"compare.backprop.optimizer.forward.lr: ") as caught:
            plan(tmp_path, compare={"backprop": entry})
        assert "secret" not in str(caught.value)
    monkeypatch.setenv("MINE", "0.25")
    twin = plan(tmp_path, compare={"backprop": {"optimizer.forward.lr": "${oc.decode:${oc.env:MINE}}"}})[1]
    assert twin.config.optimizer.forward.lr == 0.25


def test_the_command_config_checks_what_is_compared_and_imports_no_code_for_it(tmp_path):
    for entry, told in [
        ({"backprop": {"optimizer.forward.rate": 1}}, "compare.backprop.optimizer.forward.rate: unknown key"),
        ({"nowhere:Rule": {}}, "compare.nowhere:Rule: would import 'nowhere:Rule'; add --allow-code"),
    ]:
        path = write_config(tmp_path, small(compare=entry))
        done = CliRunner().invoke(app, ["config", str(path)], standalone_mode=False)
        assert isinstance(done.exception, ConfigError)
        assert told in str(done.exception)
        assert load_config(path).compare == entry, "a single run has no use for it"


def test_data_that_are_missing_are_told_before_anything_starts(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        plan(tmp_path, data={"name": "image_folder", "root": str(tmp_path / "nowhere")})


def test_without_a_validation_split_the_test_error_is_told(tmp_path):
    assert {trial.metric for trial in plan(tmp_path, "data.valid_examples=0")} == {"test_error"}


def test_a_folder_is_opened_again_for_the_same_comparison_alone(tmp_path):
    source, folder = write_config(tmp_path, small(compare=SLOWER)), tmp_path / "both"
    open_comparison(folder, source, [], ["backprop"])
    open_comparison(folder, source, ["monitor.every=3"], ["tp"])
    assert set(yaml.safe_load((folder / FILE).read_text())) == {"config", "compare.backprop", "compare.tp"}
    open_comparison(folder, source, [], ["backprop"])
    with pytest.raises(
        ConfigError, match=r"--dir: .* another comparison: train.epochs was 1, now 3; name another"
    ):
        open_comparison(folder, source, ["train.epochs=3"], ["backprop"])
    rate = "compare.backprop.optimizer.forward.lr=0.1"
    with pytest.raises(
        ConfigError, match=r"another comparison: compare.backprop.optimizer.forward.lr was 0.0003, now 0.1"
    ):
        open_comparison(folder, source, [rate], ["backprop"])
    with pytest.raises(ConfigError, match="exists and holds no comparison; name another folder"):
        open_comparison(tmp_path, source, [], ["backprop"])


def test_so_many_runs_are_trained_at_once_as_there_are_cores_for(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for overrides, due in [
        ((), 8),
        (("parallel.threads=4",), 2),
        (("parallel.runtime=local", "parallel.stages=3"), 2),
        (("parallel.threads=16",), 1),
        (("parallel.runtime=ray",), 1),
    ]:
        assert at_once(plan(tmp_path, *overrides)) == due


def test_a_worker_that_never_begins_fails_its_run_within_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "START", "import time; time.sleep(600)")
    trials = plan(tmp_path, "parallel.start_timeout=0.1")[:2]
    trials[0].folder.parent.mkdir()
    told: list[str] = []
    before = psutil.Process().children()
    pool.train_all(trials, jobs=1, folder=trials[0].folder.parent, tell=told.append)
    why = "its process did not begin within parallel.start_timeout; the same command resumes it"
    assert told == [f"dtp-seed0  failed: {why}", f"backprop-seed0  failed: {why}"]
    assert psutil.Process().children() == before


def test_a_worker_that_ends_at_once_fails_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "START", "print('no torch here'); raise SystemExit(3)")
    trials = plan(tmp_path)[:1]
    trials[0].folder.parent.mkdir()
    pool.train_all(trials, jobs=4, folder=trials[0].folder.parent, tell=lambda line: None)
    found = outcome_of(trials[0])
    assert (found.state, found.final) == ("failed", False)
    assert found.message == "its process ended with exit code 3; the same command resumes it"
    assert (trials[0].folder.parent / pool.LOG).read_text() == "no torch here\n"


ADVICE = [
    ((["--with", "dtp"], "name another one"), ["--with", "tp"]),
    ((["--seeds", "3-2"], "write 2-3"), ["--seeds", "2-3"]),
    ((["seed=3"], "write --seeds"), ["--seeds", "3"]),
    ((["run_dir=x"], "write --dir"), ["--dir", "x"]),
    ((["compare.backprop.rule.name=tp"], "write it under its own name"), ["compare.tp.rule.target_step=0.1"]),
    ((["compare.backprop.seed=1"], "leave it out"), []),
]


@pytest.mark.parametrize(("wrong", "right"), ADVICE)
def test_what_a_message_advises_works(tmp_path, monkeypatch, wrong, right):
    """It gets as far as to train."""
    monkeypatch.chdir(tmp_path)
    begun: list[Sequence[Trial]] = []
    monkeypatch.setattr(pool, "train_all", lambda trials, **more: begun.append(trials))
    words, told = wrong
    for more in (words, right):
        done = CliRunner().invoke(app, ["compare", str(write_config(tmp_path)), *more], standalone_mode=False)
        if more is words:
            assert told in str(done.exception)
            assert not begun
    assert begun


def test_a_folder_in_which_another_process_is_at_work_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_config(tmp_path)
    (tmp_path / "both").mkdir()
    call = ["compare", str(source), *QUICK, "--dir", "both", "--seeds", "0"]
    with locked(tmp_path / "both"):
        done = CliRunner().invoke(app, call, standalone_mode=False)
    assert "both: another process is at work in it" in str(done.exception)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_twins_of_our_configurations_are_ones(path):
    check_entries(read_config(path), path)


def test_a_configuration_keeps_what_it_compares():
    config = load_config(small(compare=SLOWER))
    assert to_dict(config)["compare"] == SLOWER
    assert origin_of(config) == origin_of(load_config(small()))
