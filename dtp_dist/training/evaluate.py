"""What a run's weights reach on the splits of its data, in the run itself and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dtp_dist.config.batches import ensured
from dtp_dist.data import Given
from dtp_dist.errors import ConfigError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.base import Runtime
from dtp_dist.runtime.registry import start_runtime
from dtp_dist.storage.checkpoint import best_checkpoint, newest_checkpoint
from dtp_dist.storage.data_file import check_same
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.run_dir import open_run_dir
from dtp_dist.training.parts import evaluation


def evaluate(
    run_dir: str | Path,
    split: str = "test",
    *,
    data: Given | None = None,
    allow_code: bool = False,
    best: bool = False,
) -> tuple[dict[str, float], int]:
    """Return ``loss`` and the metrics of a run's newest or best weights (docs/losses.md), and their step.

    They are computed as the run itself does, in this process; ``data`` are as in ``train``. ``best``: of
    the checkpoint that ``train.keep_best`` keeps.

    Raises:
        ConfigError: there is no such split.
        DataError: the data have other classes than those that the run began with.
        StorageError: there is no such checkpoint.
        DtpDistError: as ``resume``.
    """
    run_dir = Path(run_dir)
    config = open_run_dir(run_dir, ["parallel.runtime=inprocess"], allow_code=allow_code)
    if config.parallel.device == "cuda":  # maybe the cluster's alone
        config = replace(config, parallel=replace(config.parallel, device="auto"))
    config = resolve(config)
    folder, manifest = (best_checkpoint if best else newest_checkpoint)(run_dir, origin_of(config))
    found = ensured(config, data)
    batches = found.batches
    check_same(run_dir, found.splits, config.data.root, whole=False)
    if split not in batches:
        raise ConfigError(
            f"--split: {split!r} is not allowed; it must be one of {', '.join(sorted(batches))}"
        )
    runtime = start_runtime(config, lambda report: None, given=data)
    try:
        runtime.load(folder)
        segment = evaluation(split, manifest.epoch, batches[split].count, config.train.evaluate_passes)
        return runtime.run(segment).means, manifest.step
    finally:
        runtime.close()


def evaluate_splits(
    runtime: Runtime, counts: Mapping[str, int], epoch: int, passes: int
) -> tuple[dict[str, float], int]:
    """Return the losses and metrics of validation and test, named as ``valid_error``, and the bytes sent.

    Args:
        runtime: its stages have the weights.
        counts: minibatches of each split that there is.
        epoch: 0-based.
        passes: as ``train.evaluate_passes``.
    """
    values: dict[str, float] = {}
    sent = 0
    for split in ("valid", "test"):
        if split in counts:
            result = runtime.run(evaluation(split, epoch, counts[split], passes))
            sent += result.bytes_sent
            values |= {f"{split}_{name}": value for name, value in result.means.items()}
    return values, sent
