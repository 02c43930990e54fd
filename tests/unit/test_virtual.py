"""Virtual devices: sleeps instead of arithmetic, with the real schedule and messages of the real size."""

from __future__ import annotations

import itertools

import pytest
import torch

from dtp_dist import load_config, train
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.registry import start_runtime
from dtp_dist.runtime.segment import Segment, SegmentResult
from dtp_dist.runtime.stage.virtual import Pace
from dtp_dist.schedule import Phase
from dtp_dist.training.evaluate import evaluate
from dtp_dist.training.trainer import resume
from runs import EVERY_KIND, read_metrics, read_result, small, small_config

STAGES = ("parallel.stages=3", "parallel.in_flight=3")


class Clock:
    """A clock that sleeping moves, by ``late`` seconds more than it was asked for."""

    def __init__(self, late: float) -> None:
        self.now, self.late = 100.0, late

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late


def test_sleeps_are_right_in_the_mean_however_late_the_system_wakes():
    clock = Clock(late=0.25)
    pace = Pace(clock, clock.sleep)
    for number in range(1, 9):
        pace(2.0)
        assert clock.now - 100.0 == 2.0 * number + 0.25


def test_what_happens_between_two_sleeps_is_never_made_up_for():
    """The runtime's own time must show: a debt to hide it behind would make every runtime look fast."""
    clock = Clock(late=0.25)
    pace = Pace(clock, clock.sleep)
    for _ in range(8):
        pace(2.0)
        clock.now += 0.5
    assert clock.now - 100.0 == 8 * (2.0 + 0.25 + 0.5)
    pace(2.0)
    clock.now += 0.125
    start = clock.now
    pace(2.0)
    assert clock.now - start == 2.0 - 0.125 + 0.25, "the rest of the debt alone"


def test_a_sleep_shorter_than_the_debt_leaves_the_rest_of_it():
    clock = Clock(late=1.0)
    pace = Pace(clock, clock.sleep)
    pace(2.0)
    pace(0.25)
    assert clock.now - 100.0 == 3.0
    pace(2.0)
    assert clock.now - 100.0 == 2.0 + 0.25 + 2.0 + 1.0


def run(config: Config, *phases: Phase, count: int = 6) -> tuple[list[SegmentResult], list[list[str]]]:
    """Run segments in one process; return their results and every stage's actions by name."""
    config = resolve(config)
    with start_runtime(config, lambda report: None) as runtime:
        results = [runtime.run(Segment(phase, "train", 0, 0, count, 0)) for phase in phases]
        return results, [[f"{span.activity} {span.minibatch}" for span in spans] for spans in runtime.spans()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("dense", ()),
        ("every kind", ("monitor.alignment_every=2", "parallel.message_dtype=bfloat16")),
        ("every kind", ("train.dtype=bfloat16",)),
        ("dense", ("data.train_examples=230",)),
        ("dense", ("rule={name: ccl}", "data.train_examples=230")),
        ("dense", ("rule={name: ccl}", "parallel.message_dtype=bfloat16", "parallel.in_flight=1")),
    ],
)
def test_a_virtual_run_does_the_same_actions_and_sends_the_same_bytes(name, overrides):
    """The fourth case, and the fifth, ends in a smaller minibatch."""
    raw = small() if name == "dense" else small(model=EVERY_KIND)
    phases = (Phase.BOTH, Phase.INVERSE, Phase.FORWARD)
    real, real_actions = run(load_config(raw, [*STAGES, *overrides]), *phases)
    virtual, actions = run(load_config(raw, [*STAGES, *overrides, "parallel.virtual_costs=0"]), *phases)
    assert actions == real_actions
    for mine, theirs in zip(virtual, real, strict=True):
        assert [stage.bytes_sent for stage in mine.stages] == [stage.bytes_sent for stage in theirs.stages]
        assert mine.examples == theirs.examples
        assert mine.means == {}


def test_every_action_takes_its_time():
    costs = "[{F: 4, I: 1}, {T: 3}, 2]"
    [result], _ = run(small_config(*STAGES, f"parallel.virtual_costs={costs}"), Phase.BOTH, count=20)
    busy = [1e3 * stage.busy / 20 for stage in result.stages]
    for measured, planned in zip(busy, [5, 3, 8], strict=True):
        assert planned <= measured, "no less, however busy the machine is"


def test_a_virtual_stage_builds_no_layer():
    """Sixteen stages of a big network must fit: these layers would need 4 TB."""
    layers = [{"kind": "dense", "units": 1_000_000}] * 2 + [{"kind": "dense", "units": 10}]
    raw = small(model={"input": [64], "layers": layers})
    overrides = (*STAGES, "parallel.virtual_costs=0", "data.batch_size=1")
    [result], _ = run(load_config(raw, overrides), Phase.BOTH, count=2)
    assert result.bytes_sent > 4 * 2 * 2 * 2 * 1_000_000


def test_a_virtual_run_claims_no_weights_and_no_errors(tmp_path):
    run_dir = tmp_path / "run"
    config = small_config(
        *STAGES,
        "parallel.virtual_costs={F: 1}",
        "train.epochs=2",
        "train.checkpoint_every=7",
        f"run_dir={run_dir}",
    )
    before = torch.get_num_threads()
    trained = train(config)
    assert torch.get_num_threads() == before
    result = read_result(run_dir)
    assert result == trained.result
    assert trained.network is None
    assert (result["virtual"], result["steps"], result["stages"]) == (True, 60, 3)
    nothing = ("train_loss", "train_error", "valid_error", "test_error", "weights_sha256")
    assert [result[name] for name in nothing] == [None] * len(nothing)
    assert result["samples_per_second"] > 0
    assert not (run_dir / "checkpoints").exists()
    lines = read_metrics(run_dir)
    assert lines[0]["event"] == "started"
    assert lines[0]["virtual"] is True
    assert [line["event"] for line in lines if "event" in line] == ["started", "finished"]
    names = set(itertools.chain.from_iterable(lines))
    assert not [name for name in names if "loss" in name or "error" in name or name.startswith("layer")]
    assert {"samples_per_second", "stage/2/busy"} <= names
    for again in (lambda: resume(run_dir), lambda: evaluate(run_dir, "test")):
        with pytest.raises(ConfigError, match=r"virtual run has no weights"):
            again()


def test_a_run_with_weights_is_not_resumed_as_a_virtual_one(tmp_path):
    run_dir = tmp_path / "run"
    result = train(small_config("train.max_steps=2", f"run_dir={run_dir}")).result
    assert result["virtual"] is False
    assert result["weights_sha256"]
    with pytest.raises(ConfigError, match=r"parallel.virtual_costs is set"):
        resume(run_dir, ["parallel.virtual_costs=5", "train.max_steps=4"])


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ("-1", "must be at least 0"),
        ("{F: -1}", "must be at least 0"),
        ("[1, .inf, 1]", "at most"),
        ("fast", "it must be"),
        ("{X: 5}", r"\.X: unknown key; known here: F, I, T, U"),
        ("[1, {x: 5}, 1]", r"\.x: unknown key"),
        ("[1, 2]", "has costs of 2 stages, but parallel.stages is 3; write one entry for each stage"),
    ],
)
def test_costs_that_can_not_be_are_one_line(costs, words):
    with pytest.raises(ConfigError, match=rf"parallel\.virtual_costs.*{words}") as caught:
        small_config(*STAGES, f"parallel.virtual_costs={costs}")
    assert "\n" not in str(caught.value)


def test_costs_by_stage_need_a_number_of_stages():
    with pytest.raises(
        ConfigError, match=r"virtual_costs: has costs of 2 stages, but parallel.stages is auto"
    ):
        small_config("parallel.stages=auto", "parallel.virtual_costs=[1, 2]")
    found = small_config(
        "parallel.stages=auto", "parallel.partition=[2,3]", "parallel.virtual_costs=[1, {T: 2}]"
    )
    assert found.parallel.action_costs(0) == {"F": 1.0, "I": 1.0, "T": 1.0, "U": 1.0}
    assert found.parallel.action_costs(1) == {"F": 0.0, "I": 0.0, "T": 2.0, "U": 0.0}
