"""Spaces, the trials drawn from them, and what a search leaves; without Ray."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dtp_dist import load_config
from dtp_dist.errors import ConfigError, DataError
from dtp_dist.trials.trial import Trial, outcome_of, record
from dtp_dist.trials.worker import Job, run_trial
from dtp_dist.tune.plan import open_search, plan_trials
from dtp_dist.tune.space import as_overrides, read_space
from dtp_dist.tune.summary import ranked, trial_table, write_best, write_trials
from run_folders import FINISHED, MEASURED, STARTED, at, write_run
from runs import small, write_config

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
optimizer.forward.lr: {log_uniform: [1.0e-4, 1.0e-1]}
rule.target_step: {uniform: [0.1, 0.5]}
model.defaults.inverse.iterations: {int_uniform: [1, 3]}
data.batch_size: {choice: [20, 40]}
"""


def write_space(folder: Path, text: str = SPACE) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def plan(folder: Path, count: int = 3, *overrides: str, space: str = SPACE, seed: int = 0) -> list[Trial]:
    source = write_config(folder)
    return plan_trials(
        source, overrides, read_space(write_space(folder, space)), count, seed, folder / "search"
    )


def test_drawn_values_lie_within_their_bounds_and_fill_them(tmp_path):
    space = read_space(write_space(tmp_path))
    drawn = [space.draw(0, trial) for trial in range(300)]
    rates = [each["optimizer.forward.lr"] for each in drawn]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 0.25 < sum(rate < 1e-3 for rate in rates) / 300 < 0.42, "a third in each decade"
    assert all(0.1 <= each["rule.target_step"] <= 0.5 for each in drawn)
    assert {each["model.defaults.inverse.iterations"] for each in drawn} == {1, 2, 3}
    assert {each["data.batch_size"] for each in drawn} == {20, 40}


def test_a_draw_depends_on_seed_trial_and_key_alone(tmp_path):
    space = read_space(write_space(tmp_path))
    lonely = read_space(write_space(tmp_path, SPACE.splitlines()[1]))
    assert space.draw(3, 5) == space.draw(3, 5)
    assert space.draw(3, 5)["optimizer.forward.lr"] == lonely.draw(3, 5)["optimizer.forward.lr"]
    assert space.draw(3, 5) != space.draw(3, 6)
    assert space.draw(3, 5) != space.draw(4, 5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a space; write keys with distributions"),
        ("[1]", "is not a space"),
        ("a: [", "is not YAML"),
        ("seed: 3", "seed: 3 is not a distribution; write one of uniform, log_uniform"),
        ("seed: {uniform: [0, 1], choice: [1]}", "is not a distribution"),
        ("seed: {loguniform: [1, 2]}", "seed: 'loguniform' is not a distribution; did you mean log_uniform?"),
        ("seed: {choice: 3}", "seed.choice: 3 is not allowed; it must be a list"),
        ("seed: {choice: []}", "it must be a list"),
        ("seed: {uniform: [1]}", "it must be two numbers, [low, high]"),
        ("seed: {uniform: [1e-4, 1]}", "YAML needs a point in 1.0e-4"),
        ("seed: {uniform: [true, 2]}", "it must be two numbers"),
        ("seed: {int_uniform: [1, 2.5]}", "it must be two whole numbers"),
        ("seed: {uniform: [2, 2]}", "it must be [low, high] with low < high"),
        ("seed: {uniform: [0, .inf]}", "low < high"),
        ("seed: {log_uniform: [0, 1]}", "0 < low < high"),
        ("run_dir: {choice: [a]}", "run_dir: the search sets it itself"),
    ],
)
def test_a_wrong_space_is_one_line(tmp_path, text, told):
    with pytest.raises(ConfigError) as caught:
        read_space(write_space(tmp_path, text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_space_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: can't be read \(No such file"):
        read_space(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("space", "overrides", "told"),
    [
        (
            "optimizer.forward.rate: {uniform: [0, 1]}",
            (),
            r"optimizer.forward.rate: unknown key.*in trial_0000",
        ),
        (
            "train.epochs: {uniform: [1, 2]}",
            (),
            r"train.epochs: .* whole number \(in trial_0000 of the search",
        ),
        ("train.epochs: {int_uniform: [-9, -1]}", (), r"train.epochs: .* at least 1 \(in trial_0000"),
        (SPACE, ("parallel.runtime=ray",), r"parallel.runtime: ray is not allowed in a search"),
        (SPACE, ("parallel.virtual_costs=5",), r"parallel.virtual_costs: virtual devices learn nothing"),
        (SPACE, ("data.valid_examples=0",), r"data.valid_examples: 0 leaves nothing to compare"),
    ],
)
def test_what_no_trial_can_run_is_told_before_anything_starts(tmp_path, space, overrides, told):
    with pytest.raises(ConfigError, match=told):
        plan(tmp_path, 3, *overrides, space=space)
    assert not (tmp_path / "search").exists()


def test_trials_have_their_values_in_their_configurations(tmp_path):
    trials = plan(tmp_path, 3, "train.epochs=7")
    assert [trial.name for trial in trials] == ["trial_0000", "trial_0001", "trial_0002"]
    for trial in trials:
        assert trial.config.optimizer.forward.lr == trial.values["optimizer.forward.lr"]
        assert trial.config.train.epochs == 7
        assert trial.config.run_dir == str(trial.folder)
    assert plan(tmp_path, 5, "train.epochs=7")[:3] == trials, "more trials leave the first as they are"


def test_small_numbers_survive_the_way_through_an_override(tmp_path):
    values = {"optimizer.forward.lr": 3.2e-07, "rule": {"name": "tp"}, "optimizer.forward.name": "sgd"}
    config = load_config(write_config(tmp_path), as_overrides(values))
    assert config.optimizer.forward.lr == 3.2e-07
    assert (config.rule.name, config.optimizer.forward.name) == ("tp", "sgd")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "spaces").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_example_space_fits_the_configuration_it_names(path, tmp_path):
    plan_trials(ROOT / "configs" / "mnist_dtp_adam.yaml", [], read_space(path), 20, 0, tmp_path)


def test_the_space_in_the_quickstart_is_one(tmp_path):
    text = (ROOT / "docs" / "quickstart.md").read_text()
    block = next(part for part in text.split("```yaml\n")[1:] if "log_uniform" in part).partition("```")[0]
    space = read_space(write_space(tmp_path, block))
    plan_trials(ROOT / "configs" / "mnist_dtp_adam.yaml", [], space, 20, 0, tmp_path)


def test_a_folder_is_opened_again_for_the_same_search_alone(tmp_path):
    source, space, folder = write_config(tmp_path), write_space(tmp_path), tmp_path / "search"
    open_search(folder, source, [], space, 0)
    open_search(folder, source, [], space, 0)
    with pytest.raises(ConfigError, match=r"another search: train.epochs was 1, now 3; name another folder"):
        open_search(folder, source, ["train.epochs=3"], space, 0)
    with pytest.raises(ConfigError, match=r"seed was 0, now 1"):
        open_search(folder, source, [], space, 1)
    with pytest.raises(ConfigError, match=r"exists and holds no search"):
        open_search(tmp_path, source, [], space, 0)


def test_outcomes_are_ranked_and_written(tmp_path):
    trials = plan(tmp_path, 5)
    search = tmp_path / "search"
    search.mkdir()
    worse = [*MEASURED[:2], at(30, valid_error=9.0)]
    write_run(trials[0].folder, [STARTED, *worse, FINISHED], result=json.dumps({"valid_error": 9.0}))
    write_run(trials[1].folder, [STARTED, *MEASURED, FINISHED])
    write_run(trials[2].folder, [STARTED, at(10, valid_error=1.0)], result="")
    record(trials[2].record, "stopped", final=True)
    record(trials[3].record, "failed", "no data", final=False)
    outcomes = ranked([outcome_of(trial) for trial in trials])
    assert [(each.trial.number, each.state) for each in outcomes] == [
        *((2, "stopped"), (1, "done"), (0, "done")),
        *((4, "open"), (3, "failed")),
    ]
    assert {each.trial.number for each in outcomes if not each.final} == {3, 4}
    best = write_best(search, outcomes, "best")
    assert best is not None
    assert best.trial.number == 1, "a stopped trial does not win over one that is done"
    config = load_config(search / "best.yaml")
    assert (config.name, config.run_dir) == ("best", None)
    assert config.optimizer == trials[1].config.optimizer
    write_trials(search, outcomes)
    rows = list(csv.DictReader((search / "trials.csv").open()))
    assert [row["trial"] for row in rows] == [each.trial.name for each in outcomes]
    assert float(rows[1]["optimizer.forward.lr"]) == trials[1].values["optimizer.forward.lr"]
    assert (rows[1]["valid_error"], rows[4]["message"]) == ("4.5", "no data")
    assert trial_table(outcomes).row_count == 5


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """A trial of a search whose folder is there; workers change the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search").mkdir()
    return plan(tmp_path, 1)[0]


def job_of(trial: Trial, **sections: Any) -> Job:
    raw = small(run_dir=str(trial.folder), **sections)
    return Job(trial.folder, trial.record, raw, str(trial.folder.parent), [], trial.metric)


@pytest.mark.slow
def test_a_halted_trial_goes_on_from_its_checkpoint_and_tells_the_past_again(trial):
    job = job_of(trial, train={"epochs": 3})
    told: list[int] = []

    def halt(values: dict[str, float]) -> None:
        told.append(int(values["epoch"]))
        if values["epoch"] == 2:
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        run_trial(job, halt)
    assert told == [1, 2]
    assert outcome_of(trial).state == "open"
    assert outcome_of(trial).run.events[-1]["event"] == "interrupted"
    again: list[int] = []
    run_trial(job, lambda values: again.append(int(values["epoch"])))
    assert again == [1, 2, 3]
    found = outcome_of(trial)
    assert (found.state, found.run.place("step")) == ("done", 90)
    assert "resumed" in [line["event"] for line in found.run.events]


def test_a_trial_that_diverges_stays_failed(trial):
    run_trial(job_of(trial, optimizer={"forward": {"name": "sgd", "lr": 1.0e38}}), lambda values: None)
    found = outcome_of(trial)
    assert (found.state, found.final) == ("failed", True)
    assert "loss is" in found.message


@pytest.mark.parametrize("error", [DataError("no data"), ValueError("a\nb")])
def test_a_trial_that_could_not_run_is_tried_again(trial, monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dtp_dist.trials.worker.train", fail)
    run_trial(job_of(trial), lambda values: None)
    found = outcome_of(trial)
    assert (found.state, found.final) == ("failed", False)
    assert found.message in ("no data", "ValueError: a b")
