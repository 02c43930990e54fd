"""Configuration: YAML with dotted overrides, checked against a typed schema before anything starts."""

from dtp_dist.config.check import label_bytes, most_label_bytes, shapes_of
from dtp_dist.config.load import load_config, parse_config, read_config, to_dict, to_yaml
from dtp_dist.config.schema import Config

__all__ = [
    "Config",
    "label_bytes",
    "load_config",
    "most_label_bytes",
    "parse_config",
    "read_config",
    "shapes_of",
    "to_dict",
    "to_yaml",
]
