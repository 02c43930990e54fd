"""The five ways to bring data, as docs/data.md shows them, each tried in an empty folder."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from dtp_dist.cli.commands import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
MOST_LINES = 15


class Block(NamedTuple):
    """A block of code: its language, the file that its first line names, and what is in it."""

    language: str
    file: str
    text: str

    @property
    def made_up(self) -> bool:
        """Whether it stands in place of what a user has."""
        return self.file.startswith("made up")

    @property
    def lines(self) -> int:
        return len([line for line in self.text.splitlines() if line.strip()])


def sections() -> dict[str, list[Block]]:
    """Return the blocks of each section of the page that has some."""
    found: dict[str, list[Block]] = {}
    for part in re.split(r"^##+ ", PAGE.read_text(), flags=re.M)[1:]:
        title = part.splitlines()[0]
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", part, re.M | re.S):
            first, _, rest = text.partition("\n")
            named = first.startswith("# ")
            block = Block(language, first[2:] if named else "", rest if named else text)
            found.setdefault(title, []).append(block)
    return found


class Table:
    """What stands for Hugging Face's ``Dataset`` where it is not installed: rows by name."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @classmethod
    def from_dict(cls, columns: dict[str, list[Any]]) -> Table:
        return cls(columns)

    def with_format(self, kind: str) -> Table:
        assert kind == "numpy"
        return self

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.columns.items()}


def try_in(folder: Path, blocks: list[Block]) -> list[dict[str, Any]]:
    """Do what a section says; return the results of all runs."""
    for block in blocks:
        if block.made_up:
            exec(compile(block.text, "made up", "exec"), {})
        elif block.file:
            (folder / block.file).write_text(block.text)
    for command in [line for block in blocks if block.language == "sh" for line in block.text.splitlines()]:
        program, *arguments = shlex.split(command)
        if program == "python":
            runpy.run_path(str(folder / arguments[0]))
        else:
            done = CliRunner().invoke(app, arguments, standalone_mode=False)
            assert done.exception is None, f"{command}: {done.exception!r}"
    return [json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


WAYS = [title for title in sections() if re.match(r"\d\. ", title)]


def test_there_are_five_ways():
    assert [title[:2] for title in WAYS] == ["1.", "2.", "3.", "4.", "5."]


@pytest.mark.slow
@pytest.mark.parametrize("title", WAYS)
def test_each_way_to_bring_data_works_from_an_empty_folder(empty, title):
    blocks = sections()[title]
    assert sum(block.lines for block in blocks if not block.made_up) <= MOST_LINES
    (result,) = try_in(empty, blocks)
    assert result["test_error"] is not None
    assert result["valid_error"] is not None
    assert result["test_error"] < 60.0, "it learns"


@pytest.mark.slow
def test_data_sets_of_hugging_face_go_through_a_function(empty, monkeypatch):
    if importlib.util.find_spec("datasets") is None:
        module = types.ModuleType("datasets")
        module.Dataset = Table  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)
    try_in(empty, [block for block in sections()["4. A function"] if block.language != "sh"])
    (result,) = try_in(empty, sections()["Hugging Face's data sets"])
    assert result["name"] == "hub"
    assert json.loads(next(empty.glob("runs/hub-*/data.json")).read_text())["classes"] == 4
