"""Comparisons: a configuration and its twins by other rules, each for several seeds, each an ordinary run."""
