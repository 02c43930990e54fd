"""Configurations by name: those of the package from anywhere, files of the working directory before them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from setuptools import Distribution

from dtp_dist import load_config
from dtp_dist.errors import ConfigError
from dtp_dist.system.named import CONFIGS, SPACES, described, named_file, names
from runs import run_cli, small, the_line, write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_every_configuration_of_the_repository_is_reached_by_its_name():
    assert names() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    for name in names():
        assert load_config(name).name == name
        assert named_file(f"{name}.yaml") == named_file(name)


def test_a_wheel_has_them_all(monkeypatch):
    """As setuptools works out the files of the package from pyproject.toml."""
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files()
    assert distribution.packages is not None
    assert "dtp_dist" in distribution.packages
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}  # asking git or a manifest would write files here
    packed = set(map(Path, build.find_data_files("dtp_dist", "dtp_dist")))
    assert {Path("dtp_dist") / path for path in Path().glob("configs/**/*.yaml")} <= packed


def test_the_version_is_said_once():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert told["project"]["dynamic"] == ["version"]
    assert told["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dtp_dist.version.VERSION"}


def test_a_file_of_the_working_directory_comes_first(here):
    write_config(here, small(seed=5), "digits_dtp.yaml")
    assert load_config("digits_dtp").seed == 5
    write_config(here, small(seed=6), "digits_dtp")
    assert load_config("digits_dtp").seed == 6
    assert load_config("mnist_dtp_adam").seed == 0


@pytest.mark.usefixtures("here")
def test_a_name_with_a_folder_is_a_file_alone():
    with pytest.raises(ConfigError, match="can't be read"):
        load_config("here/digits_dtp.yaml")


@pytest.mark.parametrize(
    ("asked", "near"), [("digitz_dtp", "digits_dtp"), ("mnist_backprob.yaml", "mnist_backprop")]
)
@pytest.mark.usefixtures("here")
def test_an_unknown_name_is_an_error_with_the_nearest(asked, near):
    with pytest.raises(ConfigError) as caught:
        load_config(asked)
    assert str(caught.value).startswith(f"{asked}: there is no such file here")
    assert near in str(caught.value)


@pytest.mark.usefixtures("here")
def test_spaces_have_names_too():
    assert named_file("mnist_dtp", SPACES) == CONFIGS / "spaces" / "mnist_dtp.yaml"
    with pytest.raises(ConfigError, match="no space of that name"):
        named_file("digits_dtp", SPACES)


def test_code_of_an_override_is_looked_for_where_the_name_was_typed(here):
    (here / "my_own_data.py").write_text("def load(root):\n    return {}\n")
    assert load_config("mnist_backprop", ["data.name=my_own_data:load"]).code_dir == str(here)


@pytest.mark.slow
def test_the_list_has_every_name_with_what_it_is(here):
    found = dict(described())
    assert list(found) == names()
    assert found["shibuya2023_mnist"].endswith("(Shibuya et al. 2023, arXiv 2212.10352)")
    done = run_cli("config", "--list", cwd=here)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == names()
    assert str(CONFIGS.resolve()) in lines[-1]


@pytest.mark.slow
def test_commands_take_names_from_anywhere(here):
    done = run_cli("config", "digits_dtp", "train.epochs=3", cwd=here)
    assert yaml.safe_load(done.stdout)["train"]["epochs"] == 3
    done = run_cli("plan", "digits_dtp", "--quick", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    done = run_cli("train", "digits_dtp", "train.max_steps=2", "parallel.runtime=inprocess", "-q", cwd=here)
    assert done.returncode == 0, done.stderr
    assert [path.name.startswith("digits_dtp-") for path in (here / "runs").iterdir()] == [True]
    done = run_cli("train", "digits", cwd=here)
    assert done.returncode == 2
    assert "digits_dtp" in the_line(done)
    done = run_cli("tune", "digits_dtp", "--space", "mnist_dpt", "--trials", "1", cwd=here)
    assert done.returncode == 2
    assert "one of the package's: mnist_dtp" in the_line(done)
