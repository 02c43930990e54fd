"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_imports import PACKAGE, files_of, imported_parts

from dtp_dist.config.explain import as_markdown, explain
from dtp_dist.schedule import TWO_WAVES, Flow, Phase, Schedule, draw

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = ROOT / "README.md"
DOCUMENTS = sorted({README, ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"), *ROOT.glob("launch/**/*.md")})
CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))
PLAIN = {
    r"tells?|told": "write, report or show",
    r"(go|goes|going|gone|went) on": "continue or resume",
    r"beside": "next to",
    r"foresee\w*|foresaw": "predict",
    r"(not )?at hand": "available, or unavailable",
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_configuration_reference_is_current():
    """If this fails: dtp-dist config --explain --markdown > docs/configuration.md."""
    assert (DOCS / "configuration.md").read_text() == as_markdown()


def test_the_configuration_reference_has_every_key():
    text = as_markdown()
    for key, _, _, doc in explain():
        assert f"`{key.rpartition('.')[2]}`" in text
        assert doc.replace("|", "\\|") in text


@pytest.mark.parametrize(("page", "count"), [(DOCS / "concepts.md", 3), (README, 1)])
def test_the_drawings_of_schedules_are_what_the_command_prints(page, count):
    found = re.findall(
        r"--stages (\d+) --minibatches (\d+) --in-flight (\d+)( --one-wave)?\n((?:stage .*\n)+)",
        page.read_text(),
    )
    assert len(found) == count
    for stages, minibatches, in_flight, one_wave, drawing in found:
        flow = Flow(inverse_in="U", target_reads_forward=False) if one_wave else TWO_WAVES
        schedule = Schedule(int(stages), range(int(minibatches)), int(in_flight), Phase.BOTH, flow)
        assert draw(schedule.rows()) == drawing.rstrip()


def test_the_readme_draws_a_busy_pipeline():
    """More actions than dots, the filling and the draining included."""
    rows = [line.partition(" | ")[2].split() for line in README.read_text().splitlines() if " | F0" in line]
    rows += [line.split(" | ")[1].split() for line in README.read_text().splitlines() if " | ." in line]
    cells = [cell for row in rows for cell in row]
    assert cells.count(".") < len(cells) / 5


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_links_to_a_heading_lead_to_one(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        linked = (page.parent / target) if target else page
        heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_files_that_documents_name_are_there(page):
    named = re.findall(
        r"\b(?:dtp_dist|benchmarks|tests|configs|launch)/[\w/.-]*\w\.(?:py|yaml|sh)\b", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists() and "NAME" not in path] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_lines_of_documents_fit_120_columns(page):
    """But for rows of tables, which Markdown can't break."""
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", [*DOCUMENTS, *CONFIGS], ids=name)
def test_documents_use_the_words_of_the_field(page):
    """If this fails: the word to write instead stands in ``PLAIN``."""
    text = page.read_text()
    if page.suffix == ".yaml":
        text = "\n".join(line.partition("#")[2] for line in text.splitlines())
    used = [word for word in PLAIN if re.search(rf"\b({word})\b", text, re.IGNORECASE)]
    assert {word: PLAIN[word] for word in used} == {}


ARCHITECTURE = (DOCS / "architecture.md").read_text()


def section(title: str) -> str:
    return ARCHITECTURE.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.slow
def test_every_room_is_in_the_architecture_above_all_that_it_imports():
    listed = re.findall(r"^\| `(\w+)` \|", section("Rooms"), re.MULTILINE)
    assert set(listed) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    below_all = section("Rooms").partition("Beneath all rooms")[2]
    beneath = set(re.findall(r"`dtp_dist/([a-z]\w*)\.py`", below_all))
    for place, room in enumerate(listed):
        used = {other for path in files_of(room) for other in imported_parts(path)}
        assert used - beneath <= set(listed[place:]), room
    for module in beneath:
        assert {other for path in files_of(module) for other in imported_parts(path)} <= beneath, module


def test_a_minibatch_goes_through_at_most_eight_files_which_do_what_the_architecture_says():
    rows = re.findall(r"^\| (\d) \| `([\w/.]+)` \| (.*) \|$", section("A minibatch's way"), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert 4 < len(rows) <= 8
    for _, path, text in rows:
        code = (ROOT / path).read_text()
        for called in re.findall(r"`([\w.]+)`", text):
            for part in called.split("."):
                assert re.search(rf"\b(class|def) {part}\b", code), f"{path}: {called}"


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []
