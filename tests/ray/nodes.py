"""Three Ray nodes on this machine, three CPUs each, until stdin ends; started by ``test_cluster.py``.

Prints the address, then answers every process id on stdin: the node, not the head, that runs the process is
removed without warning, with all that runs on it.
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
    for line in sys.stdin:
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
