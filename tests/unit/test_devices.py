"""Devices: this machine's, or with Ray the cluster's, asked once; what is reserved never stays unused."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from typer.testing import CliRunner

import dtp_dist.runtime
from dtp_dist import train
from dtp_dist.cli.commands import app
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError, StageError
from dtp_dist.profiling.resolve import device_count, resolve
from dtp_dist.runtime import devices
from dtp_dist.runtime.devices import device_of, settled
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.ray import cluster, runtime
from dtp_dist.runtime.ray.runtime import RayRuntime, actor_name
from dtp_dist.tune import ray_tune
from runs import Absent, small, small_config, write_config

CPUS = {"CPU": 3.0, "memory": 1e9}
GPUS = {"CPU": 4.0, "GPU": 2.0}


def cluster_of_nodes(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> list[int]:
    """Let the cluster have these nodes; returns for how many CPUs a private Ray was asked."""
    asked: list[int] = []
    known = [{"Alive": True, "NodeID": str(number), "Resources": each} for number, each in enumerate(nodes)]
    lost = {"Alive": False, "NodeID": "lost", "Resources": {"GPU": 8.0, "CPU": 8.0}}
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [*known, lost])
    monkeypatch.setattr(cluster, "connect", lambda cpus, say=None: asked.append(cpus))
    return asked


def on_ray(*overrides: str) -> Config:
    return small_config("parallel.runtime=ray", *overrides)


@pytest.mark.parametrize(
    ("asked", "nodes", "due"),
    [
        ("auto", (CPUS, CPUS), "cpu"),
        ("auto", (CPUS, GPUS), "cuda"),
        ("cuda", (CPUS, GPUS), "cuda"),
        ("cpu", (CPUS, GPUS), "cpu"),
        ("auto", (CPUS, {"CPU": 4.0, "GPU": 0.5}), "cpu"),
    ],
)
def test_with_ray_devices_are_the_clusters_whatever_the_driver_has(monkeypatch, asked, nodes, due):
    needed = cluster_of_nodes(monkeypatch, *nodes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("the driver's torch was asked"))
    config = resolve(on_ray(f"parallel.device={asked}", "parallel.stages=2", "parallel.threads=3"))
    assert config.parallel.device == asked, "what is kept with the run is what was asked for"
    assert settled(config).parallel.device == due
    assert needed == [6]
    assert cluster.bundle(settled(config)) == ({"GPU": 1.0, "CPU": 1.0} if due == "cuda" else {"CPU": 3.0})


def test_a_gpu_of_a_cluster_without_one_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    cluster_of_nodes(monkeypatch, CPUS)
    config = on_ray("parallel.device=cuda", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=r"^parallel\.device: cuda is not available: the Ray cluster"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "nodes", "due"),
    [
        ((), (CPUS, CPUS), 6),
        (("parallel.threads=2",), (CPUS, CPUS), 2),
        ((), (CPUS, GPUS, GPUS), 4),
        (("parallel.device=cpu", "parallel.threads=2"), (CPUS, GPUS), 3),
        ((), ({"CPU": 1.0, "GPU": 4.0}, CPUS), 1),
    ],
)
def test_as_many_stages_as_the_cluster_has_devices(monkeypatch, overrides, nodes, due):
    assert cluster_of_nodes(monkeypatch, *nodes) == []
    assert device_count(on_ray("parallel.stages=auto", *overrides)) == due


def test_stages_of_a_cluster_are_counted_when_a_configuration_is_resolved(monkeypatch):
    needed = cluster_of_nodes(monkeypatch, {"CPU": 2.0}, GPUS)
    assert resolve(on_ray("parallel.stages=auto")).parallel.stages == 2
    assert set(needed) == {0}


def test_elsewhere_devices_are_this_machines(monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda cpus: pytest.fail("Ray is not asked"))
    config = small_config("parallel.runtime=local")
    assert settled(config) is config
    with pytest.raises(ConfigError, match="cuda is not available here"):
        resolve(small_config("parallel.device=cuda"))


class Recorder:
    """In the place of the actor's class."""

    def __init__(self) -> None:
        self.options_of: list[dict[str, Any]] = []

    def options(self, **options: Any) -> Recorder:
        self.options_of.append(options)
        return self

    def remote(self, *arguments: Any) -> Any:
        return Mock()


@pytest.mark.parametrize("generation", [0, 1])
def test_a_gpu_node_that_joins_while_stages_are_placed_changes_nothing(monkeypatch, generation):
    """What was reserved is what every actor asks for: another bundle is one that Ray can't schedule."""
    cluster_of_nodes(monkeypatch, CPUS)
    actors, reserved = Recorder(), []

    def reserve(_: Config, need: dict[str, float], *__: Any) -> object:
        reserved.append(dict(need))
        cluster_of_nodes(monkeypatch, CPUS, GPUS)
        return SimpleNamespace()

    def control(*_: Any) -> None:
        raise StageError("far enough")

    monkeypatch.setattr(cluster, "reserve", reserve)
    monkeypatch.setattr(runtime, "RayMetrics", lambda *arguments: None)
    monkeypatch.setattr(runtime, "_ACTOR", actors)
    monkeypatch.setattr(RayRuntime, "_control", control)
    config = settled(resolve(on_ray("parallel.stages=2")))
    with pytest.raises(StageError, match="far enough"):
        RayRuntime(config, lambda report: None, generation)
    assert reserved == [{"CPU": 1.0}]
    assert [(each["num_cpus"], each["num_gpus"]) for each in actors.options_of] == [(1.0, 0.0)] * 2
    names = [each["name"] for each in actors.options_of]
    assert names[0].startswith("dtp stage 0: layers 1-3 of small (")
    assert all(("restart 1" in name) == bool(generation) for name in names)


def test_a_run_that_began_on_gpus_waits_for_them_after_a_loss(monkeypatch):
    cluster_of_nodes(monkeypatch, CPUS, GPUS)
    config = settled(resolve(on_ray("parallel.stages=2")))
    cluster_of_nodes(monkeypatch, CPUS)
    assert cluster.bundle(config) == {"GPU": 1.0, "CPU": 1.0}


def test_stages_of_two_runs_in_one_job_have_names_of_their_own():
    layout = Layout((2, 1), 1)
    names = {actor_name("mnist", layout, stage, run, 0) for stage in (0, 1) for run in (b"a" * 16, b"b" * 16)}
    assert len(names) == 4
    assert "dtp stage 0: layers 1-2 of mnist (61616161)" in names


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update"),
            "(The NVIDIA driver on your system is too old (found version 11040))",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), "(Torch not compiled with CUDA enabled)"),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel"),
            "(CUDA error: no kernel image is available for execution on the device)",
        ),
    ],
)
def test_a_gpu_that_torch_can_not_use_is_no_cpu(monkeypatch, raised, said):
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(devices.torch, "zeros", fail)
    with pytest.raises(StageError) as error:
        device_of(small_config("parallel.device=cuda"), 1)
    assert str(error.value).startswith(f"torch can't use its GPU, cuda:0 {said}; install a driver")
    assert "parallel.device=cpu" in str(error.value)
    assert device_of(small_config("parallel.device=cpu"), 1) == torch.device("cpu")


def test_a_search_trains_on_the_gpus_that_it_reserves():
    """A trial whose GPU can't be used is to fail, so it is told to use one."""
    assert ray_tune.device_to_ask_for(small_config(), gpus=True) == "cuda"
    assert ray_tune.device_to_ask_for(small_config(), gpus=False) == "auto"
    assert ray_tune.device_to_ask_for(small_config("parallel.device=cpu"), gpus=True) == "cpu"


@pytest.fixture
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray and whatever imports it be as if they had never been imported, and not be there."""
    ours = ("dtp_dist.runtime.ray", "dtp_dist.tune.ray")
    for name in list(sys.modules):
        if name.partition(".")[0] == "ray" or name.startswith(ours):
            monkeypatch.delitem(sys.modules, name)
    for package, name in ((dtp_dist.runtime.ray, "cluster"), (dtp_dist.tune, "ray_tune")):
        monkeypatch.delattr(package, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent("ray"), *sys.meta_path])


@pytest.mark.usefixtures("_no_ray")
def test_without_ray_nothing_is_made_and_the_line_says_how_to_install_it(tmp_path):
    config = on_ray(f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError) as error:
        train(config)
    due = "parallel.runtime: ray needs Ray: pip install -e '.[ray]' in a checkout of dtp_dist (No module"
    assert str(error.value).startswith(due)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_ray")
def test_without_ray_a_search_leaves_no_folder(tmp_path):
    path = write_config(tmp_path, small())
    (tmp_path / "space.yaml").write_text("optimizer.forward.lr: {choice: [1.0e-3]}\n")
    call = ["tune", str(path), "--space", str(tmp_path / "space.yaml"), "--trials", "1"]
    done = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "search")])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("tune: needs Ray Tune: pip install")
    assert not (tmp_path / "search").exists()
