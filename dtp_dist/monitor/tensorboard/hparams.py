"""A run's main settings and final figures as TensorBoard's HParams page compares them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import (
    DataType,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
    Status,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from dtp_dist.algorithm.losses.metrics import Metrics
from dtp_dist.algorithm.optimizers.schedules import ScheduledValue
from dtp_dist.config import Config, shapes_of
from dtp_dist.monitor.tensorboard.tags import LEARNING, PIPELINE, has_valid
from dtp_dist.report.settings import plain
from dtp_dist.text.measures import MEASURES

PLUGIN, VERSION = "hparams", 0
EXPERIMENT = "_hparams_/experiment"
SESSION_START, SESSION_END = "_hparams_/session_start_info", "_hparams_/session_end_info"
"""As ``tensorboard.plugins.hparams.metadata`` has them, which imports much for a constant of its own."""

Setting = str | float
_TYPES = {str: "DATA_TYPE_STRING", float: "DATA_TYPE_FLOAT64"}


def settings(config: Config) -> dict[str, Setting]:
    """Return the columns before the errors by name, the same names in every run.

    The page shows the first five settings and then the figures, each in a column of one width, and any number
    with five digits: with four settings the errors are seen without scrolling, and whole numbers are words.
    """
    rule, parallel = config.rule, config.parallel
    lr = config.optimizer.pair[0].lr
    rest = [
        config.data.name,
        _counted(config.train.epochs, "epoch"),
        f"batches of {config.data.batch_size}",
        *_network(config),
        _counted(parallel.stages, "stage"),
        f"{parallel.in_flight} in flight",
        parallel.runtime,
    ]
    return {
        "forward.lr": _written(lr) if isinstance(lr, ScheduledValue) else float(lr),
        "rule": rule.name,
        "seed": str(config.seed),
        "settings": ", ".join(rest),
    }


def _network(config: Config) -> Iterator[str]:
    """Yield what there is to say of layers and inverses."""
    layers = config.model.options
    count = sum(each.parameters(shape) for each, shape in zip(layers, shapes_of(config), strict=False))
    yield _counted(len(layers), "layer")
    yield f"{count} parameters"
    learned = config.build_rule().learned_inverses()
    inverse = layers[learned[0] - 1].inverse if learned else None
    if inverse is not None:
        yield f"inverse.lr {_written(config.optimizer.pair[1].lr)}"
        yield _counted(inverse.iterations, "iteration")
        yield f"sigma {_written(inverse.sigma)}"


def _written(number: float | ScheduledValue) -> str:
    return plain(asdict(number) if isinstance(number, ScheduledValue) else number)


def _counted(number: object, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def figures(config: Config, metrics: Metrics) -> dict[str, str]:
    """Return the figures of the table by name, metrics first: each is the newest value under a tag."""
    splits = ("test", "valid") if has_valid(config) else ("test",)
    named = [name for name in (*metrics.names, *metrics.of_split) if MEASURES[name].column]
    return {
        **{
            f"{split} {MEASURES[name].title}": f"{LEARNING}/{split}_{name}"
            for name in named
            for split in splits
        },
        "train loss": f"{LEARNING}/train_loss_of_epoch",
        "samples per second": f"{PIPELINE}/samples_per_second_so_far",
    }


def experiment(config: Config, metrics: Metrics) -> Any:
    """Return the summary that names the columns of the table."""
    infos = [
        HParamInfo(
            name=name,
            type=DataType.Value(_TYPES[type(value)]),
            differs=True,
        )
        for name, value in settings(config).items()
    ]
    shown = [
        MetricInfo(name=MetricName(tag=tag), display_name=name)
        for name, tag in figures(config, metrics).items()
    ]
    content = Experiment(hparam_infos=infos, metric_infos=shown, time_created_secs=time.time())
    return _summary(EXPERIMENT, experiment=content)


def session_start(config: Config) -> Any:
    """Return the summary that begins a run's row."""
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in settings(config).items():
        if isinstance(value, str):
            info.hparams[name].string_value = value
        else:
            info.hparams[name].number_value = value
    return _summary(SESSION_START, session_start_info=info)


def session_end(*, well: bool) -> Any:
    """Return the summary that ends a run's row: it finished, or it did not."""
    status = Status.Value("STATUS_SUCCESS" if well else "STATUS_FAILURE")
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _summary(SESSION_END, session_end_info=info)


def _summary(tag: str, **content: Any) -> Any:
    data = HParamsPluginData(version=VERSION, **content).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN, content=data)
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])
