"""Stages: what each action does to a contiguous run of layers, and what is kept of a minibatch meanwhile."""
