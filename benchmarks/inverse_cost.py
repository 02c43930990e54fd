"""What an inverse costs: work, angle and error of every way that L-DRL's inverses may learn, on one network.

    python benchmarks/inverse_cost.py mlp --data DIR [--epochs 3] [--seeds 1] [--only NAME ...]
    python benchmarks/inverse_cost.py lenet --data DIR --examples 5120 --epochs 2
    python benchmarks/inverse_cost.py mlp --work                the work alone, which takes seconds

Work is counted by torch's FlopCounterMode over a minibatch of training in one stage, as a multiple of what
backpropagation takes for the same network; elementwise operations don't count. Angles are in degrees, means
over the layers and the measured minibatches of the last epoch: that of the inverse's Jacobian to the
transpose of the forward map's (layers that have one), and that of the forward update to backpropagation's
(hidden layers). Cosines over epochs are shortened to the epochs that are run. Rows are kept in
docs/results/inverse.csv, and the table in docs/results/inverse.md is made from them.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dtp_dist import load_config
from dtp_dist.config import Config
from dtp_dist.phase import Phase
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.stage.worker import StageWorker
from helpers.measuring import ROOT, machine, written_on
from helpers.resumable import run

RESULTS = ROOT / "docs" / "results"
ONE_STAGE = ("parallel.runtime=inprocess", "parallel.stages=1", "parallel.in_flight=1")
INVERSE = "model.defaults.inverse"
ONCE = (f"{INVERSE}.iterations=1",)
QUARTER = (*ONCE, f"{INVERSE}.samples=0.25")
SOLVED = (*ONCE, "rule.inverse_loss=solved", "optimizer.inverse={name: sgd, lr: 1.0}")
PER_LAYER = {"mlp": (), "lenet": (2, 4, 5)}
CONFIGS = {"mlp": "ernoult2022_mlp_mnist", "lenet": "ernoult2022_lenet_cifar10"}
WAYS: dict[str, tuple[str, ...]] = {
    "published": (),
    "sampled, K = 2": (f"{INVERSE}.iterations=2",),
    "sampled, K = 1": ONCE,
    "sampled, K = 1, a quarter": QUARTER,
    "sampled, 4 samples at once": (*ONCE, f"{INVERSE}.samples=4"),
    "sampled, K = auto": (
        f"{INVERSE}.iterations=auto",
        f"{INVERSE}.most_iterations=5",
        f"{INVERSE}.angle=30",
    ),
    "mirrored, K = 1": (*ONCE, "rule.inverse_loss=mirrored"),
    "mirrored, K = 1, a quarter": (*QUARTER, "rule.inverse_loss=mirrored"),
    "expected": (*ONCE, "rule.inverse_loss=expected"),
    "solved": SOLVED,
    "backpropagation": (),
}
READS = {"expected": "yes", "solved": "yes", "backpropagation": "yes"}
COLUMNS = (
    "network",
    "way",
    "seed",
    "epochs",
    "examples",
    "work",
    "inverse_angle",
    "update_angle",
    "test_error",
    "machine",
    "date",
)
Row = dict[str, Any]


def config_of(network: str, way: str) -> tuple[Path, list[str]]:
    """Return the file and the overrides of a way for the inverses to learn."""
    name = CONFIGS[network]
    if way == "backpropagation":
        return ROOT / "configs" / f"{name}_backprop.yaml", []
    overrides = list(WAYS[way])
    if network == "lenet" and way != "published":  # its layers say for themselves what the defaults would
        adam = "optimizer.inverse={name: adam, lr: 3.0e-3}"
        overrides = [f"model.layers.{index}.optimizer.inverse=null" for index in PER_LAYER[network]] + [
            *([] if way == "solved" else [adam]),
            *(
                each.replace(INVERSE, f"model.layers.{index}.inverse")
                for each in overrides
                for index in (PER_LAYER[network] if each.startswith(INVERSE) else (0,))
            ),
        ]
    return ROOT / "configs" / f"{name}.yaml", overrides


def operations(config: Config) -> int:
    """Return the floating-point operations of products in the second minibatch of training."""
    settings = resolve(config)
    worker = StageWorker(settings, 0, None, lambda report: None)
    generator = torch.Generator().manual_seed(0)
    size = settings.data.batch_size
    x = torch.randn(size, *settings.model.shape, generator=generator)
    labels = torch.randint(0, 10, (size,), generator=generator)
    worker.stage.begin(Phase.BOTH, 0)
    for minibatch in (0, 1):
        with FlopCounterMode(display=False) as counter:
            worker.stage.forward(minibatch, x, labels)
            worker.stage.inverse(minibatch)
            worker.stage.target(minibatch, None)
            worker.stage.update(minibatch)
    return int(counter.get_total_flops())


def relative_work(network: str, way: str) -> float:
    """Return a way's work a minibatch, as a multiple of backpropagation's."""
    path, overrides = config_of(network, way)
    twin = load_config(config_of(network, "backpropagation")[0], ONE_STAGE)
    return operations(load_config(path, [*overrides, *ONE_STAGE])) / operations(twin)


def angle_of(lines: Sequence[Row], name: str, layers: range) -> float | None:
    """Return the mean of an angle over layers and lines, None where none has it."""
    keys = {f"layer/{index}/{name}" for index in layers}
    found = [value for line in lines for key, value in line.items() if key in keys]
    return round(statistics.mean(found), 1) if found else None


def row_of(network: str, way: str, seed: int, options: argparse.Namespace) -> Row | None:
    """Train one way with one seed, or read what was trained, and return its row."""
    path, overrides = config_of(network, way)
    epochs = options.epochs or load_config(path).train.epochs
    if options.epochs:
        overrides += _shortened(path, overrides, epochs)
    overrides += [f"seed={seed}", f"data.root={options.data}", f"train.epochs={epochs}", *ONE_STAGE]
    overrides += ["monitor.alignment_every=50"] if way != "backpropagation" else []
    if options.examples:
        overrides += [f"data.train_examples={options.examples}", "data.valid_examples=1000"]
    folder = options.runs / network / way.replace(" ", "").replace(",", "-") / f"e{epochs}-seed{seed}"
    result = run(path, folder, overrides)
    if result is None:
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line.get("epoch") == epochs - 1 or line.get("epoch") == epochs]
    count = len(load_config(folder / "config.yaml").model.options)
    return {
        "network": network,
        "way": way,
        "seed": seed,
        "epochs": epochs,
        "examples": options.examples or "all",
        "work": round(relative_work(network, way), 2),
        "inverse_angle": angle_of(last, "jacobian_angle", range(2, count + 1)),
        "update_angle": angle_of(last, "update_angle", range(1, count)),
        "test_error": round(result["test_error"], 2),
        "machine": machine(),
        "date": written_on(folder / "result.json"),
    }


def _shortened(path: Path, overrides: Sequence[str], epochs: int) -> list[str]:
    """Return overrides that let the cosines over epochs end with the epochs that are run."""
    config = load_config(path, overrides)
    found = []
    for side, options in zip(("forward", "inverse"), config.optimizer.pair, strict=True):
        if getattr(options.lr, "length", None) and getattr(options.lr, "unit", "epoch") == "epoch":
            found.append(f"optimizer.{side}.lr.length={epochs}")
    return found


def kept(path: Path) -> list[Row]:
    """Return the rows that are there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(rows: list[Row]) -> None:
    """Write the rows, the newest of each kind, and the table."""
    newest = {
        tuple(str(row[key]) for key in ("network", "way", "seed", "epochs", "examples")): row for row in rows
    }
    with (RESULTS / "inverse.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(newest.values())
    groups: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in newest.values():
        group = (str(row["network"]), str(row["epochs"]), str(row["examples"]))
        groups.setdefault(group, {}).setdefault(str(row["way"]), []).append(row)
    text = [
        "# What an inverse costs",
        "",
        "Written by `benchmarks/inverse_cost.py` from `inverse.csv`. Work is that of products in a",
        "minibatch, as a multiple of backpropagation's; angles in degrees, of the inverse's Jacobian to the",
        "transpose of the forward map's and of the forward update to backpropagation's, means over layers;",
        "test error in percent, by seed. [Concepts](../concepts.md) says what the ways are.",
    ]
    for (network, epochs, examples), ways in groups.items():
        title = f"## {network}: `{CONFIGS[network]}.yaml`, {epochs} epochs of {examples} examples"
        text += [
            "",
            title,
            "",
            "| inverse | reads forward weights | work | inverse angle | update angle | test error |",
        ]
        text.append("|---|---|---|---|---|---|")
        for way in [each for each in WAYS if each in ways]:
            found = ways[way]
            errors = ", ".join(f"{float(row['test_error']):.2f}" for row in found)
            cells = [way, READS.get(way, "no"), found[0]["work"]]
            cells += [found[0][key] or "-" for key in ("inverse_angle", "update_angle")]
            text.append(f"| {' | '.join(str(cell) for cell in [*cells, errors])} |")
    (RESULTS / "inverse.md").write_text("\n".join(text) + "\n")


def main() -> None:
    """Count, train, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=CONFIGS)
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--epochs", type=int, help="instead of the config's")
    parser.add_argument("--examples", type=int, help="to learn from, instead of all")
    parser.add_argument("--seeds", type=int, default=1, help="run seeds 0 to N-1")
    parser.add_argument(
        "--only", nargs="*", default=list(WAYS), metavar="NAME", help=f"of: {'; '.join(WAYS)}"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/inverse"), help="folder of the runs")
    parser.add_argument("--work", action="store_true", help="print the work alone")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in WAYS]
    if unknown:
        parser.error(f"--only {unknown[0]!r} is none of: {'; '.join(WAYS)}")
    rows = kept(RESULTS / "inverse.csv")
    for way in options.only:
        if options.work:
            print(f"{way:30}{relative_work(options.network, way):8.2f}", flush=True)
            continue
        for seed in range(options.seeds):
            row = row_of(options.network, way, seed, options)
            if row is not None:
                print(json.dumps(row), flush=True)
                rows.append(row)
                write(rows)


if __name__ == "__main__":
    main()
