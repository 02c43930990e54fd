"""Run folders as a run leaves them, whole or not, for the tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STARTED = {"step": 0, "epoch": 1, "time": 0.1, "event": "started"}
FINISHED = {"step": 30, "epoch": 1, "time": 3.0, "event": "finished"}
RESULT = {
    "steps": 30,
    "valid_error": 4.5,
    "test_error": 5.25,
    "train_loss": 0.5,
    "seconds": 3.0,
    "samples_per_second": 12345.0,
    "stages": 2,
    "in_flight": 2,
    "runtime": "local",
    "stage_busy": [0.25, 0.75],
    "weights_sha256": "a4e68ffd" * 8,
}
CONFIG = """
name: digits
model: {input: [64], layers: [{kind: dense, units: 8}, {kind: dense, units: 8}, {kind: dense, units: 10}]}
parallel: {stages: 2, in_flight: 2, runtime: local}
optimizer: {forward: {name: adam, lr: 0.001}}
"""


def at(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "epoch": 1, "time": step / 10, **values}


MEASURED = [
    at(10, train_loss=2.0, **{"layer/1/forward_loss": 0.1, "layer/2/inverse_loss": 3.0, "stage/0/busy": 0.5}),
    at(
        20, train_loss=1.0, **{"layer/1/forward_loss": 0.05, "layer/2/inverse_loss": 2.0, "stage/0/busy": 0.7}
    ),
    at(30, train_loss_of_epoch=0.5, valid_error=4.5, test_error=5.25, samples_per_second_so_far=12000.0),
]


def span(stage: int, name: str, start: float, end: float, cat: str = "action") -> dict[str, Any]:
    place = {"ph": "X", "pid": 0, "tid": stage, "name": name, "cat": cat}
    return {**place, "ts": 1000 * start, "dur": 1000 * (end - start), "args": {"minibatch": 7}}


TRACE = {
    "traceEvents": [
        {"ph": "M", "pid": 0, "tid": 0, "name": "thread_name", "args": {"name": "stage 0 (layer 1)"}},
        span(0, "forward", 0, 2),
        span(0, "wait for target", 2, 8, "wait"),
        span(0, "target", 8, 10),
        span(1, "wait for activation", 0, 3, "wait"),
        span(1, "update", 3, 9),
        {"ph": "s", "id": 1, "ts": 3},
        {"ph": "X", "tid": "no number", "name": "update", "ts": 0, "dur": 1},
    ]
}


def write_run(folder: Path, lines: list[dict[str, Any]] | None = None, **files: str) -> Path:
    """Write a whole run, with some files replaced; a file of "" is left out."""
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines or [STARTED, *MEASURED, FINISHED])
    whole = {"config": CONFIG, "metrics": text, "result": json.dumps(RESULT), "trace": json.dumps(TRACE)}
    names = {
        "config": "config.yaml",
        "metrics": "metrics.jsonl",
        "result": "result.json",
        "trace": "trace.json",
    }
    for name, content in {**whole, **files}.items():
        if content:
            (folder / names[name]).write_text(content)
    return folder
