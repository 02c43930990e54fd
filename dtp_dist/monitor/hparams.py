"""A run's main settings and final figures as TensorBoard's HParams page compares them."""

from __future__ import annotations

import json
import time
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DataType,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
    Status,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from dtp_dist.config import Config, shapes_of
from dtp_dist.monitor.tags import LEARNING, PIPELINE, has_valid

METRICS = {
    "test error": f"{LEARNING}/test_error",
    "valid error": f"{LEARNING}/valid_error",
    "train loss": f"{LEARNING}/train_loss_of_epoch",
    "samples per second": f"{PIPELINE}/samples_per_second_so_far",
}
"""The figures of the table: the newest value under each tag."""
FIRST = ("rule", "stages", "in_flight", "forward.lr", "seed")
"""What the page shows unless told otherwise: the first five of those that are said to differ, by name."""

Setting = str | float | bool
_TYPES = {str: "DATA_TYPE_STRING", float: "DATA_TYPE_FLOAT64", bool: "DATA_TYPE_BOOL"}


def settings(config: Config) -> dict[str, Setting | None]:
    """Return the main settings by name, the same names in every run; None where a run has no such thing."""
    rule, layers = config.rule, config.model.options
    forward, backward = config.optimizer.pair
    shapes = shapes_of(config)
    inverses = config.rule.build(len(layers)).learned_inverses()
    inverse = layers[inverses[0] - 1].inverse if inverses else None
    chosen = {
        "name": config.name,
        "rule": rule.name,
        "rule.output_step": getattr(rule, "output_step", None),
        "rule.anchor": getattr(rule, "anchor", None),
        "layers": len(layers),
        "parameters": sum(each.parameters(shape) for each, shape in zip(layers, shapes, strict=False)),
        "forward.optimizer": forward.name,
        "forward.lr": forward.lr,
        "inverse.optimizer": backward.name if inverse else None,
        "inverse.lr": backward.lr if inverse else None,
        "inverse.iterations": inverse.iterations if inverse else None,
        "inverse.sigma": inverse.sigma if inverse else None,
        "data": config.data.name,
        "batch_size": config.data.batch_size,
        "epochs": config.train.epochs,
        "stages": config.parallel.stages,
        "in_flight": config.parallel.in_flight,
        "runtime": config.parallel.runtime,
        "seed": config.seed,
    }
    return {name: _plain(value) for name, value in chosen.items()}


def _plain(value: Any) -> Setting | None:
    """Return a value as the page can show it; a schedule of a number as text."""
    if value is None or isinstance(value, bool | str):
        return value
    return float(value) if isinstance(value, int | float) else json.dumps(value)


def experiment(config: Config) -> Any:
    """Return the summary that names the columns of the table."""
    infos = [
        HParamInfo(
            name=name,
            type=DataType.Value(_TYPES[type(value)] if value is not None else _TYPES[str]),
            differs=name in FIRST,
        )
        for name, value in settings(config).items()
    ]
    metrics = [
        MetricInfo(name=MetricName(tag=tag), display_name=name)
        for name, tag in METRICS.items()
        if has_valid(config) or not tag.endswith("valid_error")
    ]
    content = Experiment(hparam_infos=infos, metric_infos=metrics, time_created_secs=time.time())
    return _summary(metadata.EXPERIMENT_TAG, experiment=content)


def session_start(config: Config) -> Any:
    """Return the summary that begins a run's row."""
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in settings(config).items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        elif value is not None:
            info.hparams[name].number_value = value
    return _summary(metadata.SESSION_START_INFO_TAG, session_start_info=info)


def session_end(*, well: bool) -> Any:
    """Return the summary that ends a run's row: it finished, or it did not."""
    status = Status.Value("STATUS_SUCCESS" if well else "STATUS_FAILURE")
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=info)


def _summary(tag: str, **content: Any) -> Any:
    data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])
