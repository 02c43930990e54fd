"""A node of a three-node Ray cluster on this machine is lost; the run ends as if it had not been.

    python benchmarks/node_loss.py --data ../shared/data [--minibatches 300] [--seed 0]

MNIST's 784-7x240-10 with S = 4 and D = 4, stages spread over the nodes, a checkpoint every 25 minibatches.
At a random minibatch the node of a random stage that is not on the head is removed with all that runs on it.
Exits with 1 if the run is lost, or its weights differ from those of an undisturbed run in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from dtp_dist import load_config, train
from helpers.disturbed import DisturbedRun
from helpers.measuring import CONFIG, machine

STAGES, EVERY = 4, 25
NODE = {"num_cpus": 3, "object_store_memory": 80 * 1024 * 1024}


def start_cluster() -> Any:
    """Return a cluster of a head and two more nodes, with a token of its own."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster  # reads the environment

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(wait=False, **NODE)
    cluster.wait_for_nodes(60)
    return cluster


def lose_a_node(cluster: Any, pids: list[int], chance: random.Random) -> list[int]:
    """Remove the node of a random stage; return the stages that were on it."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    places = [psutil.Process(pid).ppid() for pid in pids]
    victim = chance.choice([place for place in places if place in raylets])
    lost = [stage for stage, place in enumerate(places) if place == victim]
    cluster.remove_node(raylets[victim], allow_graceful=False)
    return lost


def main() -> None:
    """Run, lose a node, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--minibatches", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    chance = random.Random(options.seed)
    common = [
        *(f"data.root={options.data}", "data.test_examples=1000", f"train.max_steps={options.minibatches}"),
        *(f"parallel.stages={STAGES}", f"parallel.in_flight={STAGES}"),
        *(f"train.checkpoint_every={EVERY}", "monitor.every=1", "monitor.tensorboard=false"),
    ]
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        whole = train(load_config(CONFIG, [f"run_dir={Path(folder) / 'undisturbed'}", *common]))
        due = whole.result["weights_sha256"]
        cluster, run = start_cluster(), DisturbedRun(Path(folder) / "run")
        try:
            ray = ("parallel.runtime=ray", "parallel.placement=spread", f"run_dir={run.run_dir}")
            run.start("train", str(CONFIG), *common, *ray, env={"RAY_ADDRESS": cluster.address})
            minibatch = chance.randrange(1, options.minibatches - 2 * EVERY)
            run.wait_for_step(minibatch)
            since = time.monotonic()
            lost = lose_a_node(cluster, run.processes, chance)
            noticed = run.wait_for_event("stage lost")[1] - since
            step, back = run.wait_until_back("recovered")
            print(
                f"the node of stages {lost} was removed after minibatch {minibatch}, noticed {noticed:.1f} s "
                f"later; {back - since:.1f} s until minibatch {step}, the first beyond the checkpoint"
            )
            code = run.wait_for_end()
        finally:
            run.stop()
            cluster.shutdown()
        if code:
            print(f"LOST: exit code {code}: {run.said()}")
            sys.exit(1)
        found = json.loads((run.run_dir / "result.json").read_text())["weights_sha256"]
    print(
        f"undisturbed {due[:16]}, with the loss {found[:16]}: {'the same' if found == due else 'IT DIFFERS'}"
    )
    sys.exit(found != due)


if __name__ == "__main__":
    main()
