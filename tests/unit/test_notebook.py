"""The notebook in docs/: what it shows runs, and nothing of an earlier run is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = DOCS / "first_steps.ipynb"
COLUMNS = 120
KEYS = {
    "markdown": {"cell_type", "id", "metadata", "source"},
    "code": {"cell_type", "execution_count", "id", "metadata", "outputs", "source"},
}
"""What a cell has in version 4.5 of the format."""


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    return found


def sources(notebook: dict[str, Any], kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_it_is_of_the_format_and_holds_no_output(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]{1,64}", each) for each in ids)
    for cell in notebook["cells"]:
        assert set(cell) == KEYS[cell["cell_type"]]
        assert cell["metadata"] == {}
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])


def test_its_text_fits_and_its_links_lead_somewhere(notebook):
    text = "\n".join(sources(notebook, "markdown"))
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (DOCS / target).exists(), target
    assert max(map(len, "\n".join([text, *sources(notebook, "code")]).splitlines())) <= COLUMNS


@pytest.mark.slow
def test_its_cells_run_in_order(notebook, tmp_path, monkeypatch, capsys):
    """In this process: a kernel of Jupyter's would only cost time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(sources(notebook, "code")):
        exec(compile(source, f"cell {number}", "exec"), space)
    space["plt"].close("all")
    assert space["result"]["test_error"] < 10
    assert len(space["errors"].lines) == len(space["inverses"].lines) == 3
    assert all(len(line.get_xdata()) == 20 for line in space["errors"].lines)
    printed = capsys.readouterr().out
    lines = ["".join(cell.split()) for cell in sources(notebook, "code") if "plain = nn.Sequential" in cell]
    layers = re.search(r"nn\.Sequential\((.*?)\n\)", printed, re.DOTALL)
    assert "".join(layers[1].split()) in lines[0], "the lines that export prints are those of the next cell"
