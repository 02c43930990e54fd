"""Every field of the configuration in words, from the schema itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from dtp_dist.algorithm.layers import KINDS, ModuleOptions
from dtp_dist.algorithm.numbers import SCHEDULES
from dtp_dist.algorithm.optimizers import OPTIMIZERS
from dtp_dist.algorithm.options import allowed
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config.schema import Config, ModelConfig, OptimizerConfig


def explain() -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, type and range, default, sentence) of every field, variants by their names."""
    for item in fields(Config):
        section = get_type_hints(Config)[item.name]
        if item.name in ("model", "rule", "optimizer") or not is_dataclass(section):
            continue
        yield from _section(section, item.name)
    yield from (_row(Config, item, "") for item in fields(Config) if item.name in ("name", "seed", "run_dir"))
    yield from _section(ModelConfig, "model")
    for kind, cls in {**KINDS, "package.module:function": ModuleOptions}.items():
        yield from _section(cls, f"model.layers[{kind}]")
    for name, cls in RULES.items():
        yield from _section(cls, f"rule[{name}]")
    yield from _section(OptimizerConfig, "optimizer")
    for name, cls in OPTIMIZERS.items():
        yield from _section(cls, f"optimizer.forward|inverse[{name}]")
    for name, cls in SCHEDULES.items():
        yield from _section(cls, f"any changing number[schedule: {name}]")


def _section(cls: Any, key: str) -> Iterator[tuple[str, str, str, str]]:
    hints = get_type_hints(cls)
    for item in fields(cls):
        nested = hints[item.name]
        if is_dataclass(nested):
            yield from _section(nested, f"{key}.{item.name}")
        else:
            yield _row(cls, item, key)


def _row(cls: Any, item: Field[Any], key: str) -> tuple[str, str, str, str]:
    limits = allowed(item.metadata)
    kind = _type_name(get_type_hints(cls)[item.name]) + (f", {limits}" if limits else "")
    return f"{key}.{item.name}".lstrip("."), kind, _default(item), str(item.metadata.get("doc", ""))


def _default(item: Field[Any]) -> str:
    if item.default is not MISSING:
        return "null" if item.default is None else str(item.default)
    return "(required)" if item.default_factory is MISSING else "{}"


def _type_name(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    for long, short in (
        ("typing.", ""),
        ("Literal['auto']", "auto"),
        ("None", "null"),
        ("dict[str, Any]", "section"),
    ):
        text = text.replace(long, short)
    return text.replace(" | ", " or ")
