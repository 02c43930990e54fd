"""The soak benchmark: its choices, its file of rows, and the delays that it can put into a process."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from dtp_dist import train
from runs import small_config

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def soak():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("soak")
    sys.path.remove(str(BENCHMARKS))


def test_every_kind_comes_equally_often_and_a_seed_always_means_the_same(soak):
    kinds = list(soak.HAPPEN)
    plans = [soak.plan(seed, kinds) for seed in range(2 * len(kinds))]
    assert Counter(fault.kind for faults in plans for fault in faults) == dict.fromkeys(
        kinds, 2 * soak.PER_RUN
    )
    assert plans == [soak.plan(seed, kinds) for seed in range(2 * len(kinds))]
    assert plans[: len(kinds)] != plans[len(kinds) :]


def test_faults_come_in_the_order_of_their_minibatches_and_leave_time_to_recover(soak):
    for seed in range(50):
        faults = soak.plan(seed, list(soak.HAPPEN))
        places = [fault.minibatch for fault in faults]
        assert places == sorted(places)
        assert all(fault.minibatch < soak.MINIBATCHES for fault in faults if fault.kind != "storm at end")
        ends = [fault.kind == "storm at end" for fault in faults]
        assert not any(ends[:-1]), "nothing can come after it"


def test_rows_survive_and_seeds_that_are_there_are_not_run_again(soak, tmp_path):
    path = tmp_path / "soak.csv"
    good = [soak.Row("local", 1, "kill", "minibatch 3", "recovered", 1.5)]
    bad = [soak.Row("local", 0, "cut", "minibatch 9", "FALSE ALARM: no sign of life", 2.0)]
    late = [soak.Row("ray", 0, "kill", "minibatch 9", soak.LATE, 2.0)]
    soak.write(path, [*good, *bad, *late])
    assert soak.read(path) == [*bad, *good, *late]
    assert [(row.counts, row.failed) for row in soak.read(path)] == [
        (True, True),
        (True, False),
        (False, False),
    ]

    class Ran:
        def __init__(self) -> None:
            self.seeds: list[int] = []

        def one(self, seed: int):
            self.seeds.append(seed)
            return [soak.Row("local", seed, "kill", "minibatch 1", "recovered", 0.1)]

    for again, expected in ((False, [2, 3]), (True, [0])):
        soak.write(path, [*good, *bad, *late])
        options = soak.argparse.Namespace(
            results=path, runtime="local", again=again, seed=0, jobs=1, faults=4 - 2 * again
        )
        ran = Ran()
        soak.go(options, ran)
        assert ran.seeds == expected


def python(code: str, tokens: Path, *more: Path, **env: str) -> str:
    """Run code in a process that the delays are for; return what it printed."""
    path = os.pathsep.join(map(str, (BENCHMARKS / "helpers" / "disturb", *more)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "SOAK_TOKENS": str(tokens), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_cold_import_holds_the_interpreter_in_a_stage_and_not_in_the_driver(tmp_path):
    tokens, token = tmp_path / "tokens", tmp_path / "tokens" / "import-0"
    tokens.mkdir()
    (tmp_path / "torch.py").write_text("")
    code = (
        "import threading, time\n"
        "ticks = []\n"
        "def tick():\n"
        "    while True: ticks.append(time.monotonic()); time.sleep(0.01)\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
        "time.sleep(0.1)\n"
        "import torch\n"
        "time.sleep(0.1)\n"
        "print(max(b - a for a, b in zip(ticks, ticks[1:])) >= 0.9)\n"
    )
    token.write_text("1")
    python(code, tokens, tmp_path)
    assert token.exists(), "the driver is not delayed"
    assert python(code, tokens, tmp_path, SOAK_DRIVER="1") == "True\n"
    assert not token.exists(), "once"


def test_an_fsync_takes_as_long_as_its_token_says_once(tmp_path):
    code = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path)!r}, f'fsync-{{os.getpid()}}').write_text('1')\n"
        f"file = open({str(tmp_path / 'x')!r}, 'w')\n"
        "times = [time.monotonic()]\n"
        "for _ in range(2):\n"
        "    os.fsync(file.fileno()); times.append(time.monotonic())\n"
        "print(times[1] - times[0] >= 1)\n"
    )
    assert python(code, tmp_path) == "True\n"
    assert not list(tmp_path.glob("fsync-*"))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory) -> Path:
    """A run and another one, each with a checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("run", 0), ("other", 1)):
        train(small_config("train.epochs=1", f"seed={seed}", f"run_dir={folder / name}"))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("soak")
def test_every_deed_spoils_the_newest_checkpoint_and_can_be_undone(two_runs, tmp_path):
    from helpers.soak_checkpoints import DEEDS, spoil

    def files(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    place = two_runs / "run" / "checkpoints"
    whole = files(place)
    for seed, name in enumerate(sorted(DEEDS)):
        rng = random.Random(seed)
        rng.choice = lambda each, name=name, choice=rng.choice: name if name in each else choice(each)
        victim = SimpleNamespace(
            run=SimpleNamespace(run_dir=two_runs / "run"),
            tokens=tmp_path / "tokens",
            others=two_runs / "other" / "checkpoints",
            rng=rng,
        )
        said, good, step = spoil(victim)
        assert said == name
        assert f"step-{step:09d}/manifest.json" in whole
        assert files(place) != whole, name
        good.restore()
        assert files(place) == whole
