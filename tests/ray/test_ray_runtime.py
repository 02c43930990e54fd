"""Ray actors as stages on a private Ray: the same bits, whatever is lost, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtp_dist import load_config, resume, train
from dtp_dist.config.batches import load_batches
from dtp_dist.runtime.ray.cluster import TOKENS
from dtp_dist.transport.messages import HEADER_BYTES
from runs import (
    EVERY_KIND,
    LiveRun,
    read_metrics,
    read_result,
    run_cli,
    small,
    small_config,
    the_line,
    write_config,
)

pytestmark = pytest.mark.slow
RUN = ("train.epochs=3", "train.checkpoint_every=20", "parallel.stages=2", "parallel.in_flight=2")
RAY = ("parallel.runtime=ray", "parallel.failure_timeout=6", "parallel.start_timeout=600")
START = 600.0
# A checkpoint is whole at the latest when the next one begins: that of step 20 is there at minibatch 45.
FAULTS = "stage=0 minibatch=45 action=I do=freeze;generation=1 stage=1 minibatch=70 action=U do=sleep"


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder)


def test_a_frozen_actor_is_replaced_and_a_killed_driver_takes_its_ray_along(tmp_path, temporary):
    """On a network with every kind of layer, under the local difference reconstruction loss.

    A process of the first stage's reads its minibatches ahead.
    """
    data = {"name": "digits", "batch_size": 40, "augment": ["random_vertical_flip"], "loaders": 1}
    config = write_config(tmp_path, small(model=EVERY_KIND, rule={"name": "ldrl"}, data=data))
    reference = train(load_config(config, [f"run_dir={tmp_path / 'whole'}", *RUN]))
    home = tmp_path / "home"
    home.mkdir()
    run = LiveRun(tmp_path, temporary, *RAY, *RUN, env={"DTP_DIST_FAULT": FAULTS, "HOME": str(home)})
    try:
        lost = run.wait_for_event("stage lost")
        assert "stage 0 was lost: no sign of life" in lost["message"]
        assert run.wait_for_event("recovered")["step"] >= 20
        names = {each.name() for each in run.stages()}
        assert {"raylet", "gcs_server"} <= names, "all of a private Ray is under the driver"
        (raylet,) = (each.environ() for each in run.stages() if each.name() == "raylet")
        assert (raylet["RAY_AUTH_MODE"], len(raylet["RAY_AUTH_TOKEN"])) == ("token", 64)
        assert not (home / ".ray").exists(), "the token is in no file"
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        run.wait_for_nothing_left()
    finally:
        run.close()
    resumed = resume(run.run_dir, ["parallel.runtime=inprocess"])
    assert resumed.result["weights_sha256"] == reference.result["weights_sha256"]
    events = [line["event"] for line in read_metrics(run.run_dir) if "event" in line]
    assert [name for name in events if name != "checkpoint"] == [
        *("started", "stage lost", "started", "recovered"),
        *("resumed", "started", "warning", "finished"),
    ]


def test_virtual_actors_send_as_much_as_real_stages_and_learn_nothing(tmp_path):
    config = write_config(tmp_path)
    two = ("parallel.stages=2", "parallel.in_flight=2", "train.evaluate_every=0", "train.max_steps=20")
    sent = {}
    for name, overrides in {"real": (), "virtual": (*RAY, "parallel.virtual_costs={F: 2}")}.items():
        done = run_cli("train", config, f"run_dir={tmp_path / name}", *two, *overrides, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        sent[name] = read_result(tmp_path / name)["messages_bytes"]
    result = read_result(tmp_path / "virtual")
    assert (result["virtual"], result["runtime"], result["weights_sha256"]) == (True, "ray", None)
    batches = load_batches(small_config())
    examples = sum(len(batches[split].examples) for split in ("valid", "test"))
    messages = batches["valid"].count + batches["test"].count
    evaluated = examples * (4 * 32 + 8) + messages * HEADER_BYTES
    assert sent["virtual"] == sent["real"] - evaluated, "no evaluation, and all else alike"


TWO_RUNS = """
import sys, threading
from dtp_dist import load_config, train

def go(number):
    config = load_config(sys.argv[1], [f"run_dir=run{number}", *sys.argv[2:]])
    found[number] = train(config).result["weights_sha256"]

found = {}
threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
go(2)  # Ray dies with the thread that started it, if that is one of the two
print(len(found), len(set(found.values())))
"""


def test_runs_in_threads_keep_apart_and_their_ray_needs_no_home_and_outlives_them(tmp_path):
    """As in Ray Tune's trials: one Ray, one namespace, and runs of one configuration."""
    config = write_config(tmp_path)
    one = ("parallel.runtime=ray", "train.max_steps=5", "monitor.tensorboard=false")
    done = subprocess.run(
        [sys.executable, "-c", TWO_RUNS, config, *one],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in ("HOME", *TOKENS)},
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["3 1"]), done.stderr


def test_a_ray_client_address_is_refused(tmp_path):
    config = write_config(tmp_path)
    actors = ("parallel.runtime=ray", f"run_dir={tmp_path / 'run'}")
    done = run_cli("train", config, *actors, cwd=tmp_path, env={"RAY_ADDRESS": "ray://127.0.0.1:10001"})
    assert done.returncode == 2
    assert "RAY_ADDRESS=ray://127.0.0.1:10001: is a Ray Client address" in the_line(done)
