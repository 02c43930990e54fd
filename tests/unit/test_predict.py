"""Predictions: what costs, messages and memory come to for a number of stages."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from math import inf

import pytest
import torch

from dtp_dist.algorithm.state import layer_state
from dtp_dist.config import load_config
from dtp_dist.errors import ConfigError
from dtp_dist.planning import Costs, given_costs, without_inverses
from dtp_dist.planning.memory import stage_memory
from dtp_dist.planning.page import plan_page
from dtp_dist.planning.plan import make_plan, plain
from dtp_dist.planning.predict import LinkModel, Pipeline, best_partition, predict
from dtp_dist.planning.text import remarks
from dtp_dist.profiling.costs import SECONDS, costs_of, pipeline_of
from dtp_dist.profiling.links import measured_link
from dtp_dist.profiling.measure import FEW, Trial, compared_costs, measured_costs
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.inprocess import InProcessRuntime
from dtp_dist.runtime.segment import Segment
from dtp_dist.runtime.stage.link_encoding import message_bytes
from dtp_dist.schedule import Kind, Phase
from networks import layer_work
from runs import small, small_config

F, I, T, U = Kind
MS = 1e-3
EVERY = Phase.BOTH


def costs(*each: tuple[float, float, float, float], **more) -> Costs:
    """Costs of layers from their F, I, T and U in milliseconds."""
    times = {kind: [MS * layer[place] for layer in each] for place, kind in enumerate(Kind)}
    return Costs({EVERY: times}, source="measured", **more)


def pipeline(of: Costs, link: LinkModel | None = None, *, bytes_up: int = 0) -> Pipeline:
    found = Pipeline(of, link or LinkModel(), lambda layer, phase: (bytes_up, 0), batch_size=100)
    return replace(found, backprop=replace(found, costs=without_inverses(of)))


FOUR = costs(*[(1, 4, 2, 3)] * 4)


def test_one_stage_does_everything_in_turn():
    found = predict(pipeline(FOUR), [4], 1)
    assert found.period == pytest.approx(40 * MS)
    assert (found.idle, found.speed_up, found.bound) == pytest.approx((0, 1, 1))
    assert found.exact == pytest.approx(40 * MS)
    assert found.backprop == pytest.approx(24 * MS), "nothing for inverses"


def test_a_full_pipeline_runs_at_the_pace_of_its_slowest_stage():
    found = predict(pipeline(FOUR), [1, 3], 2)
    assert found.period == pytest.approx(30 * MS)
    assert found.bound == pytest.approx(40 / 30)
    assert found.speed_up == pytest.approx(40 / 30)
    assert found.idle == pytest.approx(1 - 40 / 60)


def test_an_exact_step_is_one_wave_up_and_one_down():
    found = predict(pipeline(FOUR), [1] * 4, 1)
    waves = 4 * 1 + 4 + 4 * 2  # F up, the last stage's I, T down
    assert found.exact == found.period == pytest.approx((waves + 3) * MS), "and the first stage's U"
    assert found.backprop == pytest.approx((4 * 1 + 4 * 2 + 3) * MS), "T before U there too"


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["dtp", "ldrl"])
def test_backpropagations_step_is_that_of_its_own_exact_run(rule):
    config = small_config(f"rule={{name: {rule}}}")
    twin = small_config("rule={name: backprop}")
    here, there = (pipeline_of(each, (), measured=False) for each in (config, twin))
    for partition in ([5], [2, 3], [1] * 5):
        found = predict(here, partition, 1).backprop
        assert found == predict(there, partition, 1).exact == predict(there, partition, 1).backprop


def test_backpropagation_of_virtual_stages_sleeps_for_no_inverse():
    asked = ("parallel.stages=4", "parallel.virtual_costs={F: 5, I: 40, T: 7, U: 9}")
    config = resolve(small_config(*asked, "parallel.partition=[1,1,1,2]"))
    found = predict(pipeline_of(config, (), measured=False), [1, 1, 1, 2], 1)
    assert found.exact == pytest.approx((4 * 5 + 40 + 4 * 7 + 9) * MS)
    assert found.backprop == pytest.approx((4 * 5 + 4 * 7 + 9) * MS)


def test_the_fastest_of_all_is_recommended_whatever_the_order():
    even = pipeline(costs(*[(1, 4, 2, 3)] * 4), LinkModel(latency=6 * MS))
    config = small_config("model.layers=[{kind: dense, units: 8, repeat: 4}]")
    for counts in ([1, 2, 4], [4, 2, 1]):
        found = make_plan(config, even, counts)
        periods = {count: each.period for count, each in found.predictions.items()}
        assert found.stages == min(periods, key=periods.__getitem__) == 2, periods
        assert next(remarks(found)) == "parallel.stages=2 'parallel.partition=[2,2]'"


def test_of_equals_the_fewest_stages_are_recommended():
    config = small_config("model.layers=[{kind: dense, units: 8, repeat: 4}]", "parallel.in_flight=4")
    first = pipeline(costs((9, 9, 9, 9), *[(1, 1, 1, 1)] * 3))
    found = make_plan(config, first, [4, 3, 2])
    assert len({each.period for each in found.predictions.values()}) == 1
    assert found.stages == 2
    assert "2 is the fastest of 4, 3, 2 stages" in list(remarks(found))


def test_what_is_recommended_can_be_pasted():
    overrides = shlex.split(next(remarks(planned("parallel.in_flight=3", "parallel.stages=2"))))
    resolved = resolve(small_config("parallel.stages=2", *overrides))
    assert resolved.parallel.partition == [2, 1, 2]
    assert resolved.parallel.stages == 3


def test_messages_lie_on_the_path_of_an_exact_step():
    link = LinkModel(latency=0.5 * MS, bandwidth=2e6, overhead=0.1 * MS, copying=10e6)
    free, paid = (predict(pipeline(FOUR, of, bytes_up=1000), [2, 2], 1) for of in (LinkModel(), link))
    up, down = 0.5 + 0.5 + 2 * (0.1 + 0.1), 0.5 + 2 * 0.1
    assert paid.exact - free.exact == pytest.approx((up + down) * MS)
    assert paid.backprop - free.backprop == pytest.approx((up + down) * MS)
    assert (paid.sent, paid.received) == ([1000, 0], [0, 1000])


def test_a_stage_of_several_layers_saves_what_is_shared_and_the_first_loads_the_data():
    of = costs(*[(1, 4, 2, 3)] * 4, shared={EVERY: {U: 0.5 * MS}}, data=0.2 * MS)
    assert of.stage(EVERY, range(2), 1)[U] == pytest.approx(5.5 * MS)
    assert of.stage(EVERY, range(2), 1)[F] == pytest.approx(2.2 * MS)
    assert of.stage(EVERY, range(2, 4), 1)[F] == pytest.approx(2 * MS)


def test_what_delay_costs_is_counted_in_all_stages_but_the_last():
    late = {kind: [5 * MS] * 4 if kind is F else times for kind, times in FOUR.phases[EVERY].items()}
    of = replace(FOUR, delayed={3: {EVERY: late}})
    assert of.stage(EVERY, range(2), 8)[F] == pytest.approx(10 * MS)
    assert of.stage(EVERY, range(2), 2)[F] == pytest.approx(2 * MS)
    assert of.stage(EVERY, range(2, 4), 8)[F] == pytest.approx(2 * MS)
    assert best_partition(of, 2, 1) == [2, 2]
    assert best_partition(of, 2, 4) == [2, 2]
    assert best_partition(replace(of, delayed={2: {EVERY: {**late, U: [30 * MS] * 4}}}), 2, 2) == [1, 3]


def test_stages_whose_costs_are_given_cost_that():
    of = given_costs([2, 1, 3], [dict.fromkeys(Kind, n * MS) for n in (5, 7, 6)])
    found = predict(pipeline(of), [2, 1, 3], 3)
    assert found.period == pytest.approx(4 * 7 * MS)
    assert found.idle == pytest.approx(1 - (5 + 7 + 6) / 21)
    assert [sum(actions.values()) for actions in found.actions] == pytest.approx([20 * MS, 28 * MS, 24 * MS])


def test_estimated_costs_are_the_layers_work_and_cut_alike():
    config = small_config()
    options, shapes = config.model.options, [(64,), *[(32,)] * 4, (10,)]
    rule = config.build_rule()
    of = costs_of(config, (), measured=False)
    assert [of.total(range(l, l + 1), 1) for l in range(5)] == layer_work(options, shapes, rule, 40)
    assert resolve(small_config("parallel.stages=2")) == resolve(small_config("parallel.stages=2"))


def test_an_epoch_of_inverses_counts_its_own_forwards():
    config = small_config("rule.update_order=epoch")
    of = costs_of(config, (), measured=False)
    assert list(of.phases) == [Phase.INVERSE, Phase.FORWARD]
    both = costs_of(small_config(), (), measured=False)
    forwards = sum(both.phases[EVERY][F])
    assert of.total(range(5), 1) == both.total(range(5), 1) + forwards
    found = predict(pipeline_of(config, (), measured=False), [5], 1)
    assert found.actions[0][F] * 1e11 == pytest.approx(2 * forwards)


def train(config, minibatches: int = 12):
    with InProcessRuntime(config, lambda report: None) as runtime:
        return runtime.run(Segment(EVERY, "train", 0, 0, minibatches, 0)), runtime.workers


def test_bytes_are_those_that_a_run_sends():
    config = resolve(small_config("parallel.stages=3", "parallel.message_dtype=bfloat16"))
    result, _ = train(config)
    found = predict(pipeline_of(config, (), measured=False), config.parallel.partition, 1)
    assert [12 * each for each in found.sent] == [stage.bytes_sent for stage in result.stages]
    assert sum(found.received) == sum(found.sent)


def test_packed_activations_are_counted_as_bits():
    layers = [{"kind": "dense", "units": 16}, {"kind": "dense", "units": 10, "input_transmission": "sign"}]
    raw = small(model={"input": [64], "layers": layers}, rule={"name": "backprop"})
    config = load_config(raw, ["data.batch_size=40"])
    up, down = message_bytes(config, config.build_rule(), 1, EVERY)
    assert down - up == 40 * 16 * 4 - 40 * 16 // 8 - 40 * 8


@pytest.mark.parametrize("in_flight", [1, 3])
def test_memory_is_about_that_of_a_run(in_flight):
    config = resolve(small_config("parallel.stages=3", f"parallel.in_flight={in_flight}"))
    _, workers = train(config)
    for stage, worker in enumerate(workers):
        layers = worker.layout.layers(stage)
        found = stage_memory(config, range(layers.start - 1, layers.stop - 1), stage, 3)
        states = [layer_state(layer) for layer in worker.stage.layers]
        held = sum(value.nbytes for state in states for value in state.values())
        gradients = found.weights + found.inverses
        ahead = found.weights if "forward.optimizer.0.before" in states[0] else 0
        counted = found.weights + found.inverses + found.optimizers - gradients - ahead
        assert counted == pytest.approx(held, rel=0.06), "biases are left out"
        assert (ahead > 0) == (in_flight == 3 and stage < 2)


@pytest.mark.slow
def test_measured_costs_are_of_every_layer_and_action():
    threads = torch.get_num_threads()
    of = compared_costs(small_config(), [EVERY], [2, 3], seconds=0.5)  # however slow this machine is
    assert torch.get_num_threads() == threads
    assert of.source == "measured"
    assert set(of.delayed) == {2, 3}
    assert {kind: len(times) for kind, times in of.phases[EVERY].items()} == dict.fromkeys(Kind, 5)
    assert all(0 < cost < 1 for times in of.phases[EVERY].values() for cost in times)
    assert 0 < of.data < 1
    assert 0 <= of.turn < 1


def test_where_time_is_short_few_iterations_stand_for_all(monkeypatch):
    monkeypatch.setattr(Trial, "medians", lambda trial: {EVERY: {kind: [1.0] * 4 for kind in Kind}})
    layer = {"kind": "dense", "units": 32, "repeat": 3, "inverse": {"iterations": 300}}
    model = {"input": [64], "layers": [layer, {"kind": "dense", "units": 10, "activation": "linear"}]}
    config = load_config(small(model=model))
    of = measured_costs(config, [2], seconds=0.01)
    assert not of.delayed
    assert not of.shared
    of_all = 300 / FEW
    assert of.phases[EVERY] == {F: [1] * 4, I: [of_all, of_all, of_all, 1], T: [1] * 4, U: [1] * 4}
    assert config.model.options[1].inverse.iterations == 300


def test_module_instances_are_not_trained_to_measure_them():
    layers = [{"kind": "dense", "units": 64}, {"kind": "instance"}]
    config = load_config(small(model={"input": [64], "layers": layers}, rule={"name": "backprop"}))
    with pytest.raises(ConfigError, match=r"parallel\.balance: measured would train .* of layer 2"):
        measured_costs(config, [1], seconds=1.0)


def test_a_cut_can_be_balanced_by_measured_time(monkeypatch):
    asked = []

    def measured(_, in_flight, seconds):
        asked.append((list(in_flight), seconds))
        return costs(*[(1, 1, 1, 1)] * 4, (9, 9, 9, 9))

    monkeypatch.setattr("dtp_dist.profiling.measure.measured_costs", measured)
    overrides = ("parallel.stages=2", "parallel.in_flight=2", "parallel.balance=measured")
    assert resolve(small_config(*overrides)).parallel.partition == [4, 1]
    assert resolve(small_config(*overrides, "parallel.partition=[1,4]")).parallel.partition == [1, 4]
    assert asked == [([2], SECONDS)]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["auto", "ipc", "tcp"])
def test_a_link_is_measured_over_the_runs_transport(transport):
    link = measured_link(small_config(f"parallel.transport={transport}"))
    assert 0 < link.overhead < 1
    assert 0 <= link.latency < 1
    assert 0 < link.handling(10**6) < inf


def planned(*overrides: str, counts=(1, 2, 3)):
    config = small_config(*overrides)
    return make_plan(config, pipeline_of(config, (), measured=False), counts, keep=2)


def test_a_plan_without_measuring_says_nothing_of_time():
    found = json.loads(json.dumps(plain(planned("parallel.in_flight=3"))))
    assert found["unit"] == "Mflop"
    assert [row["samples_per_second"] for row in found["predictions"]] == [None] * 3
    assert [row["in_flight"] for row in found["predictions"]] == [1, 2, 3]
    assert found["stages"] == 3
    assert [row["stage"] for row in found["table"]] == [0, 1, 2]
    assert sum(row["share"] for row in found["table"]) == pytest.approx(1)
    layers = sum(row[str(kind)] for row in found["layers"] for kind in Kind)
    assert sum(row["total"] for row in found["table"]) == pytest.approx(layers)


def test_a_named_partition_is_planned_as_it_is():
    assert planned("parallel.partition=[1,4]", "parallel.stages=2", counts=(1, 2)).chosen.partition == (1, 4)


@pytest.mark.parametrize("overrides", [(), ("rule.update_order=epoch", "parallel.in_flight=2")])
def test_a_page_needs_nothing_else(overrides):
    page = plan_page(planned(*overrides, "name=<b>"))
    assert "http" not in page
    assert "<script" not in page
    assert "Plan of &lt;b&gt;" in page
    assert page.count("<svg") == page.count("</svg>") == 2 + bool(overrides)
    assert "parallel.partition=[2,1,2]" in page
