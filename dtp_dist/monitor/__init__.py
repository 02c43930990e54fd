"""What a run writes and shows while it continues, and the trace it leaves."""

from dtp_dist.monitor.base import Epoch, Line, Monitor, Monitors, Start
from dtp_dist.monitor.collector import Collector
from dtp_dist.monitor.guest import Guest, guests
from dtp_dist.monitor.jsonl import MetricsLog
from dtp_dist.monitor.trace import write_trace

__all__ = [
    "Collector",
    "Epoch",
    "Guest",
    "Line",
    "MetricsLog",
    "Monitor",
    "Monitors",
    "Start",
    "guests",
    "write_trace",
]
