"""Same bits: one configuration ends with one hash, in-process or in processes, whatever the timing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from dtp_dist import load_config, train
from dtp_dist.transport.table import TRANSPORTS
from runs import small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_stages")]

Result = dict[str, Any]
Run = Callable[..., Result]
MEASURED = ("weights_sha256", "steps", "train_", "valid_", "test_")
"""Beginnings of the names of what must be the same in two results."""

USER_LAYERS = """
from torch import nn

class Hidden(nn.Sequential):
    def __init__(self, inputs, units):
        super().__init__(nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ELU(), nn.Dropout(0.1))

def hidden(input_shape, units):
    return Hidden(input_shape[0], units), nn.Sequential(nn.Linear(units, input_shape[0]), nn.Tanh())
"""


@pytest.fixture(scope="module", autouse=True)
def user_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module of a user's, importable here and, through ``sys.path``, in every stage's process."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "bits_layers.py").write_text(USER_LAYERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train once for each list of overrides and return the result."""
    done: dict[tuple[str, ...], Result] = {}

    def once(*overrides: str, model: dict[str, Any] | None = None) -> Result:
        key = (*overrides, str(model))
        if key not in done:
            raw = small() if model is None else small(model=model)
            run_dir = tmp_path_factory.mktemp("runs") / "run"
            done[key] = train(load_config(raw, [*overrides, f"run_dir={run_dir}"])).result
        return done[key]

    return once


def stages(count: int, in_flight: int = 1, runtime: str = "inprocess") -> tuple[str, ...]:
    return f"parallel.stages={count}", f"parallel.in_flight={in_flight}", f"parallel.runtime={runtime}"


def assert_same(one: Result, other: Result) -> None:
    left, right = ({name: each[name] for name in each if name.startswith(MEASURED)} for each in (one, other))
    assert left == right


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_any_number_of_stages_equals_one(run, count):
    assert_same(run(*stages(1)), run(*stages(count)))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_equal_the_reference(run, count):
    local = run(*stages(count, runtime="local"))
    assert_same(run(*stages(1)), local)
    assert (local["runtime"], local["stages"], local["in_flight"]) == ("local", count, 1)
    assert local["messages_bytes"] == run(*stages(count))["messages_bytes"] > 0


def test_a_full_pipeline_in_processes_equals_the_reference(run):
    reference = run(*stages(4, in_flight=4))
    assert_same(reference, run(*stages(4, in_flight=4, runtime="local")))
    assert reference["weights_sha256"] != run(*stages(1))["weights_sha256"], "there was no delay"


@pytest.mark.parametrize("transport", [name for name, each in TRANSPORTS.items() if each.available])
def test_the_transport_does_not_matter(run, transport):
    pipeline = stages(2, in_flight=2, runtime="local")
    other = run(*pipeline, f"parallel.transport={transport}")
    assert_same(run(*pipeline), other)
    assert run(*pipeline)["messages_bytes"] == other["messages_bytes"]


@contextmanager
def busy_machine(processes: int) -> Iterator[None]:
    """Keep that many cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_a_busy_machine_changes_the_timing_alone(run):
    with busy_machine(3):
        disturbed = run(*stages(4, in_flight=4, runtime="local"), "name=disturbed")
    assert_same(run(*stages(4, in_flight=4)), disturbed)


def test_more_in_flight_than_stages_adds_nothing_and_is_reported_so(run):
    many = run(*stages(2, in_flight=9))
    assert_same(run(*stages(2, in_flight=2)), many)
    assert many["in_flight"] == 2


USER_MODEL: dict[str, Any] = {
    "input": [64],
    "layers": [
        {"kind": "dense", "units": 32},
        {"kind": "bits_layers:hidden", "args": {"units": 24}, "repeat": 2},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ],
}


def labels_of(targets: str, loss: str) -> tuple[str, ...]:
    """Settings of made-up data whose labels are no classes: 35 minibatches of 40."""
    options = f"data.options={{shape: [1, 8, 8], targets: {targets}}}"
    return "data.name=synthetic", options, f"model.loss={loss}"


VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, Any] | None]] = {
    "dtp": ((), None),
    "three inverse iterations": (("model.defaults.inverse.iterations=3",), None),
    "alternating per epoch": (
        ("rule.update_order=epoch", "train.epochs=2", "data.batch_size=110", "train.checkpoint_every=7"),
        None,
    ),
    "a last, smaller minibatch": (("data.batch_size=70",), None),
    "the last, smaller minibatch dropped": (("data.batch_size=70", "data.drop_last=true"), None),
    "backprop": (("rule={name: backprop}",), None),
    "backprop alternating per epoch": (("rule={name: backprop, update_order: epoch}",), None),
    "tp": (("rule={name: tp}",), None),
    "stale anchor": (("rule.anchor=stale",), None),
    "today's Jacobian": (("rule.jacobian=current",), None),
    "user-made modules": ((), USER_MODEL),
    "squared error of numbers": (labels_of("numbers", "mse"), None),
    "binary cross-entropy of several labels": (labels_of("labels", "binary_cross_entropy"), None),
}
IN_PROCESSES = VARIANTS.keys() - {"backprop alternating per epoch", "stale anchor", "today's Jacobian"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_partition_does_not_matter_to_any_variant(run, variant):
    overrides, model = VARIANTS[variant]
    one = run(*stages(1), *overrides, model=model)
    assert_same(one, run(*stages(2), *overrides, model=model))
    assert_same(one, run(*stages(4), *overrides, model=model))


@pytest.mark.parametrize("variant", sorted(IN_PROCESSES))
def test_processes_equal_the_reference_in_every_variant(run, variant):
    overrides, model = VARIANTS[variant]
    reference = run(*stages(2, in_flight=2), *overrides, model=model)
    assert_same(reference, run(*stages(2, in_flight=2, runtime="local"), *overrides, model=model))


def test_the_variants_are_different_computations(run):
    hashes = {run(*stages(1), *each, model=model)["weights_sha256"] for each, model in VARIANTS.values()}
    same = [
        "backprop alternating per epoch",
        "stale anchor",
        "today's Jacobian",
    ]  # as backprop; without delay
    assert len(hashes) == len(VARIANTS) - len(same)


def test_user_modules_in_processes_without_delay_equal_one_stage(run):
    one = run(*stages(1), model=USER_MODEL)
    assert_same(one, run(*stages(2, runtime="local"), model=USER_MODEL))


def test_two_threads_a_stage_give_the_same_bits_in_processes(run):
    wide = {
        "input": [64],
        "layers": [
            {"kind": "dense", "units": 256, "repeat": 2},
            {"kind": "dense", "units": 10, "activation": "linear"},
        ],
    }
    settings = ("parallel.threads=2", "data.batch_size=200", "train.epochs=2")
    reference = run(*stages(2, in_flight=2), *settings, model=wide)
    assert_same(reference, run(*stages(2, in_flight=2, runtime="local"), *settings, model=wide))


DISCRETE: dict[str, Any] = {
    "input": [64],
    "layers": [
        {"kind": "dense", "units": 33, "activation": "sigmoid"},
        {"kind": "dense", "units": 31, "input_transmission": "sample"},
        {"kind": "dense", "units": 10, "activation": "linear", "input_transmission": "sign"},
    ],
}


def test_processes_that_send_bits_bfloat16_and_measurements_equal_the_reference(run):
    settings = (
        "rule={name: backprop}",
        "parallel.message_dtype=bfloat16",
        "monitor.alignment_every=4",
    )
    reference = run(*stages(3, in_flight=3), *settings, model=DISCRETE)
    local = run(*stages(3, in_flight=3, runtime="local"), *settings, model=DISCRETE)
    assert_same(reference, local)
    assert reference["messages_bytes"] == local["messages_bytes"]


def test_the_seed_is_all_that_changes_a_run(run):
    assert_same(run(*stages(1)), run(*stages(1), "name=again"))
    assert run(*stages(1))["weights_sha256"] != run(*stages(1), "seed=1")["weights_sha256"]


def test_monitoring_and_evaluation_change_no_bits(run):
    quiet = run(*stages(2, in_flight=2), "monitor.every=1000000", "train.evaluate_every=0")
    loud = run(*stages(2, in_flight=2), "monitor.every=1", "monitor.tensorboard=false")
    assert quiet["weights_sha256"] == loud["weights_sha256"]


def test_processes_standardize_the_data_and_hand_the_network_back_alike(tmp_path):
    """The driver reads no data: what the network starts with comes from the first stage."""
    networks = []
    for runtime in ("inprocess", "local"):
        overrides = ("data.normalize=standardize", "train.max_steps=5", f"run_dir={tmp_path / runtime}")
        networks.append(train(load_config(small(), [*stages(2, 2, runtime), *overrides])).network)
    one, other = (network.state_dict() for network in networks if network is not None)
    assert one["0.mean"].abs().sum() > 0
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_checkpoints_of_both_runtimes_hold_the_same_bytes(tmp_path):
    """Optimizers included."""
    folders = []
    for runtime in ("inprocess", "local"):
        folder = tmp_path / runtime
        train(load_config(small(), [*stages(2, 2, runtime), f"run_dir={folder}", "train.max_steps=5"]))
        folders.append(folder / "checkpoints" / "step-000000005")
    names = sorted(path.name for path in folders[0].glob("*.safetensors"))
    assert names == [f"layer-00{index}.safetensors" for index in range(1, 6)]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
