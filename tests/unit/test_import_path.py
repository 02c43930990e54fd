"""The folder of a configuration and the working directory are the last places that a module comes from."""

from __future__ import annotations

import os
import random
import re
import sys

import pytest

from beside import MINE, plant
from dtp_dist import import_path, load_config
from dtp_dist.errors import RangeError
from runs import run_cli, small

EVERYTHING = [entry for entry in sys.path if entry]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory that holds a script and, on the path, two folders of which one has a layer."""
    for name in ("work", "lib", "scripts"):
        (tmp_path / name).mkdir()
    (tmp_path / "work" / "mine_here.py").write_text(MINE)
    (tmp_path / "scripts" / "run.py").touch()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "scripts" / "run.py")])
    lib, scripts = str(tmp_path / "lib"), str(tmp_path / "scripts")
    monkeypatch.setattr(sys, "path", ["", scripts, str(tmp_path / "work"), lib, "."])
    return tmp_path


def test_the_command_line_takes_what_lies_near_off_the_path(place):
    import_path.settle()
    assert sys.path == [str(place / "lib")]
    import_path.admit()
    import_path.admit()
    assert sys.path == [str(place / "lib"), str(place / "work")]


def test_each_configuration_has_its_own_folder_before_the_working_directory_and_after_all_else(place):
    import_path.settle()
    work, lib, scripts = (str(place / name) for name in ("work", "lib", "scripts"))
    for folder, path in [(scripts, [lib, scripts, work]), (work, [lib, work]), (lib, [lib, work])]:
        import_path.admit(folder)
        assert sys.path == path
    sys.path.insert(0, work)  # by somebody else
    import_path.admit(scripts)
    assert sys.path == [work, lib, scripts]


def test_stages_have_what_lies_near_last(place):
    assert import_path.stage_path() == [str(place / name) for name in ("lib", "scripts", "work")]
    import_path.settle()
    assert import_path.stage_path() == [str(place / "lib")]


def test_a_stage_elsewhere_keeps_its_own_places_before_the_drivers(place):
    given = import_path.stage_path()
    sys.path[:] = [str(place / "work"), "/own", str(place / "lib")]
    import_path.take(given)
    assert sys.path == ["/own", *given]


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, None), ("", None), (":", None), (".", None), (":/a:", "/a"), ("WORK:/a:/b", "/a:/b")],
)
def test_stages_do_not_inherit_the_working_directory(place, monkeypatch, before, after):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before.replace("WORK", str(place / "work")))
    assert import_path.stage_environment().get("PYTHONPATH") == after
    assert import_path.stage_environment()["PATH"] == os.environ["PATH"]


def test_a_working_directory_that_was_removed_is_no_error(monkeypatch):
    monkeypatch.setattr(os, "getcwd", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(sys, "path", ["/a", "relative"])
    monkeypatch.setattr(sys, "argv", ["script.py"])
    import_path.settle()
    import_path.admit()
    assert sys.path == ["/a", "relative"] == import_path.stage_path()


def test_the_working_directory_is_admitted_for_a_layer_alone(place, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", *EVERYTHING])
    import_path.settle()
    load_config(small())
    assert str(place / "work") not in sys.path
    layers = [{"kind": "mine_here:layer"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    load_config(small(model={"input": [64], "layers": layers}))
    assert sys.path[-1] == str(place / "work")


@pytest.mark.parametrize("word", ["one", "two"])
def test_a_module_that_one_test_wrote_is_not_there_for_the_next(tmp_path, word):
    (tmp_path / "of_one_test.py").write_text(f"word = {word!r}")
    import_path.admit(str(tmp_path))
    assert import_path.imported("of_one_test:word", "name") == word


def failure(path: str) -> str:
    with pytest.raises(RangeError) as caught:
        import_path.imported(path, "name")
    assert caught.value.key == "name"
    return str(caught.value)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two folders of modules, of which none is on the path."""
    monkeypatch.setattr(sys, "path", list(EVERYTHING))
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin_of_two.py").write_text(f"place = {name!r}")
        (tmp_path / name / "random.py").write_text("raise RuntimeError")
        (tmp_path / name / "broken_of_two.py").write_text("import sys; sys.exit(3)")
    return tmp_path


def test_a_module_is_looked_for_in_its_folder_and_an_installed_one_comes_first(two):
    import_path.admit(str(two / "a"))
    assert import_path.imported("random:Random", "name") is random.Random
    assert import_path.imported("twin_of_two:place", "name") == "a"
    said = failure("random:layer")
    assert "has no attribute 'layer'" in said
    assert f"random.py) comes before {two / 'a' / 'random.py'}: give yours another name" in said


def test_a_module_of_a_name_that_another_folder_s_has_is_refused(two):
    for folder, words in [("a", ""), ("b", "already, so"), ("a", "")]:
        import_path.admit(str(two / folder))
        if words:
            said = failure("twin_of_two:place")
            assert f"has {two / 'a' / 'twin_of_two.py'} as twin_of_two {words} {two / 'b'}" in said
        else:
            assert import_path.imported("twin_of_two:place", "name") == "a"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "nowhere_at_all:f",
            r"No module named 'nowhere_at_all'\); it is looked for among .*, then in .*/a and",
        ),
        ("broken_of_two:f", r"\(SystemExit: 3\)$"),
        ("twin_of_two:f", r"has no attribute 'f'\)$"),
        (":f", "ValueError: Empty module name"),
        ("twin_of_two:", "has no attribute ''"),
        (".twin:f", "TypeError"),
    ],
)
def test_what_can_not_be_imported_says_why_and_where_it_is_looked_for(two, path, words):
    import_path.admit(str(two / "a"))
    assert re.search(words, failure(path)), failure(path)
    import_path.admit(str(two / "c"))
    assert f"then in {two / 'c'} (not there) and in {two}" in failure("nowhere_at_all:f")


@pytest.mark.slow
def test_no_file_of_the_working_directory_takes_the_place_of_a_module(tmp_path):
    """``random.py`` or ``profile.py`` beside the configuration broke every stage's process."""
    assert len(plant(tmp_path)) > 150
    done = run_cli("config", "--explain", cwd=tmp_path, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train.epochs" in done.stdout
