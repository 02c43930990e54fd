"""Socket files of runs whose TMPDIR is too long for them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from dtp_dist import train
from dtp_dist.errors import ConfigError
from dtp_dist.profiling.links import measured_link
from dtp_dist.system import short_paths
from dtp_dist.system.short_paths import LIMIT, LINK_BYTES, RAY_BYTES, link_folder, ray_folder, short_place
from runs import LOCAL, small_config


def lay_out(folder: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> Path:
    """Make TMPDIR a folder whose path has ``size`` bytes."""
    place = folder / ("t" * (size - len(os.fsencode(folder)) - 1))
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert len(tempfile.gettempdir()) == size
    return place


@pytest.fixture
def short():
    """A place for temporary files that is short, beside the system's own."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as place:
        yield Path(place)


def test_the_longest_tmpdir_that_will_do_is_used(short, monkeypatch):
    place = lay_out(short, monkeypatch, LIMIT - LINK_BYTES)
    assert Path(link_folder()).parent == place


def test_a_longer_one_gives_way_to_a_short_place_for_this_user_alone(short, monkeypatch):
    lay_out(short, monkeypatch, LIMIT - LINK_BYTES + 1)
    monkeypatch.setattr(short_paths, "OTHERS", ("/nowhere", str(short)))
    folder = link_folder()
    assert Path(folder).parent == short
    assert len(os.fsencode(folder)) + len("/100-activation-1000") <= LIMIT


def test_where_no_place_will_do_it_is_one_line_at_once_and_the_advice_works(short, monkeypatch):
    lay_out(short, monkeypatch, 90)
    monkeypatch.setattr(short_paths, "OTHERS", ("/nowhere",))
    with pytest.raises(ConfigError, match=r"TMPDIR: .* set it to a folder of at most 61 bytes") as caught:
        train(small_config(*LOCAL, f"run_dir={short / 'run'}", "monitor.tensorboard=false"))
    assert "\n" not in str(caught.value)
    (short / "other").mkdir()
    lay_out(short / "other", monkeypatch, 61)
    assert short_place(LINK_BYTES) == tempfile.gettempdir()


@pytest.mark.slow
def test_a_run_and_its_links_measure_work_with_a_long_tmpdir(short, monkeypatch):
    """It ended after three useless restarts."""
    place = lay_out(short, monkeypatch, 100)
    measured_link(small_config(*LOCAL))
    for transport in ("shm", "ipc"):
        settings = [f"run_dir={short / transport}", "monitor.tensorboard=false", "train.max_steps=2"]
        result = train(small_config(*LOCAL, f"parallel.transport={transport}", *settings)).result
        assert (result["steps"], result["restarts"]) == (2, 0)
    assert list(place.glob("dtp-dist*")) == []


def test_ray_has_a_short_folder_of_this_user_alone(short, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    (short / "a").mkdir()
    lay_out(short / "a", monkeypatch, LIMIT - RAY_BYTES)
    assert ray_folder() is None
    (short / "b").mkdir()
    lay_out(short / "b", monkeypatch, LIMIT - RAY_BYTES + 1)
    monkeypatch.setattr(short_paths, "OTHERS", (str(short),))
    folder = ray_folder()
    assert folder == f"{short}/dtp-dist-ray-{os.getuid()}"
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert ray_folder() == folder
    os.chmod(folder, 0o770)
    with pytest.raises(ConfigError, match="is not a folder of yours alone; remove it"):
        ray_folder()
    os.rmdir(folder)
    assert ray_folder() == folder
    os.rmdir(folder)
    os.symlink(short, folder)
    with pytest.raises(ConfigError, match="is not a folder of yours alone"):
        ray_folder()
