"""How messages travel between two stages: in one process, through shared memory, over ZeroMQ, GPU to GPU."""
