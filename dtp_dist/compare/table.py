"""What a comparison reached, rule by rule and seed by seed: on the screen, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from textwrap import wrap

from rich.table import Table
from rich.text import Text

from dtp_dist.compare.result import Comparison
from dtp_dist.config import to_dict
from dtp_dist.report.groups import Spread, spread
from dtp_dist.report.read import Run
from dtp_dist.report.settings import NONE, learning_rate
from dtp_dist.report.tables import seconds_of
from dtp_dist.text.measures import MEASURES
from dtp_dist.text.numbers import ranges, short, whole
from dtp_dist.text.printable import printable
from dtp_dist.trials.trial import Outcome

GAP = 2
HEAD = 14
"""Characters of a head's line on the screen."""

MARKDOWN, CSV = "table.md", "table.csv"
NOT_YET = "not yet"

Rows = list[list[str]]
"""Lines of a table, its head first."""


def by_rule(found: Comparison) -> Rows:
    """Return a line a rule, means with deviations; then its difference from the configuration's own rule."""
    measured = {f"{split}_{name}": MEASURES[name] for split, name in found.measured}
    heads = [f"{split} {MEASURES[name].titled}" for split, name in found.measured]
    forms = {key: measure.bare for key, measure in measured.items()} | {"train_loss": short}
    rows = [["rule", "learning rate", "runs", *heads, "train loss", "seconds"]]
    for rule in found.rules:
        done, every = found.done(rule), found.of(rule)
        rate = learning_rate(to_dict(every[0].trial.config)) or NONE
        figures = [_written(done.last(key), form) for key, form in forms.items()]
        seconds = _written(done.of(seconds_of), whole)
        rows.append([rule, rate, f"{len(done.runs)} of {len(every)}", *figures, seconds])
    for rule in found.rules[1:]:
        pairs = found.pairs(rule)
        if pairs:
            figures = [_written(_difference(pairs, key), form) for key, form in forms.items()]
            rows.append(
                [
                    f"{found.rules[0]} minus {rule}",
                    "",
                    f"{len(pairs)} pair{'s' * (len(pairs) > 1)}",
                    *figures,
                    "",
                ]
            )
    return rows


def _written(figure: Spread | None, form: Callable[[float], str]) -> str:
    return NONE if figure is None else figure.written(form)


def _difference(pairs: Sequence[tuple[Run, Run]], key: str) -> Spread | None:
    both = [(mine.last(key), other.last(key)) for mine, other in pairs]
    return spread([mine - other for mine, other in both if mine is not None and other is not None])


def by_seed(found: Comparison) -> Rows:
    """Return a line a seed, with what each rule reached; in words where it is not done."""
    whats = [f"{split} {MEASURES[name].titled}" for split, name in found.measured]
    heads = [f"{rule}: {what}" for rule in found.rules for what in whats]
    rows = [["seed", *heads]]
    outcomes = {(each.trial.values["rule"], each.trial.values["seed"]): each for each in found.outcomes}
    for seed in found.seeds:
        cells = (_reached(outcomes[rule, seed], found.measured) for rule in found.rules)
        rows.append([str(seed), *(cell for each in cells for cell in each)])
    return rows


def _reached(outcome: Outcome, measured: Sequence[tuple[str, str]]) -> Iterator[str]:
    for split, name in measured:
        value = outcome.run.last(f"{split}_{name}")
        if outcome.state == "done":
            yield NONE if value is None else MEASURES[name].bare(value)
        else:
            yield NOT_YET if outcome.state == "open" else outcome.state


def on_screen(rows: Rows, width: int) -> Table:
    """Return a table for a terminal of some columns; on a narrow one it leaves columns out."""
    lines = [[_head(cell) for cell in rows[0]], *([_cell(cell) for cell in row] for row in rows[1:])]
    columns = list(zip(rows[0], zip(*lines, strict=True), strict=True))
    for heads in _dropped(rows[0]):
        if sum(_width(column) + GAP for _, column in columns) <= width + GAP:
            break
        columns = [each for each in columns if each[0] not in heads]
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for number, (_, column) in enumerate(columns):
        table.add_column(column[0], justify="right" if number else "left", no_wrap=True)
    for row in list(zip(*(column for _, column in columns), strict=True))[1:]:
        table.add_row(*map(Text, row))
    return table


def _dropped(heads: Sequence[str]) -> list[list[str]]:
    """Return the columns that go together where the terminal is narrow, in order: the test errors stay."""
    minor = [measure.titled for measure in MEASURES.values() if not measure.chief]
    found = [head for head in heads if head.endswith(tuple(minor))]
    valid = [head for head in heads if ": valid " in head]
    return [["train loss"], ["learning rate"], ["seconds"], found, valid]


def _head(text: str) -> str:
    """Return the head of a column in lines, what is before a colon on its own."""
    parts = printable(text).split(": ")
    return ":\n".join("\n".join(wrap(part, HEAD, break_long_words=False)) for part in parts)


def _cell(text: str) -> str:
    return printable(text).replace(" minus ", "\nminus ")


def _width(column: Sequence[str]) -> int:
    return max(len(line) for cell in column for line in cell.split("\n"))


def as_markdown(found: Comparison, name: str) -> str:
    """Return the whole as a page of Markdown."""
    failed = [f"- {each.trial.name}: {each.message}" for each in found.outcomes if each.message]
    seeds = ranges(sorted(found.seeds))
    parts = [
        f"# {name}: {', '.join(found.rules)}",
        f"Mean ± standard deviation (of a sample) of the runs that are done, seeds {seeds}, each at its end. "
        "Seconds are those of runs that may have shared the machine.",
        _lines(by_rule(found)),
        _lines(by_seed(found)),
        *(["Failed:\n\n" + "\n".join(failed)] if failed else []),
    ]
    return printable("\n\n".join(parts) + "\n", keep="\n")


def _lines(rows: Rows) -> str:
    written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([written[0], "|---" * len(rows[0]) + "|", *written[1:]])


def as_csv(found: Comparison) -> bytes:
    """Return a row a run, and after those of a rule their ``mean`` and ``deviation`` in place of a seed."""
    figures = ["train_loss", *(f"{split}_{name}" for split, name in found.measured)]
    figures += ["seconds", "samples_per_second"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rule", "seed", "state", "epoch", "step", *figures, "weights_sha256", "message"])
    for rule in found.rules:
        for each in found.of(rule):
            run, seed = each.run, each.trial.values["seed"]
            at = [rule, seed, each.state, run.place("epoch"), run.place("step")]
            weights = run.result.get("weights_sha256")
            rows.writerow([*at, *(_value(run, name) for name in figures), weights, each.message])
        spreads = [found.done(rule).of(partial(_value, name=name)) for name in figures]
        for name in ("mean", "deviation"):
            rows.writerow([rule, name, "", "", "", *(getattr(each, name, None) for each in spreads), "", ""])
    return text.getvalue().encode()


def _value(run: Run, name: str) -> float | None:
    return seconds_of(run) if name == "seconds" else run.last(name)
