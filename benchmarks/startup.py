"""How long the command line takes before it does anything: ``--help``, and ``config`` next to torch's import.

    python benchmarks/startup.py [--repeats 10] [--config configs/digits_dtp.yaml]

The three are called in turn, so that whatever else the machine does is in all of them; printed are medians of
wall clock and of CPU seconds (user and system). ``--help`` is to take at most 0.5 s, and ``config`` at most
0.5 s more than ``import torch``: measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from helpers.measuring import ROOT, machine


def seconds(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command takes, by the clock and of CPU."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--config", default=str(ROOT / "configs" / "digits_dtp.yaml"))
    options = parser.parse_args()
    cli = str(Path(sys.executable).with_name("dtp-dist"))
    commands = {
        "dtp-dist --help": [cli, "--help"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "dtp-dist config FILE": [cli, "config", options.config],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            found[name].append(seconds(command))
    print(f"{machine()}; medians of {options.repeats}")
    for name, taken in found.items():
        clock, cpu = map(statistics.median, zip(*taken, strict=True))
        print(f"{name:26} {clock:6.2f} s  (CPU {cpu:.2f} s)")


if __name__ == "__main__":
    main()
