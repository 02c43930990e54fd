"""The mathematics of layer-local learning: torch only, no processes, no messages."""
