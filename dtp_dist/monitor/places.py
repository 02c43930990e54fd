"""Where the stages run, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any


def places(details: Mapping[str, Any]) -> list[str]:
    """Return a line for each place of an event ``started``, none where all is on this machine's CPU.

    Neighbouring stages in one place share a line: "stages 0-1 (layers 1-4) on gpu-1 (10.0.0.3), cpu".
    """
    devices: Sequence[str] = details.get("devices", ())
    nodes: Sequence[str] = details.get("nodes", ())
    if not nodes and set(devices) <= {"cpu"}:
        return []
    found = [
        f"{f'on {node}, ' if node else 'on '}{device}"
        for node, device in zip(nodes or [""] * len(devices), devices, strict=True)
    ]
    lines = []
    for place, group in groupby(range(len(found)), key=found.__getitem__):
        lines.append(f"{_stages([*group], details['partition'])} {place}")
    return lines


def _stages(stages: Sequence[int], partition: Sequence[int]) -> str:
    first, last = sum(partition[: stages[0]]) + 1, sum(partition[: stages[-1] + 1])
    return f"{_numbers('stage', stages[0], stages[-1])} ({_numbers('layer', first, last)})"


def _numbers(what: str, first: int, last: int) -> str:
    return f"{what} {first}" if first == last else f"{what}s {first}-{last}"
