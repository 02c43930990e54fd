"""Configuration: what is written is what is checked; a mistake is one line that says what to write."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from dtp_dist.algorithm.layers import KINDS, ModuleOptions
from dtp_dist.algorithm.layers.base import LayerOptions
from dtp_dist.algorithm.numbers import SCHEDULES
from dtp_dist.algorithm.optimizers import OPTIMIZERS, AdamOptions, SGDOptions
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config import Config, load_config, parse_config, shapes_of, to_dict, to_yaml
from dtp_dist.config.explain import explain
from dtp_dist.config.schema import ModelConfig, OptimizerConfig
from dtp_dist.errors import ConfigError
from dtp_dist.run_dir import CONFIG, make_run_dir, open_run_dir
from dtp_dist.runtime.feed import load_batches
from dtp_dist.runtime.layout import layout_of, resolve
from runs import small, write_config

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def changed(*overrides: str) -> Config:
    return load_config(small(), overrides)


def line_for(*overrides: str, raw: dict[str, Any] | None = None) -> str:
    """Return the one line that refuses a configuration."""
    with pytest.raises(ConfigError) as caught:
        load_config(small() if raw is None else raw, overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line


def layer(config: Config, number: int) -> LayerOptions:
    return config.model.options[number - 1]


UNKNOWN = [
    ("trian.epochs=3", "trian: unknown key; did you mean train?"),
    ("train.epoch=3", "train.epoch: unknown key; did you mean epochs?"),
    ("model.layer=[]", "model.layer: unknown key; did you mean layers?"),
    ("model.layers.0.unit=3", "model.layers.1.unit: unknown key; did you mean units?"),
    ("model.layers.0.inverse.sigm=1", "model.layers.1.inverse.sigm: unknown key; did you mean sigma?"),
    ("model.defaults.activatio=tanh", "model.defaults.activatio: unknown key; did you mean activation?"),
    ("rule.anchr=stale", "rule.anchr: unknown key; did you mean anchor?"),
    ("optimizer.foward.lr=1", "optimizer.foward: unknown key; did you mean forward?"),
    ("optimizer.forward.bta1=0.5", "optimizer.forward.bta1: unknown key; did you mean beta1?"),
    ("parallel.stage=2", "parallel.stage: unknown key; did you mean stages?"),
    ("data.batchsize=2", "data.batchsize: unknown key; did you mean batch_size?"),
    (
        "monitor.xyz=2",
        "monitor.xyz: unknown key; known here: every, tensorboard, histograms_every, "
        "pictures_every, alignment_every, trace_minibatches",
    ),
]


@pytest.mark.parametrize(("override", "line"), UNKNOWN, ids=[key for key, _ in UNKNOWN])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(override, line):
    assert line_for(override) == line


REFUSED = [
    ("train.epochs=many", "train.epochs: 'many'", "a whole number"),
    ("train.epochs=1.5", "train.epochs: 1.5", "a whole number"),
    ("train.epochs=0", "train.epochs: 0", "at least 1"),
    ("train.epochs=", "train.epochs: None", "a whole number"),
    ("train=5", "train: 5", "a section of keys"),
    ("seed=-1", "seed: -1", "at least 0"),
    ("data.shuffle=2", "data.shuffle: 2", "true or false"),
    ("data.name=mnst", "data.name: 'mnst'", "one of digits, mnist, fashion_mnist"),
    ("data.batch_size=0", "data.batch_size: 0", "at least 1"),
    ("model.input=784", "model.input: 784", "a list such as [784]"),
    ("model.input=[0]", "model.input: [0]", "at least 1"),
    ("model.layers=[]", "model.layers", "at least one layer"),
    ("model.layers.0.units=0", "model.layers.1.units: 0", "at least 1"),
    ("model.layers.0.repeat=0", "model.layers.1.repeat: 0", "at least 1"),
    ("model.layers.0.repeat=true", "model.layers.1.repeat: True", "a whole number"),
    ("model.layers.0.kind=dens", "model.layers.1.kind: 'dens'", "did you mean dense?"),
    ("model.layers.0.activation=tan", "model.layers.1.activation: 'tan'", "one of tanh, sigmoid"),
    ("model.layers.0.inverse.activation=a", "model.layers.1.inverse.activation: 'a'", "one of tanh"),
    ("model.layers.0.inverse.iterations=-1", "model.layers.1.inverse.iterations: -1", "at least 0"),
    ("model.layers.0.inverse.sigma=-1", "model.layers.1.inverse.sigma: -1.0", "at least 0"),
    ("model.layers.0.inverse.sigma={schedule: cosin}", "sigma.schedule: 'cosin'", "cosine"),
    ("model.layers.0.optimizer.forward.name=adm", "1.optimizer.forward.name: 'adm'", "did you mean adam?"),
    ("rule.name=dpt", "rule.name: 'dpt'", "one of dtp, tp, "),
    ("rule=dtp", "rule: 'dtp'", "a section of keys"),
    ("rule.alternate=never", "rule.alternate: 'never'", "one of minibatch, epoch"),
    ("rule.output_step=.nan", "rule.output_step: nan", "above 0"),
    ("optimizer.forward.lr=fast", "optimizer.forward.lr: 'fast'", "a number"),
    ("optimizer.forward.lr=-1", "optimizer.forward.lr: -1.0", "at least 0"),
    ("optimizer.forward.lr=.nan", "optimizer.forward.lr: nan", "a finite number"),
    ("optimizer.forward.beta1=1", "optimizer.forward.beta1: 1.0", "at least 0 and below 1"),
    ("optimizer.forward.lr={schedule: step, start: 1}", "optimizer.forward.lr", "needs factor, every"),
    ("parallel.stages=6", "parallel.stages: 6", "at most 5, the number of layers"),
    ("parallel.stages=0", "parallel.stages: 0", "at least 1"),
    ("parallel.stages=two", "parallel.stages: 'two'", "a whole number or auto"),
    ("parallel.in_flight=0", "parallel.in_flight: 0", "at least 1"),
    ("parallel.runtime=cloud", "parallel.runtime: 'cloud'", "one of inprocess, local"),
    ("parallel.partition=[1,2]", "parallel.partition: [1, 2]", "the model has 5"),
    ("parallel.partition=[0,5]", "parallel.partition: [0, 5]", "at least 1"),
    ("parallel.partition=[3,2]", "parallel.partition: [3, 2] has 2 stages", "parallel.stages is 1"),
    ("parallel.failure_timeout=0", "parallel.failure_timeout: 0.0", "above 0"),
    ("monitor.every=0", "monitor.every: 0", "at least 1"),
    ("run_dir=123", "run_dir: 123", "a word or text"),
]


@pytest.mark.parametrize(("override", "start", "words"), REFUSED, ids=[key for key, _, _ in REFUSED])
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(override, start, words):
    line = line_for(override)
    assert start in line
    assert words in line


@pytest.mark.parametrize(
    "key",
    [
        *("train.epochs", "seed", "parallel.stages", "parallel.failure_timeout", "optimizer.forward.lr"),
        *("model.layers.0.units", "model.layers.0.inverse.sigma", "model.layers.0.inverse.iterations"),
    ],
)
def test_true_is_no_number(key):
    """It was taken for 1."""
    assert "True is not allowed; it must be" in line_for(f"{key}=true")


def test_a_dense_layer_needs_flat_input():
    line = line_for("model.input=[1,28,28]")
    assert line.startswith("model.layers.1.kind: a dense layer needs flat input, not [1, 28, 28]")
    assert "model.input: [784]" in line


def test_images_that_do_not_fit_the_input_are_a_wrong_configuration():
    """They were reported as damaged data, with exit code 1."""
    with pytest.raises(ConfigError, match=r"model.input: \[63\] does not fit .* write \[64\] or \[1, 8, 8\]"):
        load_batches(changed("model.input=[63]"))


def test_the_last_layer_must_have_an_output_per_class():
    with pytest.raises(ConfigError, match=r"model.layers.5.units: .* 12 outputs, .* 10 classes; write 10"):
        load_batches(changed("model.layers.1.units=12"))


def test_one_layer_is_not_enough():
    raw = small(model={"input": [64], "layers": [{"kind": "dense", "units": 10}]})
    assert "at least two" in line_for(raw=raw)


def test_a_required_section_or_key_that_is_missing_is_named():
    for name in ("model", "rule", "optimizer"):
        raw = small()
        del raw[name]
        assert line_for(raw=raw).startswith(f"{name}: is missing")
    assert line_for(raw=small(optimizer={"inverse": {"name": "sgd", "lr": 1}})).startswith(
        "optimizer.forward"
    )
    assert line_for(raw=small(optimizer={"forward": {"name": "sgd"}})).startswith("optimizer.forward.lr")
    raw = small(model={"input": [64], "layers": [{"kind": "dense"}, {"kind": "dense", "units": 10}]})
    assert line_for(raw=raw).startswith("model.layers.1.units: is missing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "model: is missing"),
        ("- 1", "is not a configuration"),
        ("a: [1", "is not a YAML configuration"),
        ("a: 1\na: 2", "duplicate key"),
        ("a: !!python/object/apply:os.getcwd []", "is not a YAML configuration"),
        ("\x00", "is not a YAML configuration"),
        ("1: 2", "1: unknown key"),
        ("just words", "unknown key"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="can't be read"):
            load_config(path)


def test_a_file_gives_the_run_its_name(tmp_path):
    raw = small()
    del raw["name"]
    assert load_config(write_config(tmp_path, raw, "my_run.yaml")).name == "my_run"
    assert load_config(write_config(tmp_path, raw), ["name=other"]).name == "other"


@pytest.mark.parametrize("text", ["train.epochs", "=3", ""])
def test_an_override_is_key_equals_value(text):
    assert "an override is written key=value" in line_for(text)


def test_overrides_set_numbers_words_lists_and_sections():
    config = changed(
        *("train.epochs=7", "train.max_steps=null", "data.name=synthetic", "data.options={examples: 50}"),
        *("model.layers.0.units=16", "parallel.partition=[2,3]", "parallel.stages=2", "name=a=b"),
        *("optimizer.forward.lr=1e-4", "train.epochs=8"),
    )
    assert config.train.epochs == 8, "the last one counts"
    assert config.train.max_steps is None
    assert config.data.options == {"examples": 50}
    assert config.parallel.partition == [2, 3]
    assert config.name == "a=b"
    assert config.optimizer.forward.lr == 1e-4
    assert shapes_of(config) == [(64,), (16,), (16,), (16,), (16,), (10,)]


def test_an_override_of_what_is_not_there_is_one_line():
    assert line_for("model.layers.9.units=7").startswith("model.layers.9.units: '7' can't be set")
    assert line_for("seed=[").startswith("seed: '[' can't be set")
    assert line_for("seed=${nothing}").startswith("configuration: Interpolation key 'nothing' not found")


def test_overrides_do_not_change_what_they_are_laid_over():
    raw = small()
    load_config(raw, ["model.layers.0.units=16", "train.epochs=9"])
    assert raw == small()


def test_repeat_and_defaults_are_written_out():
    written = to_dict(changed())["model"]
    assert set(written) == {"input", "layers"}
    assert [each["units"] for each in written["layers"]] == [32, 32, 32, 32, 10]
    assert [each["activation"] for each in written["layers"]] == ["tanh"] * 4 + ["linear"]
    assert all(each["inverse"]["sigma"] == 0.36 for each in written["layers"])


def test_a_layer_may_override_every_default_its_optimizers_included():
    model = small()["model"]
    model["defaults"]["optimizer"] = {"forward": {"name": "sgd", "lr": 0.5, "momentum": 0.5}}
    sigma = {"schedule": "inverse_time", "start": 0.4, "half": 30, "unit": "epoch"}
    rate = {"schedule": "cosine", "start": 0.1, "length": 9, "unit": "minibatch", "warmup": 5}
    adam = {"name": "adam", "lr": 1}
    model["layers"] = [
        {"kind": "dense", "units": 8, "inverse": {"sigma": sigma}, "bias": False, "init": "xavier_normal"},
        {
            "kind": "dense",
            "units": 8,
            "optimizer": {"forward": {"lr": rate}, "inverse": adam},
        },
        {"kind": "dense", "units": 10, "optimizer": {"forward": {"name": "adam", "lr": 2}}},
    ]
    config = load_config(small(model=model))
    assert layer(config, 1).inverse.sigma == sigma
    assert layer(config, 1).inverse.activation == "tanh", "the rest of the section stays"
    assert layer(config, 2).inverse.sigma == 0.36
    assert layer(config, 1).optimizer.forward == SGDOptions(lr=0.5, momentum=0.5)
    assert layer(config, 2).optimizer.forward == SGDOptions(lr=rate, momentum=0.5), "merged with the default"
    assert layer(config, 2).optimizer.inverse == AdamOptions(lr=1)
    assert layer(config, 3).optimizer.forward == AdamOptions(lr=2), "another optimizer replaces the default"
    assert layer(config, 3).optimizer.inverse is None
    assert parse_config(to_dict(config)) == config


def test_the_inverses_have_the_forward_optimizer_unless_they_have_their_own():
    config = load_config(small(optimizer={"forward": {"name": "sgd", "lr": 0.1}}))
    assert config.optimizer.inverse == config.optimizer.forward == SGDOptions(lr=0.1)


VARIED = [
    (),
    ("rule={name: dtp, alternate: epoch, anchor: stale}", "optimizer.delay_power=0"),
    ("rule.name=tp", "rule.jacobian=stored", "train.max_steps=5", "train.checkpoint_every=2"),
    ("parallel.stages=auto", "parallel.threads=1", "parallel.device=cpu", "parallel.in_flight=7"),
    ("optimizer.forward={name: centred_rmsprop, lr: {schedule: step, start: 1, factor: 0.5, every: 3}}",),
    ("optimizer.inverse={name: adamw, lr: 1.0e-12}", "data.name=synthetic", "data.options={classes: 10}"),
]


@pytest.mark.parametrize("overrides", VARIED)
def test_what_is_written_reads_back_as_the_same(tmp_path, overrides):
    config = resolve(changed(*overrides))
    assert parse_config(to_dict(config)) == config
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config
    assert resolve(load_config(path)) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_in_the_repository_is_valid(path):
    config = load_config(path)
    assert config.name == path.stem
    assert parse_config(to_dict(config)) == config


def test_stages_auto_is_resolved_once():
    config = resolve(changed("parallel.stages=auto", "parallel.device=cpu"))
    assert isinstance(config.parallel.stages, int)
    assert len(config.parallel.partition or []) == config.parallel.stages
    assert resolve(changed("parallel.stages=auto", "parallel.partition=[1,4]")).parallel.stages == 2


def test_a_layout_counts_layers_from_one_and_names_them():
    layout = layout_of(
        resolve(changed("parallel.stages=3", "parallel.partition=[1,3,1]", "parallel.in_flight=9"))
    )
    assert [list(layout.layers(stage)) for stage in range(3)] == [[1], [2, 3, 4], [5]]
    assert [layout.delay(stage) for stage in range(3)] == [2, 1, 0]
    assert layout.in_flight == 3
    assert layout.describe(1) == "stage 1 (layers 2-4)"
    assert layout.describe(2) == "stage 2 (layer 5)"


def keys_of(section: Any, prefix: str) -> set[str]:
    """Return the keys of a section as ``explain`` writes them."""
    hints = get_type_hints(section)
    found: set[str] = set()
    for item in fields(section):
        nested = hints[item.name]
        key = f"{prefix}.{item.name}"
        found |= keys_of(nested, key) if is_dataclass(nested) else {key}
    return found


def test_explain_lists_every_field_of_the_schema_with_a_sentence():
    rows = {key: (kind, default, doc) for key, kind, default, doc in explain()}
    due = {"name", "seed", "run_dir"} | keys_of(ModelConfig, "model") | keys_of(OptimizerConfig, "optimizer")
    for section in ("train", "data", "parallel", "monitor"):
        due |= keys_of(get_type_hints(Config)[section], section)
    for kind, cls in {**KINDS, "package.module:function": ModuleOptions}.items():
        due |= keys_of(cls, f"model.layers[{kind}]")
    for name, cls in RULES.items():
        due |= keys_of(cls, f"rule[{name}]")
    for name, cls in OPTIMIZERS.items():
        due |= keys_of(cls, f"optimizer.forward|inverse[{name}]")
    for name, cls in SCHEDULES.items():
        due |= keys_of(cls, f"any changing number[schedule: {name}]")
    assert set(rows) == due
    assert all(doc and kind for kind, _, doc in rows.values())
    assert rows["parallel.in_flight"][:2] == ("int, at least 1", "1")
    assert rows["model.input"][1] == "(required)"
    assert rows["train.max_steps"][1] == "null"


DETOURS: list[dict[str, Any]] = [
    {"model": {"layers": [{"kind": "evil:layer"}]}},
    {"name": "evil:layer", "model": {"layers": [{"kind": "${name}"}]}},
    {"model": {"defaults": {"kind": "evil:layer"}, "layers": [{}]}},
]


@pytest.mark.parametrize("change", DETOURS)
def test_no_foreign_configuration_gets_code_imported_by_a_detour(tmp_path, monkeypatch, change):
    """An interpolation, or a kind among the defaults, hid the import path from the check."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    model = {"input": [64], **change["model"]}
    model["layers"] = [*model["layers"], {"kind": "dense", "units": 10}]
    write_config(tmp_path, {**small(), **change, "model": model}, CONFIG)
    with pytest.raises(ConfigError, match="would import 'evil:layer'; add --allow-code"):
        open_run_dir(tmp_path, allow_code=False)


def test_a_run_of_ones_own_opens_again(tmp_path):
    config = resolve(changed("parallel.stages=2"))
    (tmp_path / CONFIG).write_text(to_yaml(config))
    assert open_run_dir(tmp_path, allow_code=False) == config


def test_a_run_dir_is_made_but_never_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b"
    assert make_run_dir(changed(f"run_dir={path}")) == path
    assert make_run_dir(changed(f"run_dir={path}")) == path, "an empty folder will do"
    (path / "kept").touch()
    with pytest.raises(ConfigError, match="exists and is not empty; a run is never overwritten"):
        make_run_dir(changed(f"run_dir={path}"))
    monkeypatch.chdir(tmp_path)
    first, second = make_run_dir(changed()), make_run_dir(changed())
    assert first != second
    assert first.parent == second.parent == Path("runs")


def test_yaml_is_what_a_person_would_write():
    text = to_yaml(changed())
    assert yaml.safe_load(text) == to_dict(changed())
    assert "train: {epochs: 1, " in text
