"""Stages as Ray actors; nothing else of the package imports Ray, but for the search."""
