"""One weights_sha256 whatever the partition, the runtime and the load, on MNIST's 784-7x240-10.

    python benchmarks/same_bits.py --data ../shared/data [--minibatches 300]

D = 1: one stage in-process against 2, 4 and 8 local stages, and against a run that was resumed half-way on
other stages. D = 4: four stages in-process against local and Ray. Then five local runs while two other
processes burn both cores. Exits with 1 if any hash differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from dtp_dist import load_config, resume, train
from helpers.measuring import CONFIG, machine


def digest(data: str, minibatches: int, *overrides: str) -> str:
    """Train in a temporary run directory and return the weights' hash."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"train.max_steps={minibatches}", "data.test_examples=1000", "monitor.tensorboard=false"]
        given = [f"data.root={data}", f"run_dir={Path(folder) / 'run'}", *fixed, *overrides]
        return str(train(load_config(CONFIG, given)).result["weights_sha256"])


def resumed(data: str, minibatches: int) -> str:
    """Train one half on four local stages and the other on two; return the weights' hash."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        fixed = ["data.test_examples=1000", "monitor.tensorboard=false", "parallel.runtime=local"]
        given = [f"data.root={data}", f"run_dir={run_dir}", f"train.max_steps={minibatches // 2}", *fixed]
        train(load_config(CONFIG, [*given, "parallel.stages=4"]))
        rest = [f"train.max_steps={minibatches}", "parallel.stages=2"]
        return str(resume(run_dir, rest).result["weights_sha256"])


def main() -> None:
    """Run all and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--minibatches", type=int, default=300)
    options = parser.parse_args()
    print(machine())
    exact = [digest(options.data, options.minibatches)]
    for stages in (2, 4, 8):
        local = ("parallel.runtime=local", f"parallel.stages={stages}")
        exact.append(digest(options.data, options.minibatches, *local))
    exact.append(resumed(options.data, options.minibatches))
    print(f"D = 1: in-process, local 2, 4, 8, resumed from 4 on 2: {' '.join(each[:16] for each in exact)}")
    deep = ("parallel.stages=4", "parallel.in_flight=4")
    piped = [digest(options.data, options.minibatches, *deep)]
    for runtime in ("local", "ray"):
        piped.append(digest(options.data, options.minibatches, *deep, f"parallel.runtime={runtime}"))
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for _ in range(5):
            piped.append(digest(options.data, options.minibatches, *deep, "parallel.runtime=local"))
    finally:
        for burner in burners:
            burner.kill()
    print(f"D = 4: in-process, local, Ray, 5 x local under load: {' '.join(each[:16] for each in piped)}")
    same = len(set(exact)) == len(set(piped)) == 1
    print("all the same" if same else "THEY DIFFER")
    sys.exit(not same)


if __name__ == "__main__":
    main()
