"""Experiment trackers that a run's parameters and measures are handed on to."""
