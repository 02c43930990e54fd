"""A plan in words and tables, as the terminal and the page show them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from dtp_dist.planning.plan import Plan, prediction_rows, stage_rows
from dtp_dist.planning.predict import predict
from dtp_dist.schedule import Kind

Cells = list[list[str]]
"""A header and rows."""

MEGABYTE, KILOBYTE = 1e6, 1e3
LONG = 8  # stages; a longer partition is cut in a table


SOURCES = {
    "shapes": "work by shapes, nothing measured",
    "measured": "measured on this device",
    "virtual": "virtual devices, with the times of parallel.virtual_costs",
}


def heading(plan: Plan) -> str:
    """Return what was planned, and how."""
    config = plan.config
    how = SOURCES[plan.pipeline.costs.source]
    return (
        f"{config.name}: {len(config.model.options)} layers, rule {config.rule.name}, minibatches of "
        f"{plan.pipeline.batch_size}, {config.parallel.threads} thread(s) a stage; {how}"
    )


def stage_table(plan: Plan) -> tuple[str, Cells]:
    """Return title and cells of the chosen prediction, a row a stage."""
    unit = plan.unit
    kinds = [str(kind) for kind in Kind]
    header = ["stage", "layers", *(f"{kind} {unit}" for kind in kinds), f"all {unit}", "share", "memory MB"]
    rows = [[*header, "in KB", "out KB"]]
    for row in stage_rows(plan):
        first, last = row["layers"]
        rows.append(
            [
                str(row["stage"]),
                str(first) if first == last else f"{first}-{last}",
                *(number(row[kind]) for kind in kinds),
                number(row["total"]),
                percent(row["share"]),
                f"{row['memory_bytes'] / MEGABYTE:.1f}",
                f"{row['received_bytes'] / KILOBYTE:.0f}",
                f"{row['sent_bytes'] / KILOBYTE:.0f}",
            ]
        )
    chosen = plan.chosen
    title = f"{plan.stages} stage(s), {chosen.in_flight} in flight: {unit} and bytes per minibatch"
    return title, rows


def count_table(plan: Plan) -> tuple[str, Cells]:
    """Return title and cells of what is foreseen for each number of stages."""
    unit = plan.unit
    header = ["stages", "in flight", f"{unit} a minibatch", "samples/s", "idle", "speed-up", "bound"]
    rows = [[*header, f"exact step {unit}", f"backprop step {unit}", "partition"]]
    for row in prediction_rows(plan):
        speed = row["samples_per_second"]
        rows.append(
            [
                str(row["stages"]),
                str(row["in_flight"]),
                number(row["period"]),
                "-" if speed is None else number(speed),
                percent(row["idle"]),
                f"{row['speed_up']:.2f}",
                f"{row['bound']:.2f}",
                number(row["exact_step"]),
                number(row["backprop_step"]),
                _short(row["partition"]),
            ]
        )
    return "By the number of stages", rows


def remarks(plan: Plan) -> Iterator[str]:
    """Yield what to make of it, a line each; the first can be pasted."""
    chosen, parallel = plan.chosen, plan.config.parallel
    yield f"parallel.partition={pasted(chosen.partition)}"
    yield (
        "speed-up: over one stage; bound: what the costliest stage would allow; exact step: one minibatch in "
        "flight; backprop step: all forwards, then all that goes back, cut alike"
    )
    cores = os.cpu_count() or 1
    if parallel.device != "cuda" and plan.stages * parallel.threads > cores:
        yield f"each stage is taken to have a core of its own for every thread; this machine has {cores}"
    if plan.stages > 1 and parallel.runtime == "inprocess":
        yield "stages take turns in one process with parallel.runtime=inprocess: train with local or ray"
    if plan.pipeline.costs.source == "measured":
        yield f"F of stage 0 includes {plan.amount(plan.pipeline.costs.data):.2f} ms for loading a minibatch"
        yield from _compared(plan)
    if parallel.in_flight < plan.stages:
        yield f"with parallel.in_flight={plan.stages} all stages would work at once, nearer to the bound"


def other_cut(plan: Plan, partition: Sequence[int]) -> str:
    """Return what the chosen number of stages would reach with another partition."""
    found = predict(plan.pipeline, partition, plan.config.parallel.in_flight)
    return f"{pasted(partition)}: {number(plan.samples_per_second(found) or 0.0)} samples/s"


def _compared(plan: Plan) -> Iterator[str]:
    layers, stages = len(plan.config.model.options), plan.stages
    equal = [layers // stages + (stage < layers % stages) for stage in range(stages)]
    if stages > 1 and equal != list(plan.chosen.partition):
        yield f"as many layers in each stage, {other_cut(plan, equal)}"


def pasted(partition: Sequence[int]) -> str:
    """Return a partition as an override's value."""
    return f"[{','.join(map(str, partition))}]"


def number(value: float) -> str:
    """Return three significant digits, or all before the point."""
    if value >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f}%"


def _short(partition: Sequence[int]) -> str:
    if len(partition) <= LONG:
        return pasted(partition)
    return f"[{','.join(map(str, partition[:3]))},...,{partition[-1]}]"
