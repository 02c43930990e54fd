"""Configuration: what is written is what is checked; a mistake is one line that says what to write."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import yaml

from dtp_dist import train
from dtp_dist.algorithm.layers import KINDS, ModuleOptions
from dtp_dist.algorithm.layers.base import LayerOptions
from dtp_dist.algorithm.optimizers.kinds import OPTIMIZERS, AdamOptions, ImportedOptions, SGDOptions
from dtp_dist.algorithm.optimizers.schedules import SCHEDULES, Cosine, InverseTime, Warmup
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config import Config, load_config, parse_config, shapes_of, to_dict, to_yaml
from dtp_dist.config.batches import check_data, load_batches
from dtp_dist.config.explain import explain
from dtp_dist.config.load import checked
from dtp_dist.config.parse import RENAMED
from dtp_dist.config.plain import word_keys
from dtp_dist.config.schema import ModelConfig, OptimizerConfig
from dtp_dist.config.sections.data import Normalization
from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.report import read_run
from dtp_dist.report.listing import facts
from dtp_dist.runtime.layout import layout_of
from dtp_dist.storage.run_dir import CONFIG, make_run_dir, open_run_dir
from run_folders import write_run
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
    ("model.layers.1.unit=3", "model.layers.1.unit: unknown key; did you mean units?"),
    ("model.layers.1.inverse.sigm=1", "model.layers.1.inverse.sigm: unknown key; did you mean sigma?"),
    ("model.defaults.activatio=tanh", "model.defaults.activatio: unknown key; did you mean activation?"),
    ("rule.anchr=stale", "rule.anchr: unknown key; did you mean anchor?"),
    ("optimizer.foward.lr=1", "optimizer.foward: unknown key; did you mean forward?"),
    ("optimizer.forward.bta1=0.5", "optimizer.forward.bta1: unknown key; did you mean beta1?"),
    ("parallel.stage=2", "parallel.stage: unknown key; did you mean stages?"),
    ("data.batchsize=2", "data.batchsize: unknown key; did you mean batch_size?"),
    (
        "monitor.xyz=2",
        "monitor.xyz: unknown key; known here: every, tensorboard, loggers, histograms_every, "
        "pictures_every, alignment_every, trace_minibatches",
    ),
]


OLD = [
    ("parallel.balance=work", "parallel.balance: 'work' is called flops now; write flops instead"),
    ("rule.alternate=epoch", "rule.alternate: is called update_order now; write rule.update_order instead"),
    ("rule.output_step=1", "rule.output_step: is called target_step now; write rule.target_step instead"),
    (
        "model.layers.1.sees=sign",
        "model.layers.1.sees: is called input_transmission now; "
        "write model.layers.1.input_transmission instead",
    ),
    (
        "model.layers.5.inverse.sees=sign",
        "model.layers.5.inverse.sees: is called input_transmission now; "
        "write model.layers.5.inverse.input_transmission instead",
    ),
    (
        "model.defaults.sees=sign",
        "model.defaults.sees: is called input_transmission now; "
        "write model.defaults.input_transmission instead",
    ),
]


@pytest.mark.parametrize(("override", "line"), OLD, ids=[key for key, _ in OLD])
def test_an_old_name_is_refused_with_the_new_one(override, line):
    assert line_for(override) == line


def test_a_name_is_old_only_where_the_new_one_is_known():
    assert "unknown key; known here: name, update_order" in line_for("rule={name: backprop, output_step: 1}")
    assert "train.sees: unknown key" in line_for("train.sees=sign")


@pytest.mark.parametrize(("override", "line"), UNKNOWN, ids=[key for key, _ in UNKNOWN])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(override, line):
    assert line_for(override) == line


REFUSED = [
    ("train.epochs=many", "train.epochs: 'many'", "a whole number"),
    ("train.epochs=1.5", "train.epochs: 1.5", "a whole number"),
    ("train.epochs=0", "train.epochs: 0", "at least 1"),
    ("train.epochs=null", "train.epochs: None", "a whole number"),
    ("train=5", "train: 5", "a section of keys"),
    ("seed=-1", "seed: -1", "at least 0"),
    ("data.shuffle=2", "data.shuffle: 2", "true or false"),
    ("data.name=mnst", "data.name: 'mnst'", "one of digits, mnist, fashion_mnist"),
    ("data.batch_size=0", "data.batch_size: 0", "at least 1"),
    ("model.input=784", "model.input: 784", "a list such as [784]"),
    ("model.input=[0]", "model.input: [0]", "at least 1"),
    ("model.layers=[]", "model.layers", "at least one layer"),
    ("model.layers.1.units=0", "model.layers.1.units: 0", "at least 1"),
    ("model.layers.1.repeat=0", "model.layers.1.repeat: 0", "at least 1"),
    ("model.layers.1.repeat=true", "model.layers.1.repeat: True", "a whole number"),
    ("model.layers.1.kind=dens", "model.layers.1.kind: 'dens'", "did you mean dense?"),
    ("model.layers.1.activation=tan", "model.layers.1.activation: 'tan'", "one of tanh, sigmoid"),
    ("model.layers.1.inverse.activation=a", "model.layers.1.inverse.activation: 'a'", "one of tanh"),
    ("model.layers.1.inverse.iterations=-1", "model.layers.1.inverse.iterations: -1", "at least 0"),
    ("model.layers.1.inverse.sigma=-1", "model.layers.1.inverse.sigma: -1", "at least 0"),
    ("model.layers.1.inverse.sigma={schedule: cosin}", "sigma.schedule: 'cosin'", "cosine"),
    ("model.layers.1.optimizer.forward.name=adm", "1.optimizer.forward.name: 'adm'", "did you mean adam?"),
    ("rule.name=dpt", "rule.name: 'dpt'", "one of dtp, tp, "),
    ("rule=dtp", "rule: 'dtp'", "a section of keys"),
    ("rule.update_order=never", "rule.update_order: 'never'", "one of minibatch, epoch"),
    ("rule.target_step=.nan", "rule.target_step: nan", "above 0"),
    ("optimizer.forward.lr=fast", "optimizer.forward.lr: 'fast'", "a number"),
    ("optimizer.forward.lr=-1", "optimizer.forward.lr: -1", "at least 0"),
    ("optimizer.forward.lr=.nan", "optimizer.forward.lr: nan", "a finite number"),
    ("optimizer.forward.beta1=1", "optimizer.forward.beta1: 1", "at least 0 and below 1"),
    ("optimizer.forward.lr={schedule: step, start: 1}", "optimizer.forward.lr", "needs factor, every"),
    (
        "optimizer.forward.lr={schedule: constant, start: 1, warmup: {epoch: 3}}",
        "warmup.epoch",
        "mean epochs?",
    ),
    (
        "optimizer.forward.lr={schedule: constant, start: 1, warmup: {start: 0.1}}",
        "lr.warmup: ",
        "minibatches",
    ),
    (
        "optimizer.forward.lr={schedule: constant, start: 1, warmup: {epochs: 0}}",
        "warmup.epochs: 0",
        "least 1",
    ),
    ("optimizer.forward.lr={schedule: constant, start: 1, warmup: -1}", "lr.warmup: -1", "at least 0"),
    ("optimizer.forward.lr={schedule: constant, start: 1, warmup: x}", "lr.warmup: 'x'", "a whole number"),
    (
        "optimizer.clip_norm=1",
        "optimizer.clip_norm: ",
        "by layer: write optimizer.forward.clip_norm",
    ),
    ("train.gradient_clip_val=1", "train.gradient_clip_val: ", "write optimizer.forward.clip_norm"),
    ("model.layers.1.optimizer.max_norm=1", "1.optimizer.max_norm: ", "layer by layer"),
    ("optimizer.forward.clip_nrm=1", "optimizer.forward.clip_nrm: ", "did you mean clip_norm"),
    (
        "optimizer.forward={name: a.b:C, lr: 1}",
        "optimizer.forward.name: 'a.b:C' can't be imp",
        "No module named 'a'",
    ),
    (
        "optimizer.inverse={name: 'torch.optim:Muon', lr: 1}",
        "optimizer.inverse.name: can't move bias of layer 2, [32]: torch.optim:Muon raised ValueError",
        "give the layer another one (model.layers.2.optimizer.inverse), or write name: muon",
    ),
    ("parallel.stages=6", "parallel.stages: 6", "at most 5, the number of layers"),
    ("parallel.stages=0", "parallel.stages: 0", "at least 1"),
    ("parallel.stages=two", "parallel.stages: 'two'", "a whole number or auto"),
    ("parallel.in_flight=0", "parallel.in_flight: 0", "at least 1"),
    ("parallel.runtime=cloud", "parallel.runtime: 'cloud'", "one of inprocess, local"),
    ("parallel.partition=[1,2]", "parallel.partition: [1, 2]", "the model has 5"),
    ("parallel.partition=[0,5]", "parallel.partition: [0, 5]", "at least 1"),
    ("parallel.partition=[3,2]", "parallel.partition: [3, 2] has 2 stages", "parallel.stages is 1"),
    ("parallel.failure_timeout=0", "parallel.failure_timeout: 0", "above 0"),
    ("monitor.every=0", "monitor.every: 0", "at least 1"),
    ("run_dir=[a]", "run_dir: ['a']", "a word or text"),
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
        *("model.layers.1.units", "model.layers.1.inverse.sigma", "model.layers.1.inverse.iterations"),
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
        load_batches(changed("model.layers.5.units=12"))


CHECKED = [
    ("model.input=[63]", "model.input: [63] does not fit the [1, 8, 8] examples of digits"),
    ("model.layers.5.units=12", "model.layers.5.units: the last layer has 12 outputs, but digits has 10"),
    ("data.name=mnist", "model.input: [64] does not fit the [1, 28, 28] examples of mnist"),
    ("data.name=cifar100", "model.layers.5.units: the last layer has 10 outputs, but cifar100 has 100"),
    ("data.options={classes: 3}", "data.options.classes: not an option of data.name=digits"),
    ("data.options={normalize: none}", "data.options.normalize: not an option of data.name=digits"),
    ("data={name: synthetic, options: {shape: 5}}", "data.options.shape: [5] is not allowed"),
    ("data={name: synthetic, options: {examples: many}}", "data.options.examples: 'many' is not allowed"),
    ("data.train_examples=2000", "data.train_examples=2000: digits has no more than 1200"),
    ("data={drop_last: true, batch_size: 5000}", "data.batch_size=5000 is more than the 1200 examples"),
]


@pytest.mark.parametrize(("override", "line"), CHECKED, ids=[key for key, _ in CHECKED])
def test_config_refuses_what_train_refuses_before_it_trains(tmp_path, override, line):
    """``config`` printed configurations that ``train`` then refused."""
    config = changed(override, f"data.root={tmp_path}")
    with pytest.raises(DtpDistError) as caught:
        check_data(config)
    assert str(caught.value).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_config_does_not_ask_for_instances_that_only_train_is_given():
    layers = [{"kind": "instance"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    check_data(load_config(small(model={"input": [64], "layers": layers})))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_passes_the_check(tmp_path, path):
    check_data(load_config(path, [f"data.root={tmp_path}"]))


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
        ("just words", "is not a configuration"),
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
        *("model.layers.1.units=16", "parallel.partition=[2,3]", "parallel.stages=2", "name=a=b"),
        *("optimizer.forward.lr=1e-4", "train.epochs=8"),
    )
    assert config.train.epochs == 8, "the last one counts"
    assert config.train.max_steps is None
    assert config.data.options == {"examples": 50}
    assert config.parallel.partition == [2, 3]
    assert config.name == "a=b"
    assert config.optimizer.forward.lr == 1e-4
    assert shapes_of(config) == [(64,), (16,), (32,), (32,), (32,), (10,)]


BETWEEN_DOTS = "is no key; write names with dots between them, e.g. train.epochs or model.layers.1.units"
UNCLOSED = "is no value; close every bracket and quote in it, or put all of it in quotes"
NUMBERED = "is no layer; layers are counted from 1 to 5, as they are with repeat written out"
NO_KEYS = ("a..b", ".a", "a.", "x y", "a[0", "a]", "a[x]", "a ")
NO_VALUES = ("[", "{", "{a: 1", "'x", '"x', "@", "*a")
EMPTY = "has no value; write"
MALFORMED = [
    *((f"{key}=1", f"{key}: {BETWEEN_DOTS}") for key in NO_KEYS),
    *((f"seed={text}", f"seed: {text!r} {UNCLOSED}") for text in NO_VALUES),
    *((f"{key}=", f"{key}: {EMPTY} {key}=VALUE, null where it may have none") for key in ("train", "seed")),
    ("model.layers.99.units=3", f"model.layers.99: '99' {NUMBERED}"),
    ("model.layers.0.units=3", f"model.layers.0: '0' {NUMBERED}"),
    ("model.layers[0].units=3", f"model.layers.0: '0' {NUMBERED}"),
    (f"model.layers.{'9' * 5000}=3", f"model.layers.{'9' * 5000}: '{'9' * 5000}' {NUMBERED}"),
    ("seed=${model.layers.0.units}", "seed: refers to layer 0; layers are counted from 1"),
    (
        "model.layers.3.units=${model.layers.9.units}",
        "model.layers.3.units: there is no key model.layers.9.units to take its value from; "
        "write one that there is",
    ),
    (
        "model.layers.3.units=${",
        "model.layers.3.units: what stands between ${ and } can't be read; "
        "write the name of a key, or a value",
    ),
    ("model.layers.x=3", f"model.layers.x: 'x' {NUMBERED}"),
    ("model.layers[6].units=3", f"model.layers.6: '6' {NUMBERED}"),
    ("model.layers.-1.units=3", f"model.layers.-1: '-1' {NUMBERED}"),
    (
        "model.layers[1]=",
        "model.layers[1]: has no value; write model.layers[1]=VALUE, null where it may have none",
    ),
    (
        "train.epochs.x=1",
        "train.epochs: is 1, no section; it has no 'x' to set; write train.epochs=VALUE to replace it",
    ),
    ("seed=${", "seed: what stands between ${ and } can't be read; write the name of a key, or a value"),
    ("seed=${nothing}", "seed: there is no key nothing to take its value from; write one that there is"),
    (
        "seed=${nothing:1}",
        "seed: what stands between ${ and } can't be worked out; write the name of a key, or a value",
    ),
]


@pytest.mark.parametrize(("override", "line"), MALFORMED, ids=[key for key, _ in MALFORMED])
def test_a_malformed_override_is_refused_in_words_of_our_own(override, line):
    assert line_for(override) == line


def units(*overrides: str) -> list[int]:
    return [each.units for each in changed(*overrides).model.layers]


def test_an_override_counts_layers_from_one_with_repeat_written_out():
    """model.layers.1.units=77 set the second entry, and the error was about layer 5."""
    assert units("model.layers.1.units=16") == [16, 32, 32, 32, 10]
    assert units("model.layers.4.units=16") == [32, 32, 32, 16, 10], "one of four that are repeated"
    assert units("model.layers.2={units: 16}", "model.layers[3].units=8") == [32, 16, 8, 32, 10]
    assert line_for("model.layers.3.units=0").startswith("model.layers.3.units: 0 is not allowed")
    assert line_for("model.layers.5.unit=9").startswith("model.layers.5.unit: unknown key")


def test_each_override_counts_the_layers_that_those_before_it_left():
    assert units("model.layers.2.repeat=3", "model.layers.5.units=16") == [32, 32, 32, 32, 16, 32, 10]
    layers = "model.layers=[{kind: dense, units: 8, repeat: 2}, {kind: dense, units: 10}]"
    assert units(layers, "model.layers.2.units=9") == [8, 9, 10]


def test_a_layer_that_is_set_leaves_the_others_of_its_repeat_as_they_are():
    config = changed("model.layers.2.inverse.sigma=0.5", "model.layers.2.inverse.iterations=3")
    assert [layer(config, number).inverse.sigma for number in range(1, 6)] == [0.36, 0.5, 0.36, 0.36, 0.36]
    assert layer(config, 2).inverse.activation == "tanh"


def test_a_reference_counts_layers_from_one_as_well():
    assert units("model.layers.2.units=16", "model.layers.4.units=${model.layers.2.units}") == [
        32,
        16,
        32,
        16,
        10,
    ]
    assert units("model.layers.1.units=${model.layers[5].units}") == [10, 32, 32, 32, 10]


def test_an_entry_of_a_list_may_stand_in_brackets():
    assert changed("model.layers[1].units=16") == changed("model.layers.1.units=16")


@pytest.mark.parametrize("word", ["123456", "007", "1e5", "true", "null", "0x10", "1_000", ".5", "no", "~"])
def test_a_name_that_yaml_reads_as_a_number_is_a_word(tmp_path, word):
    config = changed(f"name={word}", f"data.root={word}")
    assert (config.name, config.data.root) == (word, word)
    if word not in ("null", "~"):
        assert changed(f"run_dir={word}").run_dir == word
    raw = small(data={"name": "digits", "root": "ROOT"}) | {"name": "NAME"}
    path = write_config(tmp_path, raw)
    path.write_text(path.read_text().replace("NAME", word).replace("ROOT", word))
    config = load_config(path)
    assert (config.name, config.data.root) == (word, word)


def test_words_are_names_and_folders_alone():
    assert word_keys() == {"name": False, "data.root": False, "code_dir": True, "run_dir": True}
    assert "must be a section of keys" in line_for("data.options=7")


def test_null_is_no_folder():
    assert changed("run_dir=null").run_dir is None


def test_what_python_code_hands_over_is_made_plain(tmp_path):
    raw = small()
    raw["seed"], raw["run_dir"], raw["model"]["input"] = np.int64(3), tmp_path / "run", (64,)
    raw["optimizer"]["forward"]["lr"] = np.float32(0.5)
    raw["parallel"] = {"stages": np.int32(2), "partition": np.array([2, 3])}
    config = load_config(raw, "train.epochs=2")
    assert config.train.epochs == 2, "one override need not be in a list"
    assert (config.seed, config.run_dir, config.model.input) == (3, str(tmp_path / "run"), [64])
    assert config.parallel.partition == [2, 3]
    assert yaml.safe_load(to_yaml(replace(config, run_dir=tmp_path))) == to_dict(
        replace(config, run_dir=str(tmp_path))
    )
    line = line_for(raw=small(seed={1, 2}))
    assert line.startswith("seed: a value of this type is not allowed")


def test_a_configuration_that_python_code_changed_is_checked_before_it_trains(tmp_path):
    config = changed(f"run_dir={tmp_path / 'run'}")
    assert checked(config) == config
    assert checked(replace(config, run_dir=tmp_path)).run_dir == str(tmp_path)
    wrong = replace(config.rule, target_step=-1.0)
    with pytest.raises(ConfigError, match=r"^rule\.target_step: -1\.0 is not allowed; it must be above 0"):
        train(replace(config, rule=wrong))
    layers = [*config.model.layers[:-1], replace(config.model.layers[-1], units=0)]
    with pytest.raises(ConfigError, match=r"^model\.layers\.5\.units: 0 is not allowed"):
        train(replace(config, model=replace(config.model, layers=layers)))
    with pytest.raises(ConfigError, match=r"^parallel\.stages: 6 .* at most 5"):
        train(replace(config, parallel=replace(config.parallel, stages=6)))
    assert not (tmp_path / "run").exists()


def test_what_is_written_is_taken_as_it_is():
    """Text is no number, 1 no truth, and 2.0 no count."""
    assert "must be a whole number" in line_for("train.epochs='3'")
    assert "must be a whole number" in line_for("train.epochs=2.0")
    assert "must be a number" in line_for("rule.target_step='0.5'")
    assert "must be true or false" in line_for("data.shuffle=1")
    assert changed("rule.target_step=1").rule.target_step == 1.0


def test_all_that_is_missing_in_a_section_is_named_at_once():
    raw = small(optimizer={"forward": {"name": "adam", "lr": {"schedule": "step"}}})
    assert line_for(raw=raw) == "optimizer.forward.lr: needs start, factor, every as well"


def test_overrides_do_not_change_what_they_are_laid_over():
    raw = small()
    load_config(raw, ["model.layers.1.units=16", "train.epochs=9"])
    assert raw == small()


def test_repeat_and_defaults_are_written_out():
    written = to_dict(changed())["model"]
    assert written.keys().isdisjoint({"defaults", "repeat"})
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
    assert layer(config, 1).inverse.sigma == InverseTime(start=0.4, half=30)
    assert layer(config, 1).inverse.activation == "tanh", "the rest of the section stays"
    assert layer(config, 2).inverse.sigma == 0.36
    assert layer(config, 1).optimizer.forward == SGDOptions(lr=0.5, momentum=0.5)
    assert layer(config, 2).optimizer.forward == SGDOptions(
        lr=Cosine(start=0.1, length=9, unit="minibatch", warmup=5), momentum=0.5
    ), "merged with the default"
    assert layer(config, 2).optimizer.inverse == AdamOptions(lr=1)
    assert layer(config, 3).optimizer.forward == AdamOptions(lr=2), "another optimizer replaces the default"
    assert layer(config, 3).optimizer.inverse is None
    assert parse_config(to_dict(config)) == config


def test_the_inverses_have_the_forward_optimizer_unless_they_have_their_own():
    config = load_config(small(optimizer={"forward": {"name": "sgd", "lr": 0.1}}))
    assert config.optimizer.inverse == config.optimizer.forward == SGDOptions(lr=0.1)


VARIED = [
    (),
    ("rule={name: dtp, update_order: epoch, anchor: stale}", "optimizer.delay_power=0"),
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
    hints = get_type_hints(section, include_extras=True)
    found: set[str] = set()
    for item in fields(section):
        nested = hints[item.name]
        key = f"{prefix}.{item.name}"
        found |= keys_of(nested, key) if is_dataclass(nested) else {key}
    return found


def test_explain_lists_every_field_of_the_schema_with_a_sentence():
    rows = {key: (kind, default, doc) for key, kind, default, doc in explain()}
    due = {"name", "compare", "seed", "code_dir", "run_dir"}
    due |= keys_of(ModelConfig, "model") | keys_of(OptimizerConfig, "optimizer")
    for section in ("train", "data", "parallel", "monitor"):
        due |= keys_of(get_type_hints(Config)[section], section)
    for kind, cls in {**KINDS, "package.module:function": ModuleOptions}.items():
        due |= keys_of(cls, f"model.layers[{kind}]")
    for name, cls in RULES.items():
        due |= keys_of(cls, f"rule[{name}]")
    for name, cls in {**OPTIMIZERS, "package.module:Class": ImportedOptions}.items():
        due |= keys_of(cls, f"optimizer.forward|inverse[{name}]")
    for name, cls in SCHEDULES.items():
        due |= keys_of(cls, f"any changing number[schedule: {name}]")
    due |= keys_of(Warmup, "any changing number.warmup")
    due |= keys_of(Normalization, "data.normalize")
    assert set(rows) == due
    assert all(doc and kind for kind, _, doc in rows.values())
    assert rows["parallel.in_flight"][:2] == ("int, at least 1", "1")
    assert rows["model.input"][1] == "(required)"
    assert rows["train.max_steps"][1] == "null"


DETOURS: list[dict[str, Any]] = [
    {"model": {"layers": [{"kind": "evil:layer"}]}},
    {"model": {"defaults": {"kind": "evil:layer"}, "layers": [{}]}},
]


@pytest.mark.parametrize("change", DETOURS)
def test_no_foreign_configuration_gets_code_imported_by_a_detour(tmp_path, monkeypatch, change):
    """A kind among the defaults hid the import path from the check."""
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


def test_a_run_from_before_is_reported_and_otherwise_refused_with_the_new_names(tmp_path):
    text = to_yaml(resolve(changed("parallel.stages=2")))
    for old, now in RENAMED.items():
        assert now in text
        text = text.replace(now, old)
    folder = write_run(tmp_path / "run", config=text)
    with pytest.raises(
        ConfigError, match=r"^model\.layers\.1\.inverse\.sees: is called input_transmission now"
    ):
        open_run_dir(folder, allow_code=False)
    run = read_run(folder)
    assert (run.state, run.problems, run.setting("rule.alternate")) == ("done", (), "minibatch")
    assert facts(run)["rule"] == "dtp"


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
