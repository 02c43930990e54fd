"""A plan in words and tables, as the terminal and the page show them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from dtp_dist.planning.plan import Plan, prediction_rows, stage_rows
from dtp_dist.planning.predict import predict
from dtp_dist.schedule import Kind
from dtp_dist.text.numbers import percent, short, whole

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
                *(short(row[kind]) for kind in kinds),
                short(row["total"]),
                percent(row["share"], 1),
                short(row["memory_bytes"] / MEGABYTE),
                whole(row["received_bytes"] / KILOBYTE),
                whole(row["sent_bytes"] / KILOBYTE),
            ]
        )
    chosen = plan.chosen
    title = f"{plan.stages} stage(s), {chosen.in_flight} in flight: {unit} and bytes per minibatch"
    return title, rows


def count_table(plan: Plan) -> tuple[str, Cells]:
    """Return title and cells of what is predicted for each number of stages."""
    unit = plan.unit
    header = ["stages", "in flight", f"{unit} a minibatch", "samples/s", "idle", "speed-up", "bound"]
    rows = [[*header, f"exact step {unit}", f"backprop step {unit}", "partition"]]
    for row in prediction_rows(plan):
        speed = row["samples_per_second"]
        rows.append(
            [
                str(row["stages"]),
                str(row["in_flight"]),
                short(row["period"]),
                "-" if speed is None else whole(speed),
                percent(row["idle"], 1),
                short(row["speed_up"]),
                short(row["bound"]),
                short(row["exact_step"]),
                short(row["backprop_step"]),
                _short(row["partition"]),
            ]
        )
    return "By the number of stages", rows


def remarks(plan: Plan) -> Iterator[str]:
    """Yield what to make of it, a line each; the first can be pasted."""
    chosen, parallel = plan.chosen, plan.config.parallel
    yield f"parallel.stages={plan.stages} {shlex.quote(f'parallel.partition={pasted(chosen.partition)}')}"
    if len(plan.predictions) > 1:
        yield f"{plan.stages} is the fastest of {', '.join(map(str, plan.predictions))} stages"
    yield (
        "speed-up: over one stage; bound: what the costliest stage would allow; exact step: one minibatch in "
        "flight; backprop step: the same by backpropagation, cut alike and with the same order of actions"
    )
    cores = os.cpu_count() or 1
    if parallel.device != "cuda" and not parallel.virtual and plan.stages * parallel.threads > cores:
        yield (
            f"each stage is taken to have a core of its own for every thread; this machine has {cores} and "
            "would be slower than that"
        )
    if plan.stages > 1 and parallel.runtime == "inprocess":
        yield "stages take turns in one process with parallel.runtime=inprocess: train with local or ray"
    if plan.pipeline.costs.source == "measured":
        loading = short(plan.amount(plan.pipeline.costs.data))
        yield f"F of stage 0 includes {loading} ms for loading a minibatch"
        yield from _compared(plan)
    if parallel.in_flight < plan.stages:
        yield f"with parallel.in_flight={plan.stages} all stages would work at once, nearer to the bound"


def other_cut(plan: Plan, partition: Sequence[int]) -> str:
    """Return what the chosen number of stages would reach with another partition."""
    found = predict(plan.pipeline, partition, plan.config.parallel.in_flight)
    return f"{pasted(partition)}: {whole(plan.samples_per_second(found) or 0.0)} samples/s"


def _compared(plan: Plan) -> Iterator[str]:
    layers, stages = len(plan.config.model.options), plan.stages
    equal = [layers // stages + (stage < layers % stages) for stage in range(stages)]
    if stages > 1 and equal != list(plan.chosen.partition):
        yield f"as many layers in each stage, {other_cut(plan, equal)}"


def pasted(partition: Sequence[int]) -> str:
    """Return a partition as an override's value."""
    return f"[{','.join(map(str, partition))}]"


def _short(partition: Sequence[int]) -> str:
    if len(partition) <= LONG:
        return pasted(partition)
    return f"[{','.join(map(str, partition[:3]))},...,{partition[-1]}]"
