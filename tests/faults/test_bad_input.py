"""Wrong configurations, folders and data on the command line: one line, the right code, nothing touched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dtp_dist import load_config, train
from runs import LOCAL, run_cli, small, the_line, write_config

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", "train.epoch: unknown key; did you mean epochs?"),
        ("parallel.in_flight=0", "parallel.in_flight: 0 is not allowed; it must be at least 1"),
        ("model.input=[63]", "model.input: [63] does not fit the [1, 8, 8] examples of digits; write [64]"),
        ("model.layers.5.units=12", "model.layers.5.units: the last layer has 12 outputs, but digits has 10"),
        ("nonsense", "an override is written key=value"),
    ],
)
def test_a_wrong_configuration_is_code_2_and_one_line(tmp_path, override, words):
    done = run_cli("train", write_config(tmp_path), override, "run_dir=run", cwd=tmp_path)
    assert done.returncode == 2
    assert words in the_line(done)
    assert not (tmp_path / "run").exists()


def test_a_user_module_that_does_not_import_is_code_2_and_names_the_layer(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind\n")
    layers = [{"kind": "broken:layer"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    config = write_config(tmp_path, small(model={"input": [64], "layers": layers}))
    done = run_cli("config", config, "--allow-code", cwd=tmp_path)
    assert done.returncode == 2
    assert "model.layers.1.kind: 'broken:layer' can't be imported" in the_line(done)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_run_directory_that_exists_is_refused_and_not_touched(tmp_path):
    config, run_dir = write_config(tmp_path), tmp_path / "run"
    train(load_config(config, [f"run_dir={run_dir}", "train.max_steps=2"]))
    before = digests(run_dir)
    done = run_cli("train", config, f"run_dir={run_dir}", *LOCAL, cwd=tmp_path)
    assert done.returncode == 2
    assert "exists and is not empty" in the_line(done)
    assert digests(run_dir) == before


def test_a_run_directory_that_can_not_be_made_is_code_1(tmp_path):
    (tmp_path / "file").touch()
    done = run_cli("train", write_config(tmp_path), "run_dir=file/run", cwd=tmp_path)
    assert done.returncode == 1
    assert "run_dir: file/run can't be made" in the_line(done)


NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def test_missing_data_without_a_network_is_code_1_and_names_the_data_that_needs_none(tmp_path):
    overrides = ("data.name=mnist", "data.root=empty", "model.input=[784]", "run_dir=run")
    done = run_cli(
        "train", write_config(tmp_path), *overrides, cwd=tmp_path, env={**NO_NETWORK, "no_proxy": ""}
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert "train-images-idx3-ubyte" in line
    assert "data.name=digits" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_fault_variable_that_is_not_understood_is_code_2(tmp_path):
    env = {"DTP_DIST_FAULT": "nonsense"}
    done = run_cli("train", write_config(tmp_path), "run_dir=run", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert "DTP_DIST_FAULT='nonsense' is not understood" in the_line(done)
