"""Sweeps: random search over a space of settings, each trial an ordinary run, through Ray Tune."""

from dtp_dist.tune.space import Space, read_space

__all__ = ["Space", "read_space"]
