"""Layers that users make: modules of a function of theirs or handed over, and a look at what these are."""
