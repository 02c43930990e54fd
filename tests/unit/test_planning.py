"""Planning: what a layer costs, and the partition whose slowest stage is as fast as possible."""

from itertools import accumulate, combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp_dist.algorithm.build import layer_shapes
from dtp_dist.algorithm.layers import DenseOptions
from dtp_dist.planning import cheapest_partition, costs
from dtp_dist.planning.costs import OPTIMIZER_WORK
from networks import dense, layer_work, rule

COSTS = st.lists(st.integers(0, 30), min_size=1, max_size=8)


def all_partitions(layers: int, stages: int):
    for cuts in combinations(range(1, layers), stages - 1):
        edges = [0, *cuts, layers]
        yield [last - first for first, last in pairwise(edges)]


def stage_costs(costs, partition) -> list[int]:
    found, first = [], 0
    for count in partition:
        found.append(sum(costs[first : first + count]))
        first += count
    return found


def balanced_partition(costs: list[float], stages: int) -> list[int]:
    """Return the partition of layers that cost as much together as alone."""
    total = [0, *accumulate(costs)]
    return cheapest_partition(lambda layers: total[layers.stop] - total[layers.start], len(costs), stages)


@pytest.mark.slow
@given(costs=COSTS, data=st.data())
@settings(max_examples=300, deadline=None)
def test_partition_is_the_best_of_all(costs, data):
    stages = data.draw(st.integers(1, len(costs)))
    found = balanced_partition(costs, stages)
    assert len(found) == stages
    assert sum(found) == len(costs)
    assert min(found) >= 1
    best = min(max(stage_costs(costs, each)) for each in all_partitions(len(costs), stages))
    assert max(stage_costs(costs, found)) == best


@pytest.mark.slow
@given(costs=COSTS, data=st.data())
@settings(max_examples=300, deadline=None)
def test_among_equals_the_last_stage_is_as_cheap_as_possible(costs, data):
    """The last stage turns round: its own work is on the way of every minibatch."""
    stages = data.draw(st.integers(1, len(costs)))
    every = [stage_costs(costs, each) for each in all_partitions(len(costs), stages)]
    best = min(map(max, every))
    cheapest = min(each[-1] for each in every if max(each) == best)
    assert stage_costs(costs, balanced_partition(costs, stages))[-1] == cheapest


def test_known_partitions():
    assert balanced_partition([5], 1) == [1]
    assert balanced_partition([1, 1, 1, 1], 2) == [2, 2]
    assert balanced_partition([1, 1, 1, 1], 4) == [1, 1, 1, 1]
    assert balanced_partition([9, 1, 1, 1], 2) == [1, 3]
    assert balanced_partition([1, 1, 1, 9], 2) == [3, 1]
    assert balanced_partition([1, 1, 1], 2) == [2, 1]


def test_many_layers_are_cut_without_end():
    assert balanced_partition([1] * 400, 399) == [2, *[1] * 398]


@pytest.mark.parametrize("stages", [0, 4, -1])
def test_a_number_of_stages_that_does_not_fit_is_refused(stages):
    with pytest.raises(ValueError, match=f"{stages} stages do not fit 3 layers"):
        balanced_partition([1, 2, 3], stages)


@pytest.fixture(autouse=True)
def products_alone(monkeypatch):
    """Leave out what is not a matrix product, nor an optimizer's step."""
    monkeypatch.setattr(costs, "ELEMENT_WORK", 0.0)
    monkeypatch.setattr(costs, "CALL_WORK", 0.0)


def products(sizes, name: str, batch: int, *, iterations: int = 1) -> list[float]:
    """Return the work of each layer without the optimizers' share."""
    options = dense(sizes, iterations=iterations)
    learned = rule(name).build(len(options))
    work = layer_work(options, layer_shapes((sizes[0],), options), learned, batch)
    steps = [1 + iterations * (l in learned.inverses()) for l in range(1, len(sizes))]
    sizes_of = [a * b for a, b in pairwise(sizes)]
    return [w - OPTIMIZER_WORK * size * n for w, size, n in zip(work, sizes_of, steps, strict=True)]


def test_work_of_the_papers_mnist_network():
    """784-7x240-10, batch 100: 2 products in layer 1, 7 in layers 2 to 7, 3 in layer 8, 2 operations each."""
    found = products((784, *[240] * 7, 10), "dtp", 100)
    assert found == [100 * 2 * 2 * 784 * 240, *[100 * 2 * 7 * 240 * 240] * 6, 100 * 2 * 3 * 240 * 10]
    assert sum(found) == 560_544_000


def test_work_grows_with_iterations_batch_and_shrinks_without_inverses():
    sizes = (6, 5, 4, 3)
    one, three = (products(sizes, "dtp", 10, iterations=k) for k in (1, 3))
    assert [b - a for a, b in zip(one, three, strict=True)] == [0, 10 * 2 * 3 * 2 * 20, 0]
    assert products(sizes, "dtp", 20) == [2 * work for work in one]
    assert products(sizes, "backprop", 10) == [10 * 2 * 2 * 30, 10 * 2 * 3 * 20, 10 * 2 * 3 * 12]


def test_optimizer_steps_are_counted_per_parameter_and_update():
    options = dense((6, 5, 4, 3), iterations=4)
    shapes = layer_shapes((6,), options)
    assert layer_work(options, shapes, rule("dtp").build(3), 0) == [
        OPTIMIZER_WORK * count for count in (30, 20 * 5, 12)
    ]


def test_more_iterations_in_a_layer_draw_the_cut_towards_it():
    options = [DenseOptions(units=8) for _ in range(6)]
    heavy = dense([8] * 7, iterations=40)[1]
    shapes = layer_shapes((8,), options)
    learned = rule("dtp").build(6)
    even = balanced_partition(layer_work(options, shapes, learned, 32), 2)
    options[1] = heavy
    assert balanced_partition(layer_work(options, shapes, learned, 32), 2) == [2, 4] != even


def test_elementwise_work_and_overhead_are_counted_once_for_every_evaluation(monkeypatch):
    options = dense((6, 5, 4, 3))
    learned, shapes = rule("dtp").build(3), layer_shapes((6,), options)
    bare = layer_work(options, shapes, learned, 10)
    monkeypatch.setattr(costs, "CALL_WORK", 1.0)
    called = layer_work(options, shapes, learned, 10)
    assert [b - a for a, b in zip(bare, called, strict=True)] == [2, 7, 3]
    monkeypatch.setattr(costs, "CALL_WORK", 0.0)
    monkeypatch.setattr(costs, "ELEMENT_WORK", 1.0)
    elements = layer_work(options, shapes, learned, 10)
    # f of layer 2 gives 4 elements (F, U, I), g gives 5 (twice in I, twice in T)
    assert [b - a for a, b in zip(bare, elements, strict=True)] == [
        10 * 2 * 5,
        10 * (3 * 4 + 4 * 5),
        10 * 3 * 3,
    ]
