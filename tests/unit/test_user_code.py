"""Code that a configuration names: found next to its file, and imported by nobody who did not say so."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtp_dist import load_config, resume, train
from dtp_dist.config import Config, parse_config, read_config, to_dict
from dtp_dist.config.source import code_in
from dtp_dist.errors import ConfigError
from dtp_dist.storage.export_file import export
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.run_dir import CONFIG, open_run_dir
from dtp_dist.training.evaluate import evaluate
from dtp_dist.trials.worker import is_own
from runs import small, write_config

QUIET = ("train.max_steps=4", "monitor.tensorboard=false")


def with_rule(name: str, **settings: Any) -> dict[str, Any]:
    return small(rule={"name": name, **settings})


# Rules


@pytest.mark.slow
def test_a_rule_of_the_user_s_trains_with_the_bits_of_the_rule_that_it_is(tmp_path):
    """It doubles a step, which DTP may have as well."""
    mine = load_config(with_rule("user_rules:Doubled", target_step=0.2, times=2.0), QUIET)
    assert type(mine.rule).__name__ == "Doubled"
    assert parse_config(to_dict(mine)) == mine
    done = train(_in(tmp_path / "mine", mine)).result
    same = train(_in(tmp_path / "same", load_config(with_rule("dtp", target_step=0.4), QUIET))).result
    assert done["weights_sha256"] == same["weights_sha256"]
    longer = ["train.max_steps=8", "parallel.stages=3"]
    with pytest.raises(ConfigError, match="would import 'user_rules:Doubled'; add --allow-code"):
        resume(tmp_path / "mine", longer)
    there = resume(tmp_path / "mine", longer, allow_code=True).result
    assert (
        there["weights_sha256"] == resume(tmp_path / "same", ["train.max_steps=8"]).result["weights_sha256"]
    )


def _in(folder: Path, config: Config) -> Config:
    return _with(config, f"run_dir={folder}")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"name": "user_rules:Absent"}, r"^rule.name: 'user_rules:Absent' can't be imported \(Attribute"),
        ({"name": "user_rules:number"}, "^rule.name: 'user_rules:number' is no class of RuleOptions"),
        ({"name": "user_rules:Unbuilt"}, r"^rule.name: 'user_rules:Unbuilt' has no build\(layers\)"),
        ({"name": "user_rules:Empty"}, r"^rule.name: user_rules:Empty.build\(5\) returned a list, no Rule"),
        ({"name": "user_rules:Untyped"}, "^rule: the types of the fields of .*Untyped.* can't be checked"),
        ({"name": "user_rules:Doubled", "tims": 3}, "^rule.tims: unknown key; did you mean times"),
        ({"name": "user_rules:Doubled", "times": -1}, "^rule.times: -1 is not allowed; it must be above 0"),
        ({"name": "user_rules:Doubled", "times": "x"}, "^rule.times: 'x' is not allowed; it must be a numb"),
        ({"name": "user_rules:Doubled", "times": 12}, "^rule.times: 12 is too much; write at most 9"),
        (
            {"name": "user_rules:Doubled", "anchor": "x"},
            "^rule.anchor: 'x' is not allowed; it must be one of",
        ),
        ({"name": "user_rules:Doubled", "where": 3}, "^rule.where: 3 is not allowed; it must be a word"),
        ({"name": "user_rules:Doubled", "where": "nowhere"}, "^rule: where must be somewhere$"),
        (
            {"name": "user_rules:Doubled", "where": "broken"},
            "^rule: making .*Doubled' .* raised TypeError: a",
        ),
        (
            {"name": "user_rules:Doubled", "where": "late"},
            r"^rule.name: .*build\(5\) raised KeyError: 'late'",
        ),
        (
            {"name": "user_rules:Claiming", "needs": {"inverse_in": "U"}},
            r"^rule.name: .* a Flowing, whose inverses learn in U; give it inverse_update\(layer, seen",
        ),
        (
            {"name": "user_rules:Claiming", "needs": {"inverse_in": "U", "target_reads_forward": False}},
            r"^rule.name: .* a Flowing, whose T reads nothing of F; derive it from OneWaveRule",
        ),
        (
            {"name": "user_rules:Claiming", "probing": True},
            r"^rule.name: .* a Probing, whose inverses learn from probes; return Flow\(inverse_in='U'\) from",
        ),
        (
            {"name": "user_rules:Claiming", "needs": {"target_reads_forward": False}},
            r"^rule.name: .* raised ValueError: a target pass that reads nothing of F goes with inverse_in=",
        ),
    ],
)
def test_a_rule_that_can_not_be_used_is_an_error_in_one_line(rule, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(small(rule=rule))
    assert "\n" not in str(caught.value)


def test_the_rule_of_the_documents_is_what_they_say(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text().partition("## Your own rule")[2]
    code, settings = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)[:2]
    (tmp_path / "myrules.py").write_text(code)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shrunk = load_config(write_config(tmp_path, small(**yaml.safe_load(settings))), QUIET)
    same = load_config(with_rule("dtp", target_step=0.33 * 0.25), QUIET)
    runs = [train(_in(tmp_path / name, each)).result for name, each in [("a", shrunk), ("b", same)]]
    assert runs[0]["train_loss"] == pytest.approx(runs[1]["train_loss"], rel=1e-5)


# Optimizers

PIPELINE = ("parallel.stages=3", "parallel.in_flight=3", "train.checkpoint_every=6")


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [(), PIPELINE], ids=["exact", "with delay"])
def test_a_run_with_imported_optimizers_ends_with_the_same_bits_wherever_it_was_cut(tmp_path, pipeline):
    """With delay their rates are scaled, their memory is longer, and F looks ahead."""
    raw = small(
        optimizer={
            "forward": {"name": "torch.optim:NAdam", "lr": 2e-3, "clip_norm": 0.1},
            "inverse": {"name": "user_optimizers:Counting", "lr": 1e-2, "decay": 0.8},
        },
        monitor={"tensorboard": False},
    )
    raw["model"]["layers"][-1]["optimizer"] = {"forward": {"name": "muon", "lr": 1e-2}}
    configs = [load_config(raw, [f"run_dir={tmp_path / name}", *pipeline]) for name in ("whole", "cut")]
    whole = train(_with(configs[0], "train.max_steps=12")).result
    train(_with(configs[1], "train.max_steps=6"))
    elsewhere = () if pipeline else ("parallel.stages=5",)
    done = resume(tmp_path / "cut", ["train.max_steps=12", *elsewhere], allow_code=True).result
    assert done["weights_sha256"] == whole["weights_sha256"]
    assert parse_config(to_dict(configs[0])) == configs[0]
    assert origin_of(parse_config(to_dict(configs[0]))) == origin_of(configs[0])


def _with(config: Config, *overrides: str) -> Config:
    return load_config(to_dict(config), overrides)


@pytest.mark.slow
def test_muon_by_its_import_path_trains_layers_without_biases(tmp_path):
    raw = small(optimizer={"forward": {"name": "torch.optim:Muon", "lr": 1e-2}}, rule={"name": "backprop"})
    raw["model"]["defaults"]["bias"] = False
    with pytest.raises(
        ConfigError, match=r"^optimizer.forward.name: can't move bias of layer 2, \[32\]: .*2D"
    ):
        load_config(raw, ["model.layers.2.bias=true"])
    done = train(load_config(raw, [f"run_dir={tmp_path / 'run'}", *QUIET])).result
    named = {**raw, "optimizer": {"forward": {"name": "muon", "lr": 1e-2}}}
    same = train(load_config(named, [f"run_dir={tmp_path / 'same'}", *QUIET])).result
    assert done["weights_sha256"] == same["weights_sha256"]


# Where it is found


@pytest.fixture
def away(tmp_path, monkeypatch) -> Path:
    """A working directory without modules; configurations lie in folders next to it."""
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return tmp_path


def plant(folder: Path, module: str) -> Path:
    """Write a configuration and, next to it, its layer and its rule in a module of a package."""
    (folder / f"pack_{module}").mkdir(parents=True)
    (folder / f"pack_{module}" / "rules.py").write_text(
        f"from {module} import layer\nfrom user_rules import *\n"
    )
    (folder / f"{module}.py").write_text(
        "from torch import nn\n\ndef layer():\n    return nn.Linear(64, 10), nn.Linear(10, 64)\n"
    )
    for name in ("random", "profile", "types", "torch"):
        (folder / f"{name}.py").write_text("raise RuntimeError(__name__)\n")
    raw = with_rule(f"pack_{module}.rules:Doubled")
    raw["model"] = {"input": [64], "layers": [{"kind": f"{module}:layer"}, {"kind": "dense", "units": 10}]}
    raw["monitor"] = {"tensorboard": False}
    return write_config(folder, raw)


def test_code_next_to_a_configuration_is_found_by_all_that_open_its_run(away):
    config = load_config(plant(away / "one", "mine_one"), [f"run_dir={away / 'run'}", "train.max_steps=4"])
    assert config.code_dir == str(away / "one")
    assert list(code_in(config)) == list(code_in(to_dict(config)))
    done = train(config).result
    open_run_dir(away / "run", allow_code=True)
    for read in (
        lambda code: open_run_dir(away / "run", allow_code=code),
        lambda code: resume(away / "run", ["train.max_steps=8"], allow_code=code),
        lambda code: evaluate(away / "run", "test", allow_code=code),
        lambda code: export(away / "run", away / "out.safetensors", allow_code=code),
    ):
        with pytest.raises(ConfigError, match=r"would import .*; add --allow-code"):
            read(False)
        read(True)
    assert done["steps"] == 4
    lines = export(away / "run", away / "again.safetensors", allow_code=True)
    assert f"sys.path.append({str(away / 'one')!r})" in lines


def test_a_run_whose_code_has_moved_is_resumed_with_its_new_folder(away):
    """``code_dir`` is no part of the experiment."""
    config = load_config(plant(away / "old", "mine_moved"), [f"run_dir={away / 'run'}", "train.max_steps=4"])
    train(config)
    (away / "old").rename(away / "new")
    for name in [name for name in sys.modules if "mine_moved" in name]:
        del sys.modules[name]
    with pytest.raises(
        ConfigError, match=r"looked for among .* then in .*/old \(not there\) and in .*/away$"
    ):
        resume(away / "run", ["train.max_steps=8"], allow_code=True)
    moved = ["train.max_steps=8", "code_dir=../new"]
    assert resume(away / "run", moved, allow_code=True).result["steps"] == 8
    assert open_run_dir(away / "run", allow_code=True).code_dir == str(away / "new")
    assert origin_of(config) == origin_of(open_run_dir(away / "run", allow_code=True))


def test_nothing_next_to_a_run_s_own_file_is_imported(away):
    path = plant(away / "run", "mine_inside")
    path.rename(path.with_name(CONFIG))
    with pytest.raises(ConfigError, match="can't be imported"):
        open_run_dir(away / "run", allow_code=True)


def test_a_configuration_without_code_has_no_folder_of_code_and_changes_no_path(away):
    before = list(sys.path)
    config = load_config(write_config(away), [f"run_dir={away / 'run'}"])
    assert config.code_dir is None
    assert read_config(away / "small.yaml")["rule"] == {"name": "dtp"}
    assert load_config(small(), [f"code_dir={away}"]).code_dir == str(away)
    assert sys.path == before
    named = load_config(plant(away / "named", "mine_named"), ["code_dir=../named"])
    assert named.code_dir == "../named", "as the user writes it; a run keeps the whole path"
    with pytest.raises(ConfigError, match=r"code_dir: ~nobody_at_all: .* nobody's home"):
        load_config(away / "named" / "small.yaml", ["code_dir=~nobody_at_all"])


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ({"rule": {"name": "a:R"}}, ["a:R"]),
        ({"data": {"name": "a:d", "options": {"n": 1}}}, ["a:d"]),
        ({"optimizer": {"forward": {"name": "a:O", "lr": 1}, "inverse": {"name": "b:O"}}}, ["a:O", "b:O"]),
        ({"model": {"layers": [{"kind": "a:l", "optimizer": {"forward": {"name": "b:O"}}}]}}, ["a:l", "b:O"]),
        ({"model": {"layers": [{"kind": "residual", "body": [{"kind": "a:l"}]}]}}, ["a:l"]),
        ({"name": "a:b", "rule": {"name": "dtp"}, "run_dir": "c:d", "train": None}, []),
    ],
)
def test_every_import_path_is_seen_wherever_it_stands(tmp_path, section, code):
    assert list(code_in(section)) == code
    path = write_config(tmp_path, {**small(), **section}, CONFIG)
    for name in code[:1]:
        with pytest.raises(ConfigError, match=f"would import '{name}'; add --allow-code"):
            read_config(path, trusted=False)


def test_a_trial_s_folder_that_says_otherwise_of_code_imports_nothing(away):
    config = load_config(plant(away / "searched", "mine_searched"), [f"run_dir={away / 'run'}", *QUIET])
    train(config)
    assert is_own(away / "run", config)
    text = (away / "run" / CONFIG).read_text()
    for old, new in [("mine_searched:", "other:"), ("Doubled", "Other"), (str(away / "searched"), "/tmp")]:
        (away / "run" / CONFIG).write_text(text.replace(old, new))
        assert not is_own(away / "run", config)
