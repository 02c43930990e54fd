"""Shared fixtures: where the real data is, and how a test asks for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def find_data() -> Path | None:
    """Return the folder with MNIST in torchvision's layout, or None where it is absent."""
    for place in (os.environ.get("DTP_DIST_DATA"), ROOT.parent / "shared" / "data"):
        if place and (Path(place) / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
            return Path(place)
    return None


@pytest.fixture(scope="session")
def mnist_root() -> Path | None:
    return find_data()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and tests share the machine."""
    torch.set_num_threads(1)
