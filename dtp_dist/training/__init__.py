"""A run from its configuration to its result: segments, drains, checkpoints, recovery."""
