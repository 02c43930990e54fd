"""What may lie beside a configuration: files named like modules, and a layer of the user's."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

MINE = """
from dataclasses import dataclass

import torch
from torch import nn

from dtp_dist.algorithm.rules.targets.dtp import DTPOptions

def layer(input_shape):
    return nn.Linear(input_shape[0], 32), nn.Linear(32, input_shape[0])

@dataclass(frozen=True, kw_only=True)
class Mine(DTPOptions):
    pass

class Descent(torch.optim.SGD):
    pass
"""
PYTHONS = "__main__ importlib warnings contextlib collections functools types keyword operator reprlib runpy"
"""What Python itself imports before ``python -m`` comes to any module of ours."""

OTHERS = "yaml torch numpy zmq pydantic omegaconf typer rich click safetensors tensorboard PIL fsspec pandas"


def plant(folder: Path) -> list[str]:
    """Lay files named like every module that there is, each of which would raise, and return their names."""
    names = set(sys.stdlib_module_names) - set(PYTHONS.split()) | set(OTHERS.split())
    found = sorted(name for name in names if name in sys.modules or find_spec(name))
    for name in found:
        (folder / f"{name}.py").write_text("raise RuntimeError(f'{__name__} of the working directory')")
    return found
