"""Process groups, gloo standing in for NCCL: there is no GPU where these tests run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq
from torch.distributed import TCPStore

from dtp_dist import load_config, train
from dtp_dist.errors import LinkError
from dtp_dist.runtime import processes
from dtp_dist.schedule import Phase
from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.collective import Groups, Rendezvous
from dtp_dist.transport.messages import LinkIdentity, Message
from links import DOWN, LIMITS, ON_ONE_HOST, START_TIMEOUT, UP, message, open_receiver, open_sender
from runs import small

WINDOWS = 3


def test_a_rendezvous_listens_at_its_address_alone():
    rendezvous = Rendezvous("127.0.0.1", 60.0)
    address, _, port = rendezvous.place.rpartition(":")
    socket.create_connection((address, int(port)), timeout=60.0).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port)), timeout=60.0)


def test_a_rendezvous_that_can_not_be_is_one_line():
    with pytest.raises(LinkError, match=r"^the process groups can't meet at 192\.0\.2\.1: .*$"):
        Rendezvous("192.0.2.1", 1.0)  # an address that is nobody's
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else's, and not listening
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LinkError, match=rf"^stage 1: process groups of gloo at {place}: .*$"):
            join(place, 1, start_timeout=0.5)


def join(place: str, stage: int, start_timeout: float = START_TIMEOUT, timeout: float = 60.0) -> Groups:
    return Groups(
        place,
        stage=stage,
        stages=2,
        device=torch.device("cpu"),
        name="test",
        start_timeout=start_timeout,
        timeout=timeout,
        high_water=LIMITS["high_water"],
    )


def linked(context: Any, folder: str, place: str, stage: int, timeout: float) -> tuple[Sender, Receiver]:
    """One of two stages with both its links; their headers go by different transports."""
    own, other = (UP, DOWN) if stage == 0 else (DOWN, UP)
    options: Any = LIMITS

    def endpoint(identity: LinkIdentity) -> str:
        scheme = "ipc" if identity is DOWN else ON_ONE_HOST[0]
        return f"{scheme}://{folder}/{identity.kind.name}"

    receiver = open_receiver(endpoint(other), other, context, options)
    deadline = time.monotonic() + START_TIMEOUT
    while not Path(folder, own.kind.name).exists():  # the runtime lets all stages bind before any connects
        assert time.monotonic() < deadline, "the other process has not come"
        time.sleep(0.01)
    sender = open_sender(endpoint(own), own, context, options)
    while True:
        try:
            sender.connect(START_TIMEOUT)
            break
        except LinkError:  # it has bound its socket, and does not listen yet
            assert time.monotonic() < deadline, "the other process does not listen"
            time.sleep(0.01)
    receiver.accept(START_TIMEOUT)
    groups = join(place, stage, timeout=timeout)
    for end in (sender, receiver):
        end.carrier = groups.carrier(end.identity)
    return sender, receiver


def exchange(sender: Sender, receiver: Receiver) -> None:
    """Send as many messages as may be unread before reading as many, again and again, both ends alike."""
    size = LIMITS["high_water"]
    for start in range(0, WINDOWS * size, size):
        for minibatch in range(start, start + size):
            sender.send(message(sender.identity, minibatch))
        for minibatch in range(start, start + size):
            got, expected = receiver.receive(minibatch, Phase.BOTH), message(receiver.identity, minibatch)
            for mine, theirs in zip(got.payloads, expected.payloads, strict=True):
                assert torch.equal(mine, theirs)
                assert mine.dtype == theirs.dtype
                assert mine.is_contiguous()
    assert receiver.messages == sender.messages == WINDOWS * size
    assert sender.bytes_sent == WINDOWS * size * message(sender.identity, 0).nbytes


def part(context: Any, sender: Sender, receiver: Receiver) -> None:
    """Keep what is under way until the other stage has it, and says so over the hosts."""
    under_way, sender.carrier, receiver.carrier = sender.carrier, None, None
    sender.send(message(sender.identity, 99))
    receiver.receive(99, Phase.BOTH)
    del under_way
    sender.close()
    receiver.close()
    context.term()


class Lost:
    """A carrier that dies, or freezes, in place of sending."""

    def __init__(self, *, dies: bool) -> None:
        self._dies = dies

    def send(self, message: Message) -> None:
        if self._dies:
            os._exit(0)
        sys.stdin.read()  # until the test has seen enough


def watched(*names: str) -> dict[str, list[int]]:
    """Return lists that fill with the groups in which functions of ``torch.distributed`` are called."""
    used: dict[str, list[int]] = {name: [] for name in names}

    def watch(name: str, function: Any) -> Any:
        def call(tensor: torch.Tensor, peer: int, group: Any) -> Any:
            used[name].append(id(group))
            return function(tensor, peer, group)

        return call

    for name in names:
        setattr(torch.distributed, name, watch(name, getattr(torch.distributed, name)))
    return used


def run_process(folder: str, place: str, stage: int, what: str) -> None:
    context = zmq.Context(io_threads=1)
    timeout = 10.0 if what == "freezes" else 60.0
    sender, receiver = linked(context, folder, place, stage, timeout)
    if what == "exchange":
        used = watched("isend", "recv")
        exchange(sender, receiver)
        assert [len(set(groups)) for groups in used.values()] == [1, 1]
        assert not set(used["isend"]) & set(used["recv"]), "the directions share a communicator"
        part(context, sender, receiver)
    elif stage == 0:
        carrier: Any = Lost(dies=what == "dies")
        sender.carrier = carrier
        sender.send(message(UP, 0))
    else:
        start = time.monotonic()
        try:
            receiver.receive(0, Phase.BOTH)
        except LinkError as error:
            print(f"{time.monotonic() - start:.1f} {error}", flush=True)
    os._exit(0)  # the groups of a lost peer need not be left in order


@pytest.fixture
def two_processes(tmp_path):
    started: list[subprocess.Popen[str]] = []

    def start(what: str) -> list[subprocess.Popen[str]]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(Path(__file__).parents[level]) for level in (2, 1)),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        for stage in range(2):
            command = [sys.executable, __file__, str(tmp_path), rendezvous.place, str(stage), what]
            started.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
        return started

    rendezvous = Rendezvous("127.0.0.1", START_TIMEOUT)
    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_both_ends_send_large_messages_before_either_reads(two_processes):
    for process in two_processes("exchange"):
        process.wait(START_TIMEOUT)
        assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["dies", pytest.param("freezes", marks=pytest.mark.slow)])
def test_a_peer_that_is_lost_between_header_and_payloads_is_a_lost_link(two_processes, what):
    _, receiving = two_processes(what)
    assert receiving.stdout is not None
    said, _ = receiving.communicate(timeout=START_TIMEOUT)
    seconds, _, error = said.partition(" ")
    start = "activation link, stage 0 -> stage 1: payloads of minibatch 0: "
    assert error.startswith(start), said
    assert len(error.splitlines()) == 1
    assert ("Timed out" in error) == (what == "freezes")
    if what == "freezes":
        assert float(seconds) >= 9.0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "stage=1 minibatch=6 action=U do=kill"])
def test_stages_with_groups_end_with_the_same_bits(tmp_path, monkeypatch, fault):
    """Three processes whose driver takes CPUs for GPUs; when one is killed, all come back in new groups."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    size = ("parallel.stages=3", "parallel.in_flight=3", "train.max_steps=12", "train.checkpoint_every=4")
    reference = train(load_config(small(), [*size, f"run_dir={tmp_path / 'reference'}"])).result
    rendezvous = Rendezvous("127.0.0.1", START_TIMEOUT)
    monkeypatch.setattr(processes, "meeting_point", lambda bound: rendezvous.place)
    if fault:
        monkeypatch.setenv("DTP_DIST_FAULT", fault)
    local = ("parallel.runtime=local", f"run_dir={tmp_path / 'run'}")
    result = train(load_config(small(), [*size, *local])).result
    address, _, port = rendezvous.place.rpartition(":")
    met = TCPStore(address, int(port), is_master=False)
    assert met.num_keys() > 0, "no stage came to the rendezvous"
    for name in ("weights_sha256", "steps", "train_loss", "test_error"):
        assert result[name] == reference[name]
    assert result["restarts"] == (1 if fault else 0)
    if not fault:
        assert result["messages_bytes"] == reference["messages_bytes"]


if __name__ == "__main__":
    run_process(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
