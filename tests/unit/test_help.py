"""What Python says of the package: ``help(dtp_dist)``, ``dir(dtp_dist)``, the signatures."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys

import pytest

import dtp_dist

FUNCTIONS = [name for name in dtp_dist.__all__ if inspect.isfunction(getattr(dtp_dist, name))]


@pytest.fixture(scope="module")
def shown() -> str:
    return pydoc.render_doc(dtp_dist, renderer=pydoc.plaintext)


def test_the_functions_are_those_that_one_looks_for():
    assert FUNCTIONS == ["evaluate", "export", "load_config", "predict", "resume", "train"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_shows_each_function_with_its_types_and_what_it_raises(shown, name):
    function = getattr(dtp_dist, name)
    signature = inspect.signature(function)
    assert f"{name}{signature}" in shown
    assert all(each.annotation is not each.empty for each in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    assert "Raises:" in inspect.getdoc(function)


@pytest.mark.parametrize("name", sorted(set(dtp_dist.__all__) - set(FUNCTIONS)))
def test_help_shows_each_class(shown, name):
    assert f"class {name}" in shown


def test_every_public_name_is_in_dir_before_it_is_used():
    code = "import dtp_dist, sys; print(*dir(dtp_dist)); print('torch' in sys.modules, dtp_dist.__version__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names, rest = done.stdout.splitlines()
    assert set(dtp_dist.__all__) < set(names.split())
    assert rest == f"False {dtp_dist.__version__}"


def test_an_unknown_name_is_none():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        dtp_dist.trian  # noqa: B018


def test_type_checkers_are_told_the_same_names():
    """They read the imports for types; the names come from elsewhere when they are used."""
    source = inspect.getsource(dtp_dist)
    for_types = source.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    told = {name.strip() for line in for_types.splitlines() if " import " in line
            for name in line.partition(" import ")[2].split(",")}  # fmt: skip
    assert told - {"Any"} == set(dtp_dist.__all__)
