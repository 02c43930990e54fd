"""The files of a run's folder, by name."""

CONFIG, METRICS, RESULT, TRACE = "config.yaml", "metrics.jsonl", "result.json", "trace.json"

DATA = "data.json"
"""What the data are: names of the classes, sizes, and what shows whether they have changed."""

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""
