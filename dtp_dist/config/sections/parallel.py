"""The section ``parallel`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Le

from dtp_dist.algorithm.options import Count, NonNegative, OneOf, Options, Positive, Whole, option
from dtp_dist.schedule import Kind
from dtp_dist.transport.table import AUTO, TRANSPORTS

Milliseconds = Annotated[NonNegative, Le(1e6)]
ActionCosts = Milliseconds | dict[str, Milliseconds]
"""Milliseconds of every action, or of each by its letter."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(Options):
    """Where the stages run and how minibatches flow through them."""

    runtime: Annotated[str, OneOf("inprocess", "local", "ray")] = option(
        "inprocess", doc="where the stages run"
    )
    stages: Count | Literal["auto"] = option(
        1,
        doc="number of stages; auto for one per device, or per core on the CPU (Ray: of the cluster)",
    )
    partition: list[Count] | None = option(
        None, doc="layers in each stage, bottom first; null for a balanced cut (balance)"
    )
    balance: Annotated[str, OneOf("flops", "measured")] = option(
        "flops",
        doc="what a cut balances: the layers' floating-point operations, by their shapes and the same each "
        "time, or their time as measured at the start, which may cut otherwise each time",
    )
    in_flight: Count = option(
        1, doc="D, minibatches in flight; 1 is the exact algorithm; above stages adds nothing"
    )
    threads: Count = option(1, doc="threads of each stage (they change the last bits)")
    device: Annotated[str, OneOf("auto", "cpu", "cuda")] = option(
        "auto",
        doc="auto takes CUDA devices where there are any (Ray: on the cluster)",
    )
    transport: Annotated[str, OneOf(AUTO, *TRANSPORTS)] = option(
        "auto",
        doc="how messages travel: auto takes shared memory where all stages share a host (on Linux; else "
        "ipc), and tcp, which is encrypted, where they do not",
    )
    message_dtype: Annotated[str, OneOf("float32", "bfloat16")] = option(
        "float32",
        doc="type in which activations and targets travel: bfloat16 halves them, and rounds them; labels and "
        "packed bits stay as they are",
    )
    virtual_costs: ActionCosts | list[ActionCosts] | None = option(
        None,
        doc="milliseconds that each action of a stage takes: stages sleep instead of computing, learn "
        "nothing and send zeros (docs/virtual.md); one number for all actions, {F: 5, I: 8, T: 4, U: 3} (0 "
        "where left out), or a list with one of these for each stage; null to compute",
    )
    failure_timeout: Positive = option(10.0, doc="seconds within which a lost stage or message is noticed")
    action_timeout: Positive = option(600.0, doc="seconds that one action or one message may take")
    max_restarts: Whole = option(
        3, doc="how often a run that lost a stage is restarted from its newest checkpoint"
    )
    placement: Annotated[str, OneOf("pack", "spread")] = option(
        "pack", doc="Ray: as many stages as fit on a node, or one on each"
    )
    placement_timeout: Positive = option(60.0, doc="Ray: seconds to wait for room on the cluster")
    start_timeout: Positive = option(180.0, doc="seconds that all stages may take to start")

    @property
    def virtual(self) -> bool:
        """Whether stages sleep instead of computing."""
        return self.virtual_costs is not None

    def action_costs(self, stage: int) -> dict[str, float]:
        """Return the milliseconds of each action (F, I, T, U) of a virtual stage."""
        costs = self.virtual_costs[stage] if isinstance(self.virtual_costs, list) else self.virtual_costs
        assert costs is not None
        named = costs if isinstance(costs, dict) else dict.fromkeys(Kind, costs)
        return {kind.value: float(named.get(kind, 0.0)) for kind in Kind}
