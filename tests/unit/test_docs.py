"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtp_dist.config.explain import as_markdown, explain
from dtp_dist.schedule import Phase, Schedule

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def test_the_configuration_reference_is_current():
    """If this fails: dtp-dist config --explain --markdown > docs/configuration.md."""
    assert (DOCS / "configuration.md").read_text() == as_markdown()


def test_the_configuration_reference_has_every_key():
    text = as_markdown()
    for key, _, _, doc in explain():
        assert f"`{key.rpartition('.')[2]}`" in text
        assert doc.replace("|", "\\|") in text


def test_the_drawings_of_schedules_are_what_the_command_prints():
    text = (DOCS / "concepts.md").read_text()
    found = re.findall(r"--stages (\d+) --minibatches (\d+) --in-flight (\d+)\n((?:stage .*\n)+)", text)
    assert len(found) == 2
    for stages, minibatches, in_flight, drawing in found:
        schedule = Schedule(int(stages), range(int(minibatches)), int(in_flight), Phase.BOTH)
        assert schedule.draw() == drawing.rstrip()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []
