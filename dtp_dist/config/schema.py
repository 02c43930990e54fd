"""The sections of a configuration. Layers, rules and optimizers bring their own (``dtp_dist.algorithm``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.algorithm.layers import AnyLayer, LayerOptions
from dtp_dist.algorithm.losses import LOSSES, CrossEntropy, Loss
from dtp_dist.algorithm.optimizers.kinds import AnyOptimizer, OptimizerOptions
from dtp_dist.algorithm.options import (
    Count,
    NonNegative,
    OneOf,
    Options,
    RangeError,
    Share,
    Whole,
    option,
)
from dtp_dist.algorithm.rules import AnyRule, Rule, built
from dtp_dist.config.sections.data import DataConfig
from dtp_dist.config.sections.parallel import ParallelConfig
from dtp_dist.loggers.table import LOGGERS


@dataclass(frozen=True, kw_only=True)
class WeightsConfig(Options):
    """Weights that the run starts from."""

    file: str | None = option(
        None,
        doc="what forward maps start from (docs/weights.md): a file that export wrote, or a checkpoint's "
        "folder, with the inverses too; null for fresh ones; model.weights: FILE means {file: FILE}",
    )
    layers: list[Count] | None = option(
        None, doc="numbers of the layers that take their weights from it; null for all"
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Options):
    """The network; ``defaults`` and ``repeat`` of a file are written out in ``layers``."""

    input: list[Count] = option(doc="shape of one example as layer 1 sees it, e.g. [784]")
    layers: list[AnyLayer] = option(doc="the layers, first to last; see the kinds below")
    weights: WeightsConfig = option(WeightsConfig, doc="weights that the run starts from")
    loss: Annotated[str, OneOf(*LOSSES)] = option(
        "cross_entropy",
        doc="of the outputs: cross_entropy for classes, mse for numbers, binary_cross_entropy for several "
        "labels at once; the last two take classes as one-hot numbers (docs/losses.md)",
    )
    label_smoothing: Share = option(
        0.0, doc="share of a label that cross_entropy spreads evenly over all classes"
    )

    def __post_init__(self) -> None:
        if self.label_smoothing and self.loss != "cross_entropy":
            text = f"belongs to loss=cross_entropy, not to {self.loss}; write 0"
            raise RangeError("label_smoothing", f"{self.label_smoothing:g} {text}")

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

    forward: AnyOptimizer = option(doc="optimizer of the forward maps")
    inverse: AnyOptimizer | None = option(None, doc="optimizer of the inverses; null for the forward maps'")

    def __post_init__(self) -> None:
        if self.inverse is None:
            object.__setattr__(self, "inverse", self.forward)

    @property
    def pair(self) -> tuple[OptimizerOptions, OptimizerOptions]:
        """(forward, inverse), typed."""
        return self.forward, self.inverse or self.forward


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """How long to train, and what is kept on the way."""

    epochs: Count = option(10, doc="passes over the training set")
    max_steps: Count | None = option(None, doc="stop after this many minibatches; null for no limit")
    checkpoint_every: Count | None = option(
        None, doc="minibatches between two checkpoints (the pipeline drains); null for each epoch"
    )
    keep_checkpoints: Count = option(2, doc="how many of the newest checkpoints are kept")
    keep_best: bool = option(
        False,
        doc="keep the checkpoint with the lowest validation error as well (of labels that are numbers, the "
        "lowest mean absolute error or Hamming distance); eval and export take it with --best",
    )
    patience: Count | None = option(
        None,
        doc="epochs without a lower validation error (compared as for keep_best) after which training ends; "
        "null to train them all",
    )
    min_delta: NonNegative = option(
        0.0, doc="how much lower, in its own unit (percent), an error must be to count for patience"
    )
    evaluate_every: Whole = option(1, doc="epochs between two evaluations; 0 for the end alone")
    evaluate_passes: Count = option(1, doc="sampled passes whose output probabilities an evaluation averages")
    dtype: Annotated[str, OneOf("float32", "bfloat16")] = option(
        "float32",
        doc="type of the arithmetic; weights and optimizers stay float32",
    )

    def __post_init__(self) -> None:
        for key, on in (("keep_best", self.keep_best), ("patience", self.patience is not None)):
            if on and not self.evaluate_every:
                text = "compares evaluations, but with train.evaluate_every=0 there is one alone, at the end"
                raise RangeError(key, f"{text}; write train.evaluate_every=1")
        if self.min_delta and self.patience is None:
            raise RangeError("min_delta", "belongs to train.patience; write that as well, e.g. 10")


@dataclass(frozen=True, kw_only=True)
class MonitorConfig(Options):
    """What is written while a run continues."""

    every: Count = option(100, doc="minibatches between two lines of metrics")
    tensorboard: bool = option(True, doc="write TensorBoard's event files")
    loggers: list[Annotated[str, OneOf(*LOGGERS)]] = option(
        list,
        doc="experiment trackers that get parameters and metrics as well, e.g. [mlflow] (docs/loggers.md)",
    )
    histograms_every: Whole = option(
        5,
        doc="epochs between two histograms of weights, activations and displacements in TensorBoard, made "
        "from checkpoints; 0 for none",
    )
    pictures_every: Whole = option(
        5,
        doc="epochs between two pictures in TensorBoard (pipeline, reconstructions, alignment); 0 for none",
    )
    alignment_every: Whole = option(
        0,
        doc="minibatches between two whose updates and inverses are measured against backpropagation's "
        "(docs/diagnostics.md); 0 for none",
    )
    trace_minibatches: Whole = option(
        50, doc="minibatches of the end of training that trace.json shows; 0 for none"
    )

    def __post_init__(self) -> None:
        if len(set(self.loggers)) < len(self.loggers):
            raise RangeError("loggers", f"{', '.join(self.loggers)}: one is there twice; leave it out once")


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A whole run."""

    name: str = option("run", doc="name of the experiment; a file's own name by default")
    model: ModelConfig = option(doc="the network")
    rule: AnyRule = option(doc="the learning rule")
    optimizer: OptimizerConfig = option(doc="the optimizers")
    train: TrainConfig = option(TrainConfig, doc="how long to train")
    data: DataConfig = option(DataConfig, doc="the data set")
    parallel: ParallelConfig = option(ParallelConfig, doc="stages and runtime")
    monitor: MonitorConfig = option(MonitorConfig, doc="what is written")
    compare: dict[str, Any] = option(
        dict,
        doc="what the twins of `dtp-dist compare` change, by their rules' names: dotted keys with values, "
        "such as {backprop: {optimizer.forward.lr: 1.0e-3}}; a single run has no use for it",
    )
    seed: Whole = option(0, doc="seed of every random number")
    code_dir: str | None = option(
        None,
        doc="folder of your own modules, which import paths (package.module:name) name; it is searched after "
        "all installed modules and before the working directory; null for the configuration file's own "
        "folder",
    )
    run_dir: str | None = option(None, doc="folder of the run, must not exist yet; null for runs/NAME-TIME")

    def build_rule(self) -> Rule:
        """Return the learning rule of this network.

        Raises:
            RangeError: the options of a user's rule build none.
        """
        layers = len(self.model.options)
        rule = self.rule.build(layers) if ":" not in self.rule.name else built(self.rule, layers)
        rule.loss = self.build_loss()
        return rule

    def build_loss(self) -> Loss:
        """Return the loss of this network's outputs."""
        if self.model.loss == "cross_entropy":
            return CrossEntropy(self.model.label_smoothing)
        return LOSSES[self.model.loss]()
