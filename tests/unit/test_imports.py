"""Imports point one way: the algorithm and the schedules know nothing of the rest."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import dtp_dist

PACKAGE = Path(dtp_dist.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(node: ast.AST, *, whole: bool) -> Iterator[ast.AST]:
    """Yield import statements; of the module's own level alone, at run time, unless ``whole``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif whole or not (typing_only(child) or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from walk(child, whole=whole)


@cache
def imports(path: Path, *, whole: bool = True) -> frozenset[str]:
    """Return the absolute names of the modules that a file imports."""
    found = set()
    for node in walk(ast.parse(path.read_text()), whole=whole):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            assert isinstance(node, ast.ImportFrom)
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & MODULES or {str(node.module)})
    return frozenset(found)


def part_of(module: str) -> str:
    """Return the top-level part of a module of the package: ``dtp_dist.runtime.local`` is in ``runtime``."""
    return [*module.split("."), "__init__"][1]


def imported_parts(path: Path, *, whole: bool = True) -> set[str]:
    own = {module for module in imports(path, whole=whole) if module.split(".")[0] == "dtp_dist"}
    return {part_of(module) for module in own} - {part_of(module_of(path))}


def foreign(path: Path) -> set[str]:
    roots = {module.split(".")[0] for module in imports(path)}
    return roots - set(sys.stdlib_module_names) - {"dtp_dist"}


def files_of(part: str) -> list[Path]:
    found = [path for path in FILES if part_of(module_of(path)) == part]
    assert found, f"there is no part {part}"
    return found


def test_the_scan_sees_what_is_there():
    assert "torch" in foreign(PACKAGE / "algorithm" / "stage.py")
    assert "dtp_dist.algorithm.maps" in imports(PACKAGE / "algorithm" / "stage.py")
    assert imported_parts(PACKAGE / "__init__.py", whole=False) == set()
    assert {"config", "trainer"} <= imported_parts(PACKAGE / "__init__.py")
    layout = imports(PACKAGE / "runtime" / "layout.py")
    assert "dtp_dist.schedule" in layout, "from dtp_dist import schedule"


@pytest.mark.parametrize("path", files_of("algorithm"), ids=module_of)
def test_the_algorithm_knows_torch_and_itself_alone(path):
    assert foreign(path) <= {"torch"}
    assert imported_parts(path) <= {"errors"}


@pytest.mark.parametrize("path", files_of("schedule"), ids=module_of)
def test_schedules_know_errors_alone(path):
    assert foreign(path) == set()
    assert imported_parts(path) <= {"errors"}


def test_errors_know_nothing():
    (path,) = files_of("errors")
    assert foreign(path) == imported_parts(path) == set()


@pytest.mark.parametrize("path", files_of("planning"), ids=module_of)
def test_planning_does_not_know_who_runs_it(path):
    assert not imported_parts(path) & {"runtime", "trainer", "cli", "monitor", "transport"}


@pytest.mark.parametrize(
    "path", files_of("messages") + files_of("wire") + files_of("transport"), ids=module_of
)
def test_messages_and_transports_know_no_runtime(path):
    assert imported_parts(path) <= {"errors", "schedule", "messages", "wire"}


@pytest.mark.parametrize("path", files_of("runtime"), ids=module_of)
def test_runtimes_do_not_know_who_composes_them(path):
    assert not imported_parts(path) & {"trainer", "cli", "monitor"}


def test_only_the_ray_runtime_and_the_search_import_ray():
    """In files whose names say so, which nothing imports that has to work without Ray."""
    users = {path for path in FILES if "ray" in foreign(path)}
    allowed = {path for part in ("runtime", "tune") for path in files_of(part) if path.name.startswith("ray")}
    assert users <= allowed
    assert {part_of(module_of(path)) for path in users} == {"runtime", "tune"}


@pytest.mark.parametrize("path", files_of("report"), ids=module_of)
def test_the_report_needs_no_torch(path):
    """It reads what a run left, and is there at once."""
    assert foreign(path) <= {"rich", "yaml"}
    assert imported_parts(path) <= {"errors", "flat", "run_files"}


def test_nothing_but_the_command_line_knows_the_search():
    assert {part_of(module_of(path)) for path in FILES if "tune" in imported_parts(path)} <= {"cli"}


def test_nothing_but_main_imports_the_command_line():
    assert {module_of(path) for path in FILES if "cli" in imported_parts(path)} <= {"dtp_dist.__main__"}


def edges(part: str) -> set[str]:
    return {other for path in files_of(part) for other in imported_parts(path, whole=False)}


def test_no_part_imports_itself_in_a_circle():
    parts = {part_of(module) for module in MODULES}
    graph = {part: edges(part) for part in parts}
    done: set[str] = set()
    while ready := {part for part in parts - done if graph[part] <= done}:
        done |= ready
    assert parts == done, f"in a circle: { {part: graph[part] - done for part in parts - done} }"


def test_no_module_imports_itself_in_a_circle():
    graph = {module_of(path): {*imports(path, whole=False)} & MODULES - {module_of(path)} for path in FILES}
    done: set[str] = set()
    while ready := {module for module in MODULES - done if graph[module] <= done}:
        done |= ready
    assert done == MODULES, f"in a circle: { {module: graph[module] - done for module in MODULES - done} }"


@pytest.mark.parametrize("module", ["dtp_dist", "dtp_dist.runtime.local_stage", "dtp_dist.schedule"])
def test_importing_does_not_import_torch(module):
    """A stage's process answers its parent before the seconds that torch takes to load."""
    code = f"import sys, {module}; print([name for name in ('torch', 'numpy', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
