"""The sections of a configuration. Layers, rules and optimizers bring their own (``dtp_dist.algorithm``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.algorithm.optimizers import OptimizerOptions
from dtp_dist.algorithm.options import Options, option
from dtp_dist.algorithm.rules import RuleOptions
from dtp_dist.data import SOURCES
from dtp_dist.schedule import Kind


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Options):
    """The network; ``defaults`` and ``repeat`` of a file are written out in ``layers``."""

    input: list[int] = option(doc="shape of one example as layer 1 sees it, e.g. [784]", at_least=1)
    layers: list[Any] = option(doc="the layers, first to last; see the kinds below")

    @property
    def shape(self) -> tuple[int, ...]:
        """``input`` as a tuple."""
        return tuple(self.input)

    @property
    def options(self) -> list[LayerOptions]:
        """The layers' options, typed."""
        return self.layers


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(DelayOptions):
    """Optimizers of forward maps and inverses, unless a layer has its own, and the remedies for delay."""

    forward: Any = option(doc="optimizer of the forward maps")
    inverse: Any = option(doc="optimizer of the inverses")

    @property
    def pair(self) -> tuple[OptimizerOptions, OptimizerOptions]:
        """(forward, inverse), typed."""
        return self.forward, self.inverse


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """How long to train, and what is kept on the way."""

    epochs: int = option(10, doc="passes over the training set", at_least=1)
    max_steps: int | None = option(
        None, doc="stop after this many minibatches; null for no limit", at_least=1
    )
    checkpoint_every: int | None = option(
        None, doc="minibatches between two checkpoints (the pipeline drains); null for each epoch", at_least=1
    )
    keep_checkpoints: int = option(2, doc="how many of the newest checkpoints are kept", at_least=1)
    evaluate_every: int = option(1, doc="epochs between two evaluations; 0 for the end alone", at_least=0)
    evaluate_passes: int = option(
        1, doc="sampled passes whose output probabilities an evaluation averages", at_least=1
    )
    dtype: str = option(
        "float32",
        doc="type of the arithmetic; weights and optimizers stay float32",
        one_of=("float32", "bfloat16"),
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """The data set and how it is cut into minibatches."""

    name: str = option("digits", doc="the data set", one_of=tuple(SOURCES))
    root: str = option(
        "data", doc="folder of the data sets, in torchvision's layout; fetched there if missing"
    )
    batch_size: int = option(100, doc="examples per minibatch", at_least=1)
    eval_batch_size: int = option(1000, doc="examples per minibatch in evaluation", at_least=1)
    shuffle: bool = option(True, doc="a new order each epoch, from (seed, epoch) alone")
    drop_last: bool = option(False, doc="leave out an epoch's last, smaller minibatch")
    normalize: str = option(
        "none", doc="pixels in [0, 1], or standardized by the training split", one_of=("none", "standardize")
    )
    train_examples: int | None = option(None, doc="use the first examples alone; null for all", at_least=1)
    valid_examples: int | None = option(
        None, doc="examples taken off the end of the training set; null for the data set's custom", at_least=0
    )
    test_examples: int | None = option(None, doc="use the first examples alone; null for all", at_least=1)
    options: dict[str, Any] = option(dict, doc="the data set's own: examples, shape, classes of synthetic")


ActionCosts = float | dict[str, float]
"""Milliseconds of every action, or of each by its letter."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(Options):
    """Where the stages run and how minibatches flow through them."""

    runtime: str = option("inprocess", doc="where the stages run", one_of=("inprocess", "local", "ray"))
    stages: int | Literal["auto"] = option(
        1, doc="number of stages; auto for one per device, or per core on the CPU", at_least=1
    )
    partition: list[int] | None = option(
        None, doc="layers in each stage, bottom first; null for a balanced cut (balance)", at_least=1
    )
    balance: str = option(
        "work",
        doc="what a cut balances: the layers' work by their shapes, the same each time, or their time as "
        "measured at the start, which may cut otherwise each time",
        one_of=("work", "measured"),
    )
    in_flight: int = option(
        1, doc="D, minibatches in flight; 1 is the exact algorithm; above stages adds nothing", at_least=1
    )
    threads: int = option(1, doc="threads of each stage (they change the last bits)", at_least=1)
    device: str = option(
        "auto", doc="auto takes CUDA devices where there are any", one_of=("auto", "cpu", "cuda")
    )
    transport: str = option(
        "auto",
        doc="how messages travel: auto takes shared memory where all stages share a host (on Linux; else "
        "ipc), and tcp, which is encrypted, where they do not",
        one_of=("auto", "shm", "ipc", "tcp"),
    )
    message_dtype: str = option(
        "float32",
        doc="type in which activations and targets travel: bfloat16 halves them, and rounds them; labels and "
        "packed bits stay as they are",
        one_of=("float32", "bfloat16"),
    )
    virtual_costs: ActionCosts | list[ActionCosts] | None = option(
        None,
        doc="milliseconds that each action of a stage takes: stages sleep instead of computing, learn "
        "nothing and send zeros (docs/virtual.md); one number for all actions, {F: 5, I: 8, T: 4, U: 3} (0 "
        "where left out), or a list with one of these for each stage; null to compute",
        at_least=0,
        at_most=1e6,
    )
    failure_timeout: float = option(
        10.0, doc="seconds within which a lost stage or message is noticed", above=0
    )
    action_timeout: float = option(600.0, doc="seconds that one action or one message may take", above=0)
    max_restarts: int = option(
        3, doc="how often a run goes on from its newest checkpoint after a stage was lost", at_least=0
    )
    placement: str = option(
        "pack", doc="Ray: as many stages as fit on a node, or one on each", one_of=("pack", "spread")
    )
    placement_timeout: float = option(60.0, doc="Ray: seconds to wait for room on the cluster", above=0)
    start_timeout: float = option(180.0, doc="seconds that all stages may take to start", above=0)

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


@dataclass(frozen=True, kw_only=True)
class MonitorConfig(Options):
    """What is written while a run goes on."""

    every: int = option(100, doc="minibatches between two lines of metrics", at_least=1)
    tensorboard: bool = option(True, doc="write TensorBoard's event files")
    histograms_every: int = option(
        5,
        doc="epochs between two histograms of weights, activations and displacements in TensorBoard, made "
        "from checkpoints; 0 for none",
        at_least=0,
    )
    pictures_every: int = option(
        5,
        doc="epochs between two pictures in TensorBoard (pipeline, reconstructions, alignment); 0 for none",
        at_least=0,
    )
    alignment_every: int = option(
        0,
        doc="minibatches between two whose updates and inverses are measured against backpropagation's "
        "(docs/diagnostics.md); 0 for none",
        at_least=0,
    )
    trace_minibatches: int = option(
        50, doc="minibatches of the end of training that trace.json shows; 0 for none", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A whole run."""

    name: str = option("run", doc="name of the experiment; a file's own name by default")
    model: ModelConfig = option(doc="the network")
    rule: RuleOptions = option(doc="the learning rule")
    optimizer: OptimizerConfig = option(doc="the optimizers")
    train: TrainConfig = option(TrainConfig, doc="how long to train")
    data: DataConfig = option(DataConfig, doc="the data set")
    parallel: ParallelConfig = option(ParallelConfig, doc="stages and runtime")
    monitor: MonitorConfig = option(MonitorConfig, doc="what is written")
    seed: int = option(0, doc="seed of every random number", at_least=0)
    run_dir: str | None = option(None, doc="folder of the run, must not exist yet; null for runs/NAME-TIME")
