"""Ray actors as stages, on a private Ray: the same bits, also after a stage was killed."""

from __future__ import annotations

import pytest

from runs import read_metrics, read_result, run_cli, the_line, write_config

pytestmark = pytest.mark.slow
RUN = ("train.epochs=3", "train.checkpoint_every=20", "parallel.stages=2", "parallel.in_flight=2")


def test_actors_end_with_the_same_bits_although_one_was_killed(tmp_path):
    config = write_config(tmp_path)
    reference = run_cli("train", config, f"run_dir={tmp_path / 'reference'}", *RUN, cwd=tmp_path)
    assert reference.returncode == 0, reference.stderr
    fault = {"DTP_DIST_FAULT": "stage=1 minibatch=70 action=U do=kill"}
    actors = ("parallel.runtime=ray", f"run_dir={tmp_path / 'actors'}")
    done = run_cli("train", config, *actors, *RUN, cwd=tmp_path, env=fault)
    assert done.returncode == 0, done.stderr
    found, due = read_result(tmp_path / "actors"), read_result(tmp_path / "reference")
    assert found["weights_sha256"] == due["weights_sha256"]
    assert (found["runtime"], found["restarts"], found["stages"]) == ("ray", 1, 2)
    events = [line["event"] for line in read_metrics(tmp_path / "actors") if "event" in line]
    assert events.count("started") == 2
    assert events[events.index("stage lost") :][1:3] == ["started", "recovered"]


def test_a_ray_client_address_is_refused(tmp_path):
    config = write_config(tmp_path)
    actors = ("parallel.runtime=ray", f"run_dir={tmp_path / 'run'}")
    done = run_cli("train", config, *actors, cwd=tmp_path, env={"RAY_ADDRESS": "ray://127.0.0.1:10001"})
    assert done.returncode == 2
    assert "RAY_ADDRESS=ray://127.0.0.1:10001: is a Ray Client address" in the_line(done)
