"""Which remedies 32 stages with 32 in flight need: short runs of a transcription, 784-31x64-10 on MNIST.

    python benchmarks/depth_search.py --data ../shared/data [--only 'muon*'] [--steps 750]

In a full pipeline with S = D every stage computes F of another minibatch at the same time, so the products of
all 30 square layers are one here: a fraction of a run's time. The arithmetic is the same, initial weights and
noise are others: errors are comparable with one another alone. What they suggest, ``depth.py`` measures.
``docs/results/depth_search.csv`` has a line for every 250 minibatches; what is in it is not run again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

import torch

from dtp_dist.data import load
from helpers.deep_pipeline import BATCH, Data, Network, Variant, exact, pipeline
from helpers.measuring import ROOT, machine, today

EVERY = 250
"""Minibatches between two lines of the trace."""

EXACT = {"deep": False, "cosine": True}
VARIANTS = {
    "exact": Variant(deep=False),
    "plain": Variant(power=0.0, memory=0.0, lookahead=0.0),
    "lookahead alone": Variant(power=0.0, memory=0.0),
    "default": Variant(),
    "lookahead 0": Variant(lookahead=0.0),
    "lookahead 0.5": Variant(lookahead=0.5),
    "rate 5e-5": Variant(lr=5e-5),
    "rate 2e-4": Variant(lr=2e-4),
    "rate 3e-4": Variant(lr=3e-4),
    "power 0": Variant(power=0.0),
    "power 0.5": Variant(power=0.5),
    "memory 0.25": Variant(memory=0.25),
    "memory 0.8": Variant(memory=0.8),
    "power 0.5, memory 1": Variant(power=0.5, memory=1.0),
    "power 0.7, memory 0.8": Variant(power=0.7, memory=0.8),
    "soap": Variant(optimizer="soap"),
    "soap, power 0.5, memory 0.8": Variant(optimizer="soap", power=0.5, memory=0.8),
    "soap 3e-4, power 0.5": Variant(optimizer="soap", lr=3e-4, power=0.5),
    "soap 6e-4, power 0.7, memory 0.8": Variant(optimizer="soap", lr=6e-4, power=0.7, memory=0.8),
    "muon": Variant(optimizer="muon"),
    "muon, power 0.5, memory 0.8": Variant(optimizer="muon", power=0.5, memory=0.8),
    "muon 5e-4, power 0.5": Variant(optimizer="muon", lr=5e-4, power=0.5),
    "muon 1e-3, power 0.5": Variant(optimizer="muon", lr=1e-3, power=0.5),
    "muon 1e-3, power 0.5, memory 0.8": Variant(optimizer="muon", lr=1e-3, power=0.5, memory=0.8),
    "muon 1e-3, power 0.7": Variant(optimizer="muon", lr=1e-3, power=0.7),
    "muon 3e-4, exact": Variant(optimizer="muon", lr=3e-4, deep=False),
    "exact, cosine": Variant(**EXACT),
    "exact, cosine, 3 iterations": Variant(**EXACT, iterations=3),
    "exact, cosine, sigma 0.15, inverses too": Variant(**EXACT, sigma=0.15, inverse_cosine=True),
    "exact, cosine, inverses 3e-3": Variant(**EXACT, inverse_lr=3e-3),
    "exact, cosine, inverses 3e-4": Variant(**EXACT, inverse_lr=3e-4),
    "exact, cosine, rate 3e-5": Variant(**EXACT, lr=3e-5),
    "exact, cosine, sigma 0.7": Variant(**EXACT, sigma=0.7),
}


def mnist(options: argparse.Namespace) -> Data:
    """Return all of its training and validation split."""
    splits = load("mnist", options.data)
    seen = []
    for each in (splits.train, splits.valid):
        assert each is not None
        pixels = each.seen(each.rows.select(torch.arange(len(each)))).flatten(1)
        seen += [pixels, each.labels]
    return Data(*seen, options.seed)


def errors(variant: Variant, data: Data, steps: int, width: int) -> Iterator[tuple[int, float, float]]:
    """Yield minibatch, validation error and training error since the last one, percent."""
    network, wrong = Network(variant, width, data.seed, steps), 0
    for step, each in enumerate((pipeline if variant.deep else exact)(network, data), 1):
        wrong += each
        if step % EVERY == 0:
            valid = (network.outputs(data.valid_x).argmax(1) != data.valid_y).float().mean().item()
            yield step, 100 * valid, 100 * wrong / (EVERY * BATCH)
            wrong = 0
        if step == steps:
            return


def rows(name: str, options: argparse.Namespace, data: Data) -> Iterator[list[object]]:
    """Yield a line of the trace for every ``EVERY`` minibatches of a variant."""
    settings = [getattr(VARIANTS[name], each.name) for each in fields(Variant)]
    for step, valid, train in errors(VARIANTS[name], data, options.steps, options.width):
        print(f"{name}, {step} minibatches: valid {valid:.2f}, train {train:.2f} %", flush=True)
        run = [name, *settings, options.width, options.seed, options.steps]
        yield [*run, step, f"{valid:.2f}", f"{train:.2f}", machine(), today()]


def main() -> None:
    """Run what is missing and add it to the trace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"), help="folder of the trace")
    parser.add_argument("--steps", type=int, default=750, help="minibatches")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of the variants' names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)
    path = Path(options.out) / "depth_search.csv"
    if not path.exists():
        run = ["variant", *(each.name for each in fields(Variant)), "width", "seed", "steps"]
        path.write_text(",".join([*run, "step", "valid", "train", "machine", "date"]) + "\n")
    with path.open(newline="") as file:
        key = ("variant", "width", "seed", "steps")
        found = {tuple(row[name] for name in key) for row in csv.DictReader(file)}
    data = mnist(options)
    for name in VARIANTS:
        wanted = (name, str(options.width), str(options.seed), str(options.steps))
        if wanted not in found and any(fnmatch(name, pattern) for pattern in options.only):
            lines = list(rows(name, options, data))
            with path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(lines)


if __name__ == "__main__":
    main()
