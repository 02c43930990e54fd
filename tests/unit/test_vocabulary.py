"""One word, one colour and one form for a thing, in all of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import dtp_dist
from dtp_dist.phase import Phase
from dtp_dist.schedule import Activity
from dtp_dist.text.numbers import error_rate, percent, short, whole

PACKAGE = Path(dtp_dist.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
PHASES = {str(phase) for phase in Phase}
WAITS = {str(activity).split()[0] for activity in Activity if activity.waits}


MACHINES = {
    "charts/svg.py": "coordinates",
    "planning/page.py": "coordinates",
    "monitor/jsonl.py": "what programs read",
    "text/numbers.py": "the one place",
    "tune/space.py": "the digits of a drawn setting",
}
"""Where numbers are written in a form of their own, and what they are."""

FORM = re.compile(r"[<>^]?[0-9]*,?(\.[0-9]+)?[ef%]|[0-9]*\.[0-9]+g|,")


def texts(node: ast.AST) -> set[str]:
    """Return the words that an expression is written with."""
    found = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return {value for value in found if isinstance(value, str)}


def judged_by(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Yield the line and the words of every comparison of a phase, and of every look at how a text begins."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and "phase" in ast.unparse(node).lower():
            yield node.lineno, texts(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".startswith"):
            yield node.lineno, {word for each in node.args for word in texts(each)}


def test_the_scan_finds_what_it_is_for():
    code = 'a = phase != "forward" and name.startswith(("wait", "send")) and side == "inverse"'
    words = [each for _, found in judged_by(ast.parse(code)) for each in sorted(found)]
    assert words == ["forward", "send", "wait"]


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (0.0, "0"),
        (12000.0, "12,000"),
        (0.05, "0.05"),
        (3e-6, "3e-6"),
        (1e6, "1e6"),
        (2.5e8, "2.5e8"),
        (-4.0, "-4"),
    ],
)
def test_numbers_are_short(value, due):
    assert short(value) == due


@pytest.mark.parametrize(
    ("form", "value", "due"),
    [
        (whole, 18849.7, "18,850"),
        (whole, 0.4, "0"),
        (error_rate, 2.0, "2.00"),
        (percent, 0.254, "25 %"),
        (partial(percent, digits=1), 0.254, "25.4 %"),
    ],
)
def test_counts_rates_and_shares_have_a_form_each(form, value, due):
    assert form(value) == due


def own_forms(tree: ast.AST) -> list[str]:
    """Return the forms in which a file writes numbers."""
    written = [each.format_spec for each in ast.walk(tree) if isinstance(each, ast.FormattedValue)]
    forms = ["".join(sorted(texts(each))) for each in written if each is not None]
    return [form for form in forms if FORM.fullmatch(form)]


def test_the_scan_finds_forms():
    code = 'f"{a:.2f} {b:,} {c:,.0f} {d:04d} {e:>8} {f!r:.3g} {g:g}"'
    assert own_forms(ast.parse(code)) == [".2f", ",", ",.0f", ".3g"]


@pytest.mark.slow
def test_people_read_numbers_in_the_forms_of_one_place():
    """The algorithm, which imports no text, and commands to paste say a setting as it was written: ``g``."""
    found = {str(path.relative_to(PACKAGE)): own_forms(ast.parse(path.read_text())) for path in FILES}
    assert {name for name, forms in found.items() if forms} == MACHINES.keys()


@pytest.mark.slow
def test_no_code_compares_phases_or_activities_with_strings():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {words & (PHASES | WAITS)}"
        for path in FILES
        for line, words in judged_by(ast.parse(path.read_text()))
        if words & (PHASES | WAITS)
    ]
    assert found == []
