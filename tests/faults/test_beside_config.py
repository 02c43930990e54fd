"""Runs whose folders hold files named like modules that they need, and code of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from beside import MINE, plant
from runs import LOCAL, read_result, run_cli, small, write_config

pytestmark = pytest.mark.slow


def config_beside_files(folder: Path) -> Path:
    folder.mkdir()
    plant(folder)
    (folder / "mine_here.py").write_text(MINE)
    layers = [{"kind": "mine_here:layer"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    sides = {"forward": "mine_here:Descent", "inverse": "torch.optim:NAdam"}
    raw = small(
        model={"input": [64], "layers": layers},
        rule={"name": "mine_here:Mine"},
        optimizer={side: {"name": name, "lr": 1.0e-3} for side, name in sides.items()},
    )
    return write_config(folder, raw)


@pytest.mark.parametrize("where", [LOCAL, ("parallel.runtime=ray",)], ids=["local", "ray"])
def test_a_run_beside_files_named_like_modules_ends_well(tmp_path, where):
    """Both next to its configuration and in its working directory, which are not the same."""
    config, work = config_beside_files(tmp_path / "experiment"), tmp_path / "work"
    work.mkdir()
    plant(work)
    done = run_cli("train", config, "run_dir=run", "train.max_steps=5", *where, cwd=work, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_result(work / "run")["steps"] == 5
