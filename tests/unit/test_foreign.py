"""Files of others: what is no file never hangs, and what is too large is refused before it is made."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dtp_dist.config import load_config
from dtp_dist.config.layers import MAX_LAYERS
from dtp_dist.data.files import read_idx
from dtp_dist.errors import ConfigError, DataError, StorageError
from dtp_dist.monitor.jsonl import MetricsLog
from dtp_dist.report import read_run
from dtp_dist.report.listing import find_runs
from dtp_dist.report.page import page
from dtp_dist.storage.run_dir import CONFIG, METRICS, RESULT, TRACE, open_run_dir
from dtp_dist.text.foreign import DEPTH, NODES, parse_json, parse_yaml, read_file
from dtp_dist.tune.space import read_space
from runs import small, write_config


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(here)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


PLANTS = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "socket": bind,
    "device": link_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "nothing": link_to("nowhere"),
    "endless": endless,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_what_is_no_readable_file_is_refused_at_once(tmp_path, plant):
    path = tmp_path / "it"
    plant(path)
    with pytest.raises(OSError, match=r"no regular file|more than|Too many levels|No such|device") as caught:
        read_file(path, 2**20)
    assert caught.value.strerror
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(path)
    with pytest.raises(ConfigError, match="can't be read"):
        read_space(path)
    with pytest.raises(DataError):
        read_idx(path, 1)


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
@pytest.mark.parametrize("name", [CONFIG, METRICS, RESULT, TRACE])
def test_a_run_with_anything_in_a_file_s_place_can_be_looked_at(tmp_path, name, plant):
    if name != CONFIG:
        write_config(tmp_path, small(), CONFIG)
    else:
        (tmp_path / METRICS).write_text('{"step": 1, "epoch": 1, "time": 0.1, "train_loss": 1.0}\n')
    plant(tmp_path / name)
    run = read_run(tmp_path)
    assert run.state != "no run"
    assert page([run]).endswith("</html>\n")
    assert run.config == {} or name != CONFIG
    assert len(find_runs(tmp_path)) == 1
    if name == CONFIG:
        with pytest.raises(ConfigError):
            open_run_dir(tmp_path, allow_code=False)


@pytest.mark.parametrize("plant", ["pipe", "folder", "socket", "device", "loop"])
def test_metrics_are_appended_to_a_file_alone(tmp_path, plant):
    PLANTS[plant](tmp_path / METRICS)
    with pytest.raises(StorageError, match=r"metrics.jsonl: can't be written \(.*\)"):
        MetricsLog(tmp_path / METRICS)


def test_metrics_do_not_go_where_a_planted_link_points(tmp_path):
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / METRICS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"can't be written \(Too many levels of symbolic links\)"):
        MetricsLog(tmp_path / METRICS)
    assert (tmp_path / "elsewhere").read_text() == "kept"


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 10)}]}}\n" for n in range(9)
)
LARGE = {
    "nested lists": "a: " + "[" * 100_000,
    "nested lists, whole": "a: " + "[" * 100_000 + "]" * 100_000,
    "nested sections": "{a: " * 100_000,
    "nested lines": "".join(" " * n + "a:\n" for n in range(1000)),
    "nested questions": "? " * 100_000,
    "just too deep": "a: " + "[" * DEPTH + "]" * DEPTH,
    "aliases": ALIASES,
    "merges": MERGES,
    "an alias of itself": "a: &a [*a]",
    "a merge of itself": "a: &a {<<: *a}",
    "values": "a: [" + "1," * NODES + "]",
    "a long number": "seed: " + "9" * 10_000,
    "a long hexadecimal number": "seed: 0x" + "f" * 10_000,
    "a long number to base 60": "seed: 1" + ":59" * 5_000,
    "a day that is none": "seed: !!timestamp x",
    "an empty number": "seed: !!int ''",
    "a flag that is none": "seed: !!bool x",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_text_that_stands_for_too_much_is_one_line(tmp_path, text):
    path = tmp_path / CONFIG
    path.write_text(text)
    (tmp_path / METRICS).write_text("")
    for read in (load_config, read_space, lambda path: open_run_dir(path.parent, allow_code=False)):
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert read_run(tmp_path).config == {}
    with pytest.raises(ConfigError, match="is no value"):
        load_config(small(), [f"data.options={text.replace('seed: ', '')}"])


def test_what_configurations_do_write_is_no_bomb():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 2},
        "c": [{"x": 1}] * 2,
    }
    assert parse_yaml("a: " + "[" * (DEPTH - 1) + "]" * (DEPTH - 1))["a"]


@pytest.mark.parametrize(("number", "at"), [(300_000_000, 0), (MAX_LAYERS, 1)])
def test_too_many_layers_are_one_line(number, at):
    raw = small()
    raw["model"]["layers"][at]["repeat"] = number
    with pytest.raises(
        ConfigError, match=rf"model.layers.\d.repeat: {number} makes more than {MAX_LAYERS}"
    ) as caught:
        load_config(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_of_many_layers_opens_again(tmp_path):
    from dtp_dist.config import to_yaml

    raw = small()
    raw["model"]["layers"][0]["repeat"] = 400
    config = load_config(raw)
    (tmp_path / CONFIG).write_text(to_yaml(config))
    assert open_run_dir(tmp_path, allow_code=False) == config


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[" * 60 + "]" * 60, "9" * 5000, b"\xff", "", "{"]
)
def test_json_that_is_none_or_too_deep_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def idx(*sizes: int, data: bytes = b"", code: int = 8) -> bytes:
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + data


HEADERS = [
    (idx(0, 28, 28), "its header has the sizes"),
    (idx(2**32 - 1, 2**32 - 1, 0), "its header has the sizes"),
    (idx(3, 0, 28), "its header has the sizes"),
    (idx(2**32 - 1, 2**32 - 1, 2**32 - 1), "bytes where its header calls for"),
    (idx(2, 2, 2, data=bytes(7)), "23 bytes where its header calls for 24"),
    (idx(2, 2, 2, data=bytes(9)), "25 bytes where its header calls for 24"),
    (idx(2, 2, data=bytes(4)), "no idx header of 3 dimensions"),
    (idx(2, 2, 2, data=bytes(8), code=9), "no idx header"),
    (idx(2, 2, 2)[:10], "no idx header"),
    (b"", "no idx header"),
]


@pytest.mark.parametrize(("data", "words"), HEADERS)
def test_an_idx_header_is_checked_against_the_file_before_anything_is_made(tmp_path, data, words):
    (tmp_path / "it").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_idx(tmp_path / "it", 3)


def test_an_idx_file_as_large_as_it_says_but_larger_than_any_is_refused(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(idx(2**20, 2**10, 2**10))
    with path.open("r+b") as file:
        file.truncate(16 + 2**40)
    with pytest.raises(DataError, match="damaged"):
        read_idx(path, 3)
