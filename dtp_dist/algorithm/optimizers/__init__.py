"""Optimizers, the groups of maps that share one, and values that follow a schedule."""
