"""Every field of the configuration in words, from the schema itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from dtp_dist.algorithm.layers import KINDS, ModuleOptions
from dtp_dist.algorithm.optimizers.kinds import OPTIMIZERS, ImportedOptions
from dtp_dist.algorithm.optimizers.schedules import SCHEDULES, Warmup
from dtp_dist.algorithm.rules import RULES
from dtp_dist.config.hints import allowed, hints_of, type_name
from dtp_dist.config.schema import Config, ModelConfig, OptimizerConfig
from dtp_dist.config.sections.data import Normalization


def explain() -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, type and range, default, sentence) of every field, variants by their names."""
    for item in fields(Config):
        section = get_type_hints(Config)[item.name]
        if item.name in ("model", "rule", "optimizer") or not is_dataclass(section):
            continue
        yield from _section(section, item.name)
    yield from _section(Normalization, "data.normalize")
    yield from (
        _row(Config, item, "")
        for item in fields(Config)
        if item.name in ("name", "compare", "seed", "code_dir", "run_dir")
    )
    yield from _section(ModelConfig, "model")
    for kind, cls in {**KINDS, "package.module:function": ModuleOptions}.items():
        yield from _section(cls, f"model.layers[{kind}]")
    for name, cls in RULES.items():
        yield from _section(cls, f"rule[{name}]")
    yield from _section(OptimizerConfig, "optimizer")
    for name, cls in {**OPTIMIZERS, "package.module:Class": ImportedOptions}.items():
        yield from _section(cls, f"optimizer.forward|inverse[{name}]")
    for name, cls in SCHEDULES.items():
        yield from _section(cls, f"any changing number[schedule: {name}]")
    yield from _section(Warmup, "any changing number.warmup")


def _section(cls: Any, key: str) -> Iterator[tuple[str, str, str, str]]:
    hints = hints_of(cls)
    for item in fields(cls):
        nested = hints[item.name]
        if is_dataclass(nested):
            yield from _section(nested, f"{key}.{item.name}")
        else:
            yield _row(cls, item, key)


def _row(cls: Any, item: Field[Any], key: str) -> tuple[str, str, str, str]:
    hint = hints_of(cls)[item.name]
    kind = ", ".join(filter(None, (type_name(hint), allowed(hint))))
    return f"{key}.{item.name}".lstrip("."), kind, _default(item), item.metadata["doc"]


def _default(item: Field[Any]) -> str:
    if item.default is not MISSING:
        return "null" if item.default is None else _written(item.default)
    return "(required)" if item.default_factory is MISSING else "{}"


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_markdown() -> str:
    """Return every field as a Markdown page, a table for each section."""
    sections: dict[str, list[str]] = {}
    for key, kind, default, doc in explain():
        place, _, name = key.rpartition(".")
        cells = (f"`{name}`", kind, "" if default == "(required)" else f"`{default}`", doc)
        row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        sections.setdefault(place, []).append(row)
    places: dict[tuple[str, ...], list[str]] = {}
    for place, rows in sections.items():
        places.setdefault(tuple(rows), []).append(place)
    parts = [_HEAD]
    for rows_of_all, names in places.items():
        name = names[0] if len(names) == 1 else re.sub(r"\[.*\]", "[any]", names[0])
        parts.append(f"\n## {f'`{name}`' if name else 'The run itself'}\n")
        parts += ["| key | type and range | default | meaning |", "|---|---|---|---|", *rows_of_all]
    return "\n".join(parts) + "\n"


_HEAD = """# Configuration

Every key, written from the schema by `dtp-dist config --explain --markdown`. A key without a default must
be given.

A configuration is YAML with the sections below. Any key can be set on the command line with its dotted name
(`train.epochs=3`, `optimizer.forward.lr=1e-3`); an unknown one is an error that names the nearest. Sections
with a name in brackets are variants: `rule[dtp]` holds the keys of `rule` where `rule.name` is `dtp`,
`model.layers[conv]` those of a layer of `kind: conv`.

`model.defaults` holds keys that all layers share unless they say otherwise, and `repeat: N` writes a layer
N times: both are written out when the configuration is read. A layer may have an `optimizer` of its own. A
number that changes over time (a learning rate, `sigma`) is a plain number or a section with a `schedule`,
such as `{schedule: cosine, start: 0.1, end: 0.0, length: 90, unit: epoch}`. `dtp-dist config CONFIG`
prints a file as it will run.

Layers are counted from 1, with `repeat` written out, in every message, in overrides and in references:
`model.layers.2.units=64` sets the second layer alone, even if it is one of several written with `repeat`, and
`model.layers.2.repeat=3` puts it there three times. Each override counts the layers as those before it left
them. Layers inside a layer are counted the same way: `model.layers.3.body.1.channels=64`. Stages are counted
from 0, as in `parallel.partition.0=2`."""
