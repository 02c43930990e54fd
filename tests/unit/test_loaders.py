"""Minibatches that processes read ahead: the same bits with any number of them, whatever happens to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from dtp_dist import load_config, resume, train
from dtp_dist.data import Batches, load, loaders
from dtp_dist.data.augmentation import Augmentation
from dtp_dist.data.loaders import read_ahead
from dtp_dist.errors import ConfigError, DataError
from own_data import NETWORK, pixels, write_folder
from runs import LOCAL, PATIENCE, LiveRun, read_result, small, wait_until, write_config

FLIP = ["random_horizontal_flip", {"random_crop": {"size": [4, 5], "padding": 1}}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos")


def batches(folder: Path) -> dict[str, Batches]:
    splits = load("image_folder", folder, cache="none")
    assert splits.valid is not None
    return {
        "train": Batches(splits.train, [3, 4, 5], 6, seed=1, augmentation=Augmentation(FLIP, 1)),
        "valid": Batches(splits.valid, [3, 4, 5], 2, shuffle=False),
    }


@pytest.fixture
def readers() -> Callable[[], list[psutil.Process]]:
    """What returns the processes that this one has started since."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [each for each in psutil.Process().children(recursive=True) if each not in before]


def gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any(map(alive, processes)), PATIENCE, lambda: "the loader processes end")


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


PLACES = [
    ("train", 0, 0),
    ("train", 0, 1),
    ("train", 0, 2),
    ("train", 0, 3),
    ("valid", 0, 0),
    ("train", 1, 0),  # on, after another split
    ("train", 1, 1),
    ("train", 0, 2),  # back, as after a restart
    ("train", 0, 3),
    ("train", 1, 0),
    ("valid", 0, 0),
    ("valid", 0, 0),
]


@pytest.mark.parametrize("count", [1, 3])
def test_minibatches_are_the_same_in_any_order_and_nothing_is_left(folder, count, readers):
    due, ahead = batches(folder), batches(folder)
    read = read_ahead(ahead, count)
    assert read is not None
    state = torch.get_rng_state()
    for split, epoch, index in PLACES:
        for one, other in zip(
            due[split].minibatch(epoch, index), ahead[split].minibatch(epoch, index), strict=True
        ):
            assert torch.equal(one, other), (split, epoch, index)
    assert torch.equal(state, torch.get_rng_state())
    processes = readers()
    assert len(processes) == count
    read.close()
    gone(processes)


def test_who_needs_none_has_none(folder):
    assert read_ahead(batches(folder), 0) is None
    held = load("image_folder", folder, cache="memory")
    assert read_ahead({"train": Batches(held.train, [3, 4, 5], 6)}, 2) is None


def test_a_process_that_may_start_none_reads_by_itself(folder):
    due = batches(folder)["train"].minibatch(1, 2)[0]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert torch.equal(torch.tensor(pool.apply(read_in_a_pool, (folder,))), due)


def read_in_a_pool(folder: Path) -> Any:
    ahead = batches(folder)
    read_ahead(ahead, 2)
    return ahead["train"].minibatch(1, 2)[0].tolist()


@pytest.mark.slow
def test_a_killed_loader_is_replaced_and_the_bits_are_the_same(folder, readers):
    due, ahead = batches(folder)["train"], batches(folder)
    read = read_ahead(ahead, 1)
    assert read is not None
    handler = signal.getsignal(signal.SIGCHLD)
    ahead["train"].minibatch(0, 0)
    (process,) = readers()
    process.send_signal(signal.SIGKILL)
    for epoch, index in [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]:
        assert torch.equal(ahead["train"].minibatch(epoch, index)[0], due.minibatch(epoch, index)[0])
    assert [each.pid for each in readers()] != [process.pid]
    assert signal.getsignal(signal.SIGCHLD) == handler
    read.close()


@pytest.mark.slow
def test_loaders_that_are_killed_again_and_again_end_it_with_advice(folder, readers, monkeypatch):
    monkeypatch.setattr(loaders, "ATTEMPTS", 1)  # each takes DataLoader five seconds to notice
    ahead = batches(folder)
    ahead["train"].augmentation = Deadly()  # type: ignore[assignment]
    read = read_ahead(ahead, 1)
    assert read is not None
    with pytest.raises(
        DataError, match=r"^data.loaders: minibatch 2 of train can't be read.*write data.loaders=0$"
    ):
        ahead["train"].minibatch(0, 2)
    assert not readers()


class Deadly:
    """What takes so much memory that the system kills who does it."""

    def __call__(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_sick_file_is_named_and_the_next_minibatch_can_be_read(folder):
    ahead = batches(folder)
    read = read_ahead(ahead, 2)
    assert read is not None
    (folder / "dog" / "3.png").write_bytes(b"no image")
    said = []
    for index in range(4):
        try:
            ahead["train"].minibatch(0, index)
        except DataError as error:
            said.append(str(error))
    assert len(said) == 1
    assert "dog/3.png, index " in said[0]
    assert "\n" not in said[0]
    read.close()


def test_what_reads_ends_with_whom_it_reads_for(folder):
    """Even if that one has no time to say so."""
    reading, told = os.pipe()
    pid = os.fork()
    if not pid:
        ahead = batches(folder)
        read_ahead(ahead, 2)
        ahead["train"].minibatch(0, 0)
        own = psutil.Process().children()
        os.write(told, b" ".join(str(each.pid).encode() for each in own))
        time.sleep(PATIENCE)
        os._exit(0)
    processes = [psutil.Process(int(each)) for each in os.read(reading, 100).split()]
    assert len(processes) == 2
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    gone(processes)


def config_of(folder: Path, *overrides: str) -> Any:
    data = {"name": "image_folder", "root": str(folder), "batch_size": 4, "cache": "none", "augment": FLIP}
    raw = small(model=NETWORK, data=data, monitor={"tensorboard": False})
    return load_config(raw, ["train.epochs=3", *overrides])


@pytest.mark.slow
@pytest.mark.usefixtures("warm_stages")
def test_a_run_has_the_same_bits_with_any_number_of_loaders_any_cache_and_after_a_resume(folder, tmp_path):
    def run(name: str, *overrides: str) -> Any:
        return train(config_of(folder, f"run_dir={tmp_path / name}", *overrides)).result

    due = run("due", "data.loaders=0")
    assert run("one", "data.loaders=1")["weights_sha256"] == due["weights_sha256"]
    assert run("memory", "data.cache=memory", "data.loaders=2")["weights_sha256"] == due["weights_sha256"]
    assert run("local", "data.loaders=2", *LOCAL)["weights_sha256"] == due["weights_sha256"]
    assert run("plain", "data.augment=[]")["weights_sha256"] != due["weights_sha256"]
    run("half", "data.loaders=2", "train.max_steps=9")
    again = resume(tmp_path / "half", ["train.max_steps=null", "data.loaders=1"]).result
    assert again["weights_sha256"] == due["weights_sha256"]
    assert 0.0 <= due["reading"] <= 1.0
    with pytest.raises(ConfigError, match=r"^data.augment: .*another experiment"):
        resume(tmp_path / "half", ["data.augment=[]"])


@pytest.mark.slow
def test_a_killed_stage_leaves_no_loader_and_the_run_recovers_the_same_bits(folder, tmp_path):
    due = train(config_of(folder, f"run_dir={tmp_path / 'due'}", "train.epochs=12")).result
    data = {"name": "image_folder", "root": str(folder), "batch_size": 4, "cache": "none", "augment": FLIP}
    write_config(tmp_path, small(model=NETWORK, data=data, monitor={"tensorboard": False}))
    fault = {"DTP_DIST_FAULT": "stage=0 minibatch=50 action=F do=freeze"}
    (tmp_path / "t").mkdir()
    live = LiveRun(tmp_path, tmp_path / "t", *LOCAL, "train.epochs=12", "data.loaders=1", env=fault)
    try:
        live.wait_for_event("checkpoint")
        (reader,) = (each for each in live.stages() if each.ppid() != live.process.pid)
        reader.parent().kill()
        assert live.wait_for_end() == (0, "")
        live.wait_for_nothing_left()
        assert live.events("recovered")
        assert not reader.is_running()
        assert read_result(live.run_dir)["weights_sha256"] == due["weights_sha256"]
    finally:
        live.close()


def test_normalization_by_given_numbers(tmp_path):
    root = tmp_path / "one"
    (root / "train" / "a").mkdir(parents=True)
    (root / "train" / "b").mkdir()
    for name in ("a", "b"):
        for index in range(3):
            Image.fromarray(pixels((2, 2, 3), index)).save(root / "train" / name / f"{index}.png")
    plain = load("image_folder", root).train
    given = load("image_folder", root, normalize=([0.1, 0.2, 0.3], [2.0])).train
    chosen = plain.rows.all()
    due = (plain.seen(chosen) - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 2.0
    assert torch.equal(given.seen(chosen), due)
    with pytest.raises(ConfigError, match=r"^data.normalize.deviation: \[1.0, 2.0\] are 2 .*3 channels"):
        load("image_folder", root, normalize=([0.0], [1.0, 2.0]))
