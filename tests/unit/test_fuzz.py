"""Whatever bytes come from outside, the only exceptions are the project's own.

Examples are the same each time, so that the suite says the same each time. Set DTP_DIST_FUZZ=100000 for other
and more ones.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtp_dist.config import load_config, read_config
from dtp_dist.data.files import read_idx
from dtp_dist.errors import DtpDistError
from dtp_dist.report import read_run
from dtp_dist.report.listing import facts, run_table
from dtp_dist.report.page import page
from dtp_dist.schedule import Phase
from dtp_dist.storage.manifest import (
    FileEntry,
    Manifest,
    Origin,
    compare_origin,
    layer_file,
    pack_manifest,
    unpack_manifest,
)
from dtp_dist.storage.run_dir import CONFIG, METRICS, RESULT, TRACE
from dtp_dist.training.totals import Totals
from dtp_dist.transport.messages import LinkIdentity, MessageKind
from dtp_dist.transport.wire import decode, encode
from dtp_dist.tune.space import as_overrides, read_space
from links import activation_message
from runs import EVERY_KIND, small

MANY = int(os.environ.get("DTP_DIST_FUZZ", "0"))
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def fuzz(examples: int) -> Any:
    return settings(
        max_examples=MANY or examples,
        deadline=None,
        derandomize=not MANY,
        database=None,
        suppress_health_check=QUIET,
    )


odd_numbers = st.sampled_from([0, -1, 1, 2, 2**31, 2**53, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, 1e-4])
numbers = st.integers() | st.floats() | odd_numbers
words = st.sampled_from(
    ["", "auto", "dense", "conv", "adam", "dtp", "${seed}", "a.b", "0x10", "1e3", "~", "kind", "name"]
)
texts = st.text(max_size=12) | words
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of a document's values, its own first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in items for place in places(item, (*path, name)))]


@st.composite
def edited(draw: st.DrawFn, document: Any) -> Any:
    """Draw a document with one to three of its values replaced, removed, or given a neighbour."""
    document = deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        if not path:
            continue
        inner = document
        for name in path[:-1]:
            inner = inner[name]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if what == "remove":
            del inner[path[-1]]
        elif what == "add" and isinstance(inner, dict):
            inner[draw(texts)] = draw(values)
        else:
            inner[path[-1]] = draw(values)
    return document


@contextmanager
def ours_alone() -> Iterator[None]:
    """Take an error of the project, which must say something; let every other one through."""
    try:
        yield
    except DtpDistError as error:
        if not str(error):
            raise


CONFIGS = [small(), {**small(), "model": EVERY_KIND, "parallel": {"stages": 2, "virtual_costs": {"F": 5}}}]
ORIGIN = Origin(0, "0" * 64, 2)
MANIFEST = pack_manifest(
    Manifest(
        *(30, 0, Phase.BOTH, 0, "0" * 64),
        tuple(FileEntry(layer_file(index), 5, "0" * 64) for index in (1, 2)),
        Totals(busy=[0.5], evaluated={"test_error": 1.0}).state(),
    )
)


@pytest.mark.slow
@fuzz(60)
@given(st.sampled_from(CONFIGS).flatmap(edited))
def test_a_configuration_with_odd_values(raw):
    for source in (raw, yaml.safe_dump(raw, allow_unicode=False)):
        with ours_alone():
            load_config(source if isinstance(source, dict) else yaml.safe_load(source))


@pytest.mark.slow
@fuzz(40)
@given(st.sampled_from(CONFIGS).flatmap(edited), st.lists(st.tuples(texts, texts), max_size=2))
def test_a_configuration_file_with_odd_values_and_overrides(tmp_path, raw, overrides):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    for trusted in (True, False):
        with ours_alone():
            read_config(path, [f"{key}={value}" for key, value in overrides], trusted=trusted)


YAML_BITS = st.sampled_from(
    [
        *"[]{}:,-?&*!|>'\"%@`#~\n\t\x85\u2028\ufeff",
        *("  ", "---", "...", "<<: ", "*a", "&a ", "a: ", "- ", "? ", "model: ", "rule: ", "${a}"),
        *("!!int ", "!!set ", "!!binary ", "!!omap ", "!!timestamp ", "0x", "1:2", "2001-01-01"),
    ]
)
yaml_texts = st.lists(YAML_BITS | st.text(max_size=3), max_size=25).map("".join)


@pytest.mark.slow
@fuzz(200)
@given(st.binary(max_size=60) | yaml_texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_configuration_a_space_or_a_run_s_configuration(tmp_path, data):
    path = tmp_path / "config.yaml"
    path.write_bytes(data)
    for read in (load_config, read_space):
        with ours_alone():
            read(path)
    read_run(tmp_path)


bounds = st.lists(numbers, min_size=1, max_size=3)
distributions = st.dictionaries(
    st.sampled_from(["uniform", "log_uniform", "int_uniform", "choice", "other"]),
    bounds | values,
    min_size=1,
    max_size=2,
)


@pytest.mark.slow
@fuzz(80)
@given(
    st.dictionaries(
        st.sampled_from(["seed", "optimizer.forward.lr", "model.layers.1.units", "model.layers.0.units", "x"])
        | texts,
        distributions | values,
        max_size=3,
    )
)
def test_a_space(tmp_path, raw):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(raw))
    with ours_alone():
        space = read_space(path)
        for trial in range(3):
            read_config(small(), as_overrides(space.draw(0, trial)))


@pytest.mark.slow
@fuzz(200)
@given(edited(json.loads(MANIFEST)) | values | st.binary(max_size=40) | st.integers(0, len(MANIFEST)))
def test_a_manifest(document):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    if isinstance(document, int):
        data = MANIFEST[:document] + b"\x00" + MANIFEST[document + 1 :]
    with ours_alone():
        compare_origin(unpack_manifest(data), ORIGIN)


@fuzz(100)
@given(
    st.lists(st.sampled_from([0, 1, 2, 28, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1), max_size=4),
    st.binary(max_size=40),
    st.integers(1, 3),
)
def test_an_idx_file(tmp_path, sizes, data, dimensions):
    path = tmp_path / "idx"
    for written in (data, bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + data):
        path.write_bytes(written)
        with ours_alone():
            assert read_idx(path, dimensions).dim() == dimensions


LINK = LinkIdentity(bytes(16), 0, MessageKind.ACTIVATION, sender=0, layer=4)
FRAMES = [
    bytes(frame)
    for frame in encode(
        activation_message(
            torch.ones(2, 3),
            torch.zeros(2, dtype=torch.int64),
            phase=Phase.BOTH,
            sender=0,
            layer=4,
            minibatch=7,
        ),
        LINK,
        1,
    )
]


@st.composite
def frames(draw: st.DrawFn) -> list[bytes]:
    """Draw a message with bytes changed, frames cut, left out, doubled or put in."""
    found = [bytearray(frame) for frame in FRAMES]
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, max(0, len(found) - 1)))
        what = draw(st.sampled_from(["byte", "byte", "byte", "cut", "drop", "double", "new"]))
        if what == "new" or not found:
            found.insert(number, bytearray(draw(st.binary(max_size=130))))
        elif what == "byte" and found[number]:
            found[number][draw(st.integers(0, len(found[number]) - 1))] = draw(st.integers(0, 255))
        elif what == "cut":
            del found[number][draw(st.integers(0, len(found[number]))) :]
        elif what == "drop":
            del found[number]
        else:
            found.insert(number, found[number])
    return [bytes(frame) for frame in found]


@pytest.mark.slow
@fuzz(300)
@given(frames(), st.integers(0, 2))
def test_a_message(received, number):
    with ours_alone():
        decode(received, LINK, number, max_bytes=1000)


LINES = [
    {"step": 1, "epoch": 1, "time": 0.1, "event": "started", "partition": [2, 3], "processes": []},
    {
        "step": 10,
        "epoch": 1,
        "time": 1.0,
        "train_loss": 2.0,
        "layer/1/inverse_loss": 0.5,
        "stage/0/busy": 0.5,
    },
    {"step": 10, "epoch": 1, "time": 1.5, "event": "checkpoint", "path": "checkpoints/step-000000010"},
    {"step": 20, "epoch": 1, "time": 2.0, "minibatch": 20, "phase": "inverse", "layer/2/inverse_loss": 0.5},
    {"step": 30, "epoch": 1, "time": 3.0, "event": "finished", "weights_sha256": "ab"},
]
RESULTS = {
    "steps": 30,
    "stages": 2,
    "in_flight": 1,
    "runtime": "local",
    "stage_busy": [0.5, 0.4],
    "valid_error": 3.0,
}
SPANS = {
    "traceEvents": [
        {"ph": "M", "tid": 0, "name": "thread_name", "args": {"name": "stage 0"}},
        {"ph": "X", "tid": 0, "name": "forward", "ts": 0.0, "dur": 5.0, "args": {"minibatch": 1}},
        {"ph": "X", "tid": 1, "name": "wait for activation", "cat": "wait", "ts": 0.0, "dur": 5.0},
    ]
}
names = (
    st.sampled_from(
        ["layer/1/x", "stage/0/busy", "layer/" + "9" * 5000 + "/x", "stage/" + "9" * 5000 + "/busy"]
    )
    | texts
)


@pytest.mark.slow
@fuzz(30)
@given(
    edited(LINES),
    st.lists(st.dictionaries(names, values, max_size=3), max_size=2),
    edited(RESULTS) | values,
    edited(SPANS) | values,
    edited(small()) | st.just({"model": {"layers": {"9" * 5000: {"kind": 1}}}}),
    st.binary(max_size=20),
)
def test_what_a_run_left(tmp_path, lines, more, result, trace, config, tail):
    records = [*lines, *({"step": 1, "epoch": 1, "time": 1.0, **each} for each in more)]
    text = "".join(json.dumps(each) + "\n" for each in records)
    (tmp_path / METRICS).write_bytes(text.encode() + tail)
    (tmp_path / RESULT).write_text(json.dumps(result))
    (tmp_path / TRACE).write_text(json.dumps(trace))
    (tmp_path / CONFIG).write_text(yaml.safe_dump(config))
    run = read_run(tmp_path)
    assert run_table([facts(run)], Path(), 80).columns
    assert json.dumps(facts(run))
    assert page([run, replace(run, config={"model": {"layers": [{"kind": "dense"}]}})]).startswith(
        "<!DOCTYPE"
    )


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"step": 1, "a": ' + b"[" * 900 + b"]" * 900 + b"}"])
def test_a_line_that_is_nested_deep_is_left_out(tmp_path, line):
    (tmp_path / METRICS).write_bytes(line + b"\n" + json.dumps(LINES[1]).encode() + b"\n")
    run = read_run(tmp_path)
    assert [each["step"] for each in run.lines] == [10]
    assert "line 1 not whole" in "; ".join(run.problems)
