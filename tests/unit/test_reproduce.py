"""The table of reproduced experiments: it has every config of a paper, and a run counts once."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dtp_dist import load_config
from dtp_dist.algorithm.optimizers.schedules import scheduled
from dtp_dist.config import Config, to_dict, to_yaml
from dtp_dist.profiling.resolve import resolve
from dtp_dist.text.dotted import flat

ROOT = Path(__file__).resolve().parents[2]
OURS = (
    "digits_dtp",
    "fashion_mnist_dtp",
    "mnist_backprop",
    "mnist_dtp_adam",
    "resnet18_cifar10",
)


@pytest.fixture
def reproduce(monkeypatch):
    """The script, and what makes its rows and lines."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import reproduce

    from helpers import published, reproduced, twins

    yield SimpleNamespace(script=reproduce, **{**vars(published), **vars(reproduced), **vars(twins)})
    for name in [each for each in sys.modules if each.partition(".")[0] in ("helpers", "reproduce")]:
        monkeypatch.delitem(sys.modules, name)


def test_every_config_of_a_paper_is_an_experiment_and_loads(reproduce):
    names = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert set(reproduce.EXPERIMENTS) == names - {*OURS, "resnet18_cifar10_backprop"}
    for name, experiment in reproduce.EXPERIMENTS.items():
        config = load_config(reproduce.config_of(name), reproduce.overrides_of(name, 3, 2, "data"))
        assert (config.seed, config.train.epochs) == (3, 2)
        assert experiment.data.lower().replace("-", "").replace("fashion", "fashion_") == config.data.name
        assert (experiment.published is None) == (experiment.how == "")


def forward_maps(config: Config) -> list[dict[str, object]]:
    """The layers as the twin has them, which may be without norm, as Shibuya et al.'s, and begin elsewhere.

    Weights of zeros (Nøkland 2016) are none that backpropagation could begin with.
    """
    layers, others = to_dict(config)["model"]["layers"], ("inverse", "optimizer", "norm", "init")
    return [{name: value for name, value in layer.items() if name not in others} for layer in layers]


def test_every_experiment_has_a_twin_of_its_network_by_backpropagation_or_is_one(reproduce):
    for name, experiment in reproduce.EXPERIMENTS.items():
        config = load_config(reproduce.config_of(name))
        assert (config.rule.name == "backprop") == (experiment.twin == ""), name
        if experiment.twin:
            twin = load_config(reproduce.config_of(experiment.twin))
            assert twin.rule.name == "backprop"
            assert reproduce.EXPERIMENTS[experiment.twin].data == experiment.data
            assert (twin.data, forward_maps(twin)) == (config.data, forward_maps(config)), name


def test_a_shorter_run_has_every_cosine_over_epochs_in_proportion(reproduce):
    assert reproduce.shorter("lee2015_continuous", 25) == ["train.epochs=25"]
    assert reproduce.shorter("lee2015_continuous", 100) == []
    assert reproduce.shorter("ernoult2022_vgg_cifar10", 18) == [
        "train.epochs=18",
        "optimizer.forward.lr.length=17",
    ]
    assert reproduce.shorter("lee2015_autoencoder", 5) == [
        "train.epochs=5",
        "rule.target_step.length=1",
        "optimizer.forward.lr.length=5",
        "optimizer.inverse.lr.length=5",
    ]
    raw = {"layers": [{"units": 3}, {"lr": {"schedule": "cosine", "length": 9}}], "lr": {"schedule": "step"}}
    raw["sigma"] = {"schedule": "cosine", "length": 9, "unit": "minibatch"}
    assert [key for key, _ in reproduce._cosines(raw)] == ["layers.2.lr"]


def test_a_run_of_fewer_epochs_has_a_folder_of_its_own_by_which_it_is_found(reproduce, tmp_path):
    for epochs, name in ((100, "lee2015_continuous"), (25, "lee2015_continuous-25epochs")):
        folder = reproduce.folder_of(tmp_path, "lee2015_continuous", 1, epochs)
        assert folder == tmp_path / name / "seed1"
        folder.mkdir(parents=True)
    (tmp_path / "unknown" / "seed1").mkdir(parents=True)
    names = [name for name, _ in reproduce.folders(tmp_path)]
    assert names == ["lee2015_continuous"] * 2


@pytest.mark.parametrize(
    ("typed", "names", "epochs"),
    [
        (["lee2015_discrete"], ["lee2015_discrete"], 500),
        (
            ["lee2015_discrete", "--twins", "--epochs", "9"],
            ["lee2015_discrete", "lee2015_discrete_backprop"],
            9,
        ),
        (["lee2015_discrete", "--scale", "0.1"], ["lee2015_discrete"], 50),
        (["lee2015_discrete", "--epochs", "900"], ["lee2015_discrete"], 500),
    ],
)
def test_the_command_line_says_which_runs_and_how_long(reproduce, monkeypatch, typed, names, epochs):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *typed])
    options = reproduce.script.parsed()
    assert options.names == names
    assert reproduce.script.budget_of("lee2015_discrete", options) == epochs


def write_run(folder: Path, *lines: dict[str, float], name="lee2015_discrete", overrides=()) -> Path:
    folder.mkdir(parents=True)
    config = load_config(ROOT / "configs" / f"{name}.yaml", ["seed=2", *overrides])
    (folder / "config.yaml").write_text(to_yaml(resolve(config)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


LINES = [{"epoch": epoch, "time": 9.0 * epoch, "test_error": 5.0 - epoch} for epoch in (1, 2)]


def test_an_unfinished_run_counts_with_its_newest_evaluation(reproduce, tmp_path):
    run = write_run(tmp_path / "run", *LINES, {"epoch": 3, "time": 27.0})
    row = reproduce.row_of("lee2015_discrete", run)
    assert (row["seed"], row["epochs"], row["asked"], row["of_epochs"]) == (2, 2, 500, 500)
    assert (row["test_error"], row["errors"]) == (3.0, "1:4.00 2:3.00")
    assert reproduce.row_of("lee2015_discrete", write_run(tmp_path / "new", {"epoch": 1})) is None


def test_what_a_resumed_run_evaluated_again_counts_once(reproduce, tmp_path):
    run = write_run(tmp_path / "run", *LINES, {**LINES[1], "test_error": 2.5})
    assert reproduce.row_of("lee2015_discrete", run)["errors"] == "1:4.00 2:2.50"


def test_a_run_counts_where_its_settings_are_the_configs_or_those_of_fewer_epochs(reproduce, tmp_path):
    other = write_run(tmp_path / "other", *LINES, overrides=("rule.target_step=1.0",))
    assert reproduce.row_of("lee2015_discrete", other) is None
    fewer = write_run(tmp_path / "fewer", *LINES, overrides=("train.epochs=50",))
    row = reproduce.row_of("lee2015_discrete", fewer)
    assert (row["asked"], row["of_epochs"]) == (50, 500)
    mlp = "ernoult2022_mlp_mnist"
    cut = write_run(tmp_path / "cut", *LINES, name=mlp, overrides=("train.epochs=10",))
    assert reproduce.row_of(mlp, cut) is None, "its cosines are those of 20 epochs"
    short = write_run(tmp_path / "short", *LINES, name=mlp, overrides=reproduce.shorter(mlp, 10))
    assert reproduce.row_of(mlp, short)["asked"] == 10


def row(reproduce, name: str, seed: int, errors: str, asked: int = 0) -> dict[str, object]:
    """A row as it is read from the file."""
    whole = reproduce.epochs_of(name)
    epoch, error = errors.split()[-1].split(":")
    return {
        "name": name,
        "seed": str(seed),
        "epochs": epoch,
        "asked": str(asked or whole),
        "of_epochs": str(whole),
        "test_error": error,
        "errors": errors,
        "config": reproduce.fingerprint(name, asked or whole),
    }


def test_the_table_keeps_the_longest_run_of_each_seed_and_gives_mean_and_spread(reproduce):
    name = "lee2015_stochastic"
    old = [row(reproduce, name, 0, "1000:1.50"), row(reproduce, name, 1, "10:9.00")]
    new = [row(reproduce, name, 0, "50:4.00"), row(reproduce, name, 1, "1000:1.70")]
    (group,) = reproduce.groups(reproduce.merged(old, new))
    line = reproduce.script.line_of(group)
    assert "| 1000 of 1000 | 1.60 +- 0.14 | 1.50, 1.70 | not run | - | 1.54 |" in line
    assert line.endswith("(recalled) |")


def test_runs_of_fewer_epochs_are_a_line_of_their_own(reproduce):
    name = "ernoult2022_mlp_mnist"
    rows = [row(reproduce, name, 0, "20:1.90"), row(reproduce, name, 0, "2:3.10", asked=4)]
    found = reproduce.groups(reproduce.merged(rows, []))
    assert [group.budget for group in found] == ["20 of 20", "2 of 20, cosines over 4"]


@pytest.mark.parametrize(
    ("mine", "twins", "cells"),
    [
        ({0: "1:3.00 2:2.00"}, {0: "1:4.00 2:1.50"}, ("1.50", "+0.50")),
        ({0: "1:3.00 2:2.00"}, {0: "1:4.00"}, ("4.00 (epoch 1)", "-1.00")),
        ({0: "2:2.00", 1: "2:3.00"}, {1: "2:2.50", 2: "2:9.00"}, ("2.50 (1 of 2 seeds)", "+0.50")),
        ({0: "2:2.00", 1: "2:3.00"}, {0: "2:2.00", 1: "2:4.00"}, ("3.00", "-0.50")),
        ({0: "2:2.00"}, {1: "2:2.50"}, ("not run", "-")),
        ({0: "2:2.00"}, {0: "1:2.50"}, ("not run", "-")),
    ],
)
def test_a_twin_is_compared_after_the_same_epochs_of_the_same_seeds(reproduce, mine, twins, cells):
    name, twin = "ernoult2022_mlp_mnist", "ernoult2022_mlp_mnist_backprop"
    rows = [row(reproduce, name, seed, errors) for seed, errors in mine.items()]
    rows += [row(reproduce, twin, seed, errors) for seed, errors in twins.items()]
    found, of_twin = reproduce.groups(rows)
    assert found.next_to_twin == cells
    assert of_twin.next_to_twin == ("-", "-")


def test_a_twin_of_another_budget_is_none(reproduce):
    name, twin = "ernoult2022_mlp_mnist", "ernoult2022_mlp_mnist_backprop"
    rows = [row(reproduce, name, 0, "4:2.00", asked=4), row(reproduce, twin, 0, "4:2.00")]
    assert reproduce.groups(rows)[0].next_to_twin == ("not run", "-")


def test_a_row_of_settings_that_a_config_has_no_longer_is_left_out(reproduce, tmp_path, capsys):
    good = row(reproduce, "lee2015_discrete", 0, "500:2.00")
    rows = [good, {**good, "seed": "1", "config": "0" * 12}, {**good, "seed": "2", "of_epochs": "400"}]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(good))
        writer.writeheader()
        writer.writerows(rows)
    assert reproduce.kept_rows(tmp_path / "rows.csv") == [good]
    assert "lee2015_discrete: its rows are of other settings" in capsys.readouterr().out


def test_every_committed_row_is_of_the_settings_that_its_config_has(reproduce):
    """If this fails: python benchmarks/reproduce.py --report, and results_table.py."""
    with reproduce.FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows if not reproduce.is_current(row)} == set()
    assert reproduce.script.PAGE.read_text() == reproduce.script.page(rows)


@pytest.mark.parametrize("name", ["ernoult2022_lenet_cifar10", "ernoult2022_vgg_cifar10", "resnet18_cifar10"])
def test_a_twin_of_ldrl_takes_its_steps_where_the_inverses_are_exact(name):
    """``lr (beta g + wd w) = lr beta (g + wd/beta w)``, g the loss's gradient."""
    config, twin = (load_config(ROOT / "configs" / f"{each}.yaml") for each in (name, f"{name}_backprop"))
    beta, rule = config.rule.target_step, config.optimizer.forward
    assert twin.optimizer.forward.weight_decay == pytest.approx(rule.weight_decay / beta, rel=1e-6)
    assert twin.optimizer.forward.momentum == rule.momentum
    for epoch in (0, 1, 40, 85, 89):
        expected = beta * scheduled(rule.lr)(epoch, 0)
        assert scheduled(twin.optimizer.forward.lr)(epoch, 0) == pytest.approx(expected, rel=1e-6)


def test_a_config_has_the_value_that_its_search_found_best(reproduce):
    with (ROOT / "docs" / "results" / "rate_search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, key in {(row["config"], row["key"]) for row in rows}:
        errors: dict[str, list[float]] = {}
        for each in rows:
            if (each["config"], each["key"]) == (name, key):
                errors.setdefault(each["value"], []).append(float(each["valid_error"]))
        best = min(errors, key=lambda value: statistics.mean(errors[value]))
        assert flat(to_dict(load_config(reproduce.config_of(name))))[key] == float(best)
