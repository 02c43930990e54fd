"""The table of reproduced experiments: it has every config of a paper, and a run counts once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtp_dist import load_config
from dtp_dist.algorithm.optimizers.schedules import scheduled
from dtp_dist.config import Config, to_dict, to_yaml
from dtp_dist.profiling.resolve import resolve

ROOT = Path(__file__).resolve().parents[2]
OURS = ("digits_dtp", "fashion_mnist_dtp", "mnist_backprop", "mnist_dtp_adam", "resnet18_cifar10")


@pytest.fixture
def reproduce(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import reproduce

    return reproduce


def test_every_config_of_a_paper_is_an_experiment_and_loads(reproduce):
    names = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert set(reproduce.EXPERIMENTS) == names - {*OURS, "resnet18_cifar10_backprop"}
    for name, experiment in reproduce.EXPERIMENTS.items():
        config = load_config(reproduce.config_of(name), reproduce.overrides_of(name, 3, 1.0, "data"))
        assert config.seed == 3
        assert experiment.data.lower().replace("-", "").replace("fashion", "fashion_") == config.data.name
        assert (experiment.published is None) == (experiment.how == "")


def forward_maps(config: Config) -> list[dict[str, object]]:
    """The layers as the twin has them; that of a normalized network may be the one that Shibuya et al. have."""
    layers, others = to_dict(config)["model"]["layers"], ("inverse", "optimizer", "norm")
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


def test_a_scaled_run_has_its_share_of_the_epochs(reproduce):
    whole = load_config(reproduce.config_of("lee2015_continuous")).train.epochs
    assert f"train.epochs={whole // 4}" in reproduce.overrides_of("lee2015_continuous", 0, 0.25, "data")
    assert reproduce.folder_of(Path("r"), "a", 1, 0.25) == Path("r/a-x0.25/seed1")


def write_run(folder: Path, *lines: dict[str, float], overrides: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True)
    config = load_config(ROOT / "configs" / "lee2015_discrete.yaml", ["seed=2", *overrides])
    (folder / "config.yaml").write_text(to_yaml(resolve(config)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_an_unfinished_run_counts_with_its_newest_evaluation(reproduce, tmp_path):
    lines = [{"epoch": epoch, "time": 9.0 * epoch, "test_error": 5.0 - epoch} for epoch in (1, 2)]
    row = reproduce.row_of(
        "lee2015_discrete", write_run(tmp_path / "run", *lines, {"epoch": 3, "time": 27.0})
    )
    assert row is not None
    assert (row["seed"], row["epochs"], row["of_epochs"], row["test_error"]) == (2, 2, 500, 3.0)
    assert reproduce.row_of("lee2015_discrete", write_run(tmp_path / "new", {"epoch": 1})) is None
    other = write_run(tmp_path / "other", *lines, overrides=("rule.target_step=1.0",))
    assert reproduce.row_of("lee2015_discrete", other) is None
    fewer = write_run(tmp_path / "fewer", *lines, overrides=("train.epochs=50",))
    assert reproduce.row_of("lee2015_discrete", fewer)["of_epochs"] == 500


def test_the_table_keeps_the_longest_run_of_each_seed_and_gives_mean_and_spread(reproduce):
    def row(seed: int, epochs: int, error: float) -> dict[str, object]:
        fixed = {"name": "lee2015_stochastic", "of_epochs": "1000", "data": "MNIST", "machine": "m"}
        return {**fixed, "seed": str(seed), "epochs": str(epochs), "test_error": str(error)}

    rows = reproduce.merged([row(0, 1000, 1.5), row(1, 10, 9.0)], [row(0, 50, 4.0), row(1, 1000, 1.7)])
    assert [(row["seed"], row["test_error"]) for row in rows] == [("0", "1.5"), ("1", "1.7")]
    line = reproduce.line_of("lee2015_stochastic", rows)
    assert "| 1000 of 1000 | 1.60 +- 0.14 | 1.50, 1.70 | 1.54 |" in line
    assert line.endswith("(recalled) |")


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
