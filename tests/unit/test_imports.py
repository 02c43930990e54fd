"""Imports point one way: the algorithm and the schedules know nothing of the rest."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import dtp_dist
from runs import write_config

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
    return frozenset(found | (named(path) if whole else set()))


def named(path: Path) -> set[str]:
    """Return the modules of the package that a file names in texts, ``MODULE:NAME``, to import them later."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    texts = {node.value.partition(":")[0] for node in nodes if isinstance(node.value, str)}
    return (texts & MODULES) - {"dtp_dist"}


def part_of(module: str) -> str:
    """Return the top-level part of a module of the package: ``dtp_dist.data.files`` is in ``data``."""
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
    assert "torch" in foreign(PACKAGE / "algorithm" / "stages" / "stage.py")
    assert "dtp_dist.algorithm.maps.base" in imports(PACKAGE / "algorithm" / "stages" / "stage.py")
    assert imported_parts(PACKAGE / "__init__.py", whole=False) == set()
    assert {"config", "training"} <= imported_parts(PACKAGE / "__init__.py")
    layout = imports(PACKAGE / "runtime" / "layout.py")
    assert "dtp_dist.schedule" in layout, "from dtp_dist import schedule"
    assert "dtp_dist.transport.zeromq" in imports(PACKAGE / "transport" / "table.py"), "named in a text"


@pytest.mark.parametrize("path", files_of("algorithm"), ids=module_of)
def test_the_algorithm_knows_torch_and_itself_alone(path):
    """And the names of ranges, ``annotated_types``, which hold no code."""
    assert foreign(path) <= {"torch", "annotated_types"}
    assert imported_parts(path) <= {"errors", "flow", "import_path", "phase"}


@pytest.mark.parametrize("path", files_of("schedule"), ids=module_of)
def test_schedules_know_errors_phases_and_flows_alone(path):
    assert foreign(path) == set()
    assert imported_parts(path) <= {"errors", "flow", "phase"}


@pytest.mark.parametrize("part", ["errors", "flow", "phase"])
def test_what_everything_shares_knows_nothing(part):
    (path,) = files_of(part)
    assert foreign(path) == imported_parts(path) == set()


def test_what_finds_modules_imports_none_that_another_could_hide():
    (path,) = files_of("import_path")
    assert imports(path, whole=False) == {"os", "sys", "dtp_dist.errors"}


@pytest.mark.parametrize("path", files_of("planning"), ids=module_of)
def test_planning_does_not_know_who_runs_it(path):
    assert not imported_parts(path) & {"runtime", "profiling", "training", "cli", "monitor", "transport"}


@pytest.mark.parametrize("path", files_of("transport"), ids=module_of)
def test_messages_and_transports_know_no_runtime(path):
    assert imported_parts(path) <= {"errors", "schedule", "system", "text"}


@pytest.mark.parametrize("path", files_of("runtime"), ids=module_of)
def test_runtimes_do_not_know_who_composes_them(path):
    assert not imported_parts(path) & {"planning", "profiling", "training", "cli", "monitor"}


@pytest.mark.slow
def test_only_the_ray_runtime_and_the_search_import_ray():
    """In places whose names say so, which nothing imports that has to work without Ray."""
    users = {module_of(path) for path in FILES if "ray" in foreign(path)}
    assert all(name.startswith(("dtp_dist.runtime.ray.", "dtp_dist.tune.ray_")) for name in users), users
    assert {part_of(name) for name in users} == {"runtime", "tune"}


@pytest.mark.parametrize("path", files_of("report"), ids=module_of)
def test_the_report_needs_no_torch(path):
    """It reads what a run left, and is there at once."""
    assert foreign(path) <= {"rich"}
    assert imported_parts(path) <= {"charts", "errors", "schedule", "storage", "text"}


@pytest.mark.parametrize("part", ["tune", "compare"])
def test_nothing_but_the_command_line_knows_the_search_or_the_comparison(part):
    assert {part_of(module_of(path)) for path in FILES if part in imported_parts(path)} <= {"cli"}


def test_nothing_but_main_imports_the_command_line():
    assert {module_of(path) for path in FILES if "cli" in imported_parts(path)} <= {"dtp_dist.__main__"}


def in_circles(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return what is left of a graph once everything is gone that leads out of it."""
    done: set[str] = set()
    while ready := {each for each in graph.keys() - done if graph[each] <= done}:
        done |= ready
    return {each: graph[each] - done for each in graph.keys() - done}


def test_a_circle_is_found_where_it_is():
    assert in_circles({"a": {"b"}, "b": set(), "c": {"d", "b"}, "d": {"c"}}) == {"c": {"d"}, "d": {"c"}}


def test_no_room_imports_itself_in_a_circle():
    """Lazy imports and those for types included; the package's own file is its front door."""
    rooms = {part_of(module) for module in MODULES} - {"__init__"}
    graph = {
        room: {other for path in files_of(room) for other in imported_parts(path)} for room in sorted(rooms)
    }
    assert in_circles(graph) == {}


def test_no_module_imports_itself_in_a_circle():
    graph = {module_of(path): {*imports(path)} & MODULES - {module_of(path)} for path in FILES}
    assert in_circles(graph) == {}


SCRIPTS = sorted((PACKAGE.parent / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_benchmark_imports_is_there(path):
    """Nobody runs them when a name moves."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    for node in (each for each in nodes if str(each.module).split(".")[0] == "dtp_dist"):
        module = import_module(str(node.module))
        lacking = [alias.name for alias in node.names if not hasattr(module, alias.name)]
        assert not lacking, f"{node.module} has no {lacking}"


def test_no_room_is_crowded():
    counts = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > 12} == {}


@pytest.mark.parametrize("module", ["dtp_dist", "dtp_dist.runtime.local.process", "dtp_dist.schedule"])
def test_importing_does_not_import_torch(module):
    """A stage's process answers its parent before the seconds that torch takes to load."""
    code = f"import sys, {module}; print([name for name in ('torch', 'numpy', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def imported_with(*modules: str) -> set[str]:
    """Return all modules of the package that are imported at once with some, and these."""
    path_of, due, seen = {module_of(path): path for path in FILES}, list(modules), set()
    while due:
        if (module := due.pop()) not in seen:
            seen.add(module)
            due += [module.rpartition(".")[0]] * ("." in module)
            due += imports(path_of[module], whole=False) & MODULES
    return seen


def packages_of(modules: Iterable[str]) -> set[str]:
    """Return the packages that these modules of ours import at once."""
    path_of = {module_of(path): path for path in FILES}
    return {name.split(".")[0] for module in modules for name in imports(path_of[module], whole=False)}


def test_checking_a_configuration_imports_no_runtime():
    """Only measuring needs one, and it takes as long to import as all the rest but torch."""
    seen = imported_with("dtp_dist.profiling.resolve")
    assert "dtp_dist.config.schema" in seen
    assert not seen & {"dtp_dist.runtime.base", "dtp_dist.runtime.stage", "dtp_dist.profiling.measure"}


def test_the_command_config_imports_little():
    """It takes hardly longer than torch: no messages, and nothing that draws, resolves or stores."""
    seen = imported_with("dtp_dist.cli.commands", "dtp_dist.config.batches", "dtp_dist.profiling.resolve")
    assert not seen & {"dtp_dist.transport.base", "dtp_dist.transport.messages"}
    allowed = {"annotated_types", "numpy", "pydantic", "pydantic_core", "torch", "typer", "yaml"}
    assert packages_of(seen) - set(sys.stdlib_module_names) - {"dtp_dist"} <= allowed


TRAINING = """
import sys
from dtp_dist import load_config, train
for name in ("adam", "adamw", "sgd", "rmsprop", "centred_rmsprop", "muon", "soap", "'torch.optim:NAdam'"):
    both = [f"optimizer.{each}={{name: {name}, lr: 1.0e-3}}" for each in ("forward", "inverse")]
    short = ["train.max_steps=2", "train.evaluate_every=0", f"run_dir={name}"]
    train(load_config(sys.argv[1], [*both, *short]))
heavy = ("torch._dynamo", "sympy", "sklearn", "scipy", "tensorboard.summary", "fsspec", "absl", "matplotlib")
print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.slow
def test_training_imports_neither_the_compiler_of_torch_nor_scikit_learn(tmp_path):
    """Each takes as long to import as torch, in every stage's process and whenever one is replaced.

    Of TensorBoard only its messages are imported, not the plugins and what those need.
    """
    call = [sys.executable, "-c", TRAINING, write_config(tmp_path)]
    done = subprocess.run(call, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
