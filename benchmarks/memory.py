"""Memory of local stages: what a stage keeps is bounded by its minibatches in flight.

    python benchmarks/memory.py --data ../shared/data

Prints the growth of every stage's resident memory between minibatch 200 and minibatch 2,000.
"""

from __future__ import annotations

import argparse

import psutil

from helpers.measuring import Measured, config, machine


def resident(pids: list[int]) -> list[float]:
    """Return the resident memory of each process in MB."""
    return [psutil.Process(pid).memory_info().rss / 1e6 for pid in pids]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--minibatches", type=int, default=2000)
    options = parser.parse_args()
    print(machine())
    for stages, in_flight in ((2, 2), (8, 8)):
        overrides = [f"parallel.stages={stages}", f"parallel.in_flight={in_flight}", "parallel.runtime=local"]
        run = Measured(config(options.data, *overrides))
        try:
            run.train(200)
            before = resident(run.runtime.processes())
            while run.next < options.minibatches:
                run.train(options.minibatches - run.next)
            after = resident(run.runtime.processes())
        finally:
            run.runtime.close()
        growth = [late - early for early, late in zip(before, after, strict=True)]
        print(
            f"{stages} stages, D = {in_flight}: grew by at most {max(growth):.1f} MB from minibatch 200 to "
            f"{options.minibatches} ({', '.join(f'{each:.1f}' for each in growth)}); "
            f"largest stage {max(after):.0f} MB"
        )


if __name__ == "__main__":
    main()
