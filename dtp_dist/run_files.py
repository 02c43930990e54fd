"""The files of a run's folder, by name."""

CONFIG, METRICS, RESULT, TRACE = "config.yaml", "metrics.jsonl", "result.json", "trace.json"
