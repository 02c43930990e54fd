"""Three Ray nodes on this machine, three CPUs each, until stdin ends; started by ``test_cluster.py``.

Prints the address, then answers every line on stdin. A process id: the node, not the head, that runs the
process is removed without warning, with all that runs on it. "gpu" and "no gpu": a node joins, and
leaves, that says it has a GPU and has none that works, as one whose driver is too old.
"""

from __future__ import annotations

import sys

import psutil
from ray.cluster_utils import Cluster

SIZE = {"num_cpus": 3, "object_store_memory": 80 * 1024 * 1024}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**SIZE, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(wait=False, **SIZE)
    cluster.wait_for_nodes(60)
    print(cluster.address, flush=True)
    broken = None
    for line in map(str.strip, sys.stdin):
        if line == "gpu":
            broken = cluster.add_node(num_gpus=1, **SIZE)
            print("joined", flush=True)
            continue
        if line == "no gpu":
            cluster.remove_node(broken)
            print("left", flush=True)
            continue
        raylet = psutil.Process(int(line)).ppid()
        (node,) = (
            node
            for node in cluster.worker_nodes
            if node.all_processes["raylet"][0].process.pid == raylet  # what Ray's own tests look at
        )
        cluster.remove_node(node, allow_graceful=False)
        print("removed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
