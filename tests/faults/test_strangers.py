"""Strangers at a stage's port: whatever they send, the run goes on and ends with the same bits."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import zmq

import dtp_dist
from dtp_dist import load_config
from dtp_dist.schedule import Phase
from dtp_dist.transport.curve import client_security, new_key_pair
from dtp_dist.transport.messages import HEADER_BYTES, LinkIdentity, Message, MessageKind
from dtp_dist.transport.wire import encode
from runs import LOCAL, PATIENCE, LiveRun, read_result, wait_until, write_config

pytestmark = pytest.mark.slow
RUN = ("train.epochs=4", "train.checkpoint_every=20", "parallel.in_flight=2")
HELD = "stage=0 minibatch=45 action=F do=freeze; stage=1 minibatch=75 action=T do=freeze"
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.0 without encryption."""
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"
ENDLESS_FRAME = b"\x02" + (2**62).to_bytes(8, "big")
MEGABYTES = 100
"""After so many a stream that is not refused counts as taken; a stage's messages have 50 KB at most."""


def frames() -> list[bytes]:
    """Return HELLO and an activation as stage 0 would send them, of another run."""
    link = LinkIdentity(os.urandom(16), 0, MessageKind.ACTIVATION, sender=0, layer=3)
    labels = torch.zeros(40, dtype=torch.int64)
    payloads = (torch.zeros(40, 32), labels)
    activation = Message(MessageKind.ACTIVATION, Phase.BOTH, 0, 3, 45, payloads)
    messages = [Message.hello(link), activation]
    return [b"".join(map(bytes, encode(each, link, number))) for number, each in enumerate(messages)]


def push(port: int, configure: Callable[[Any], None] | None = None) -> None:
    """Send well-formed messages as ZeroMQ's own client does, with keys or without; none may be taken."""
    context: Any = zmq.Context(io_threads=1)
    with context, context.socket(zmq.PUSH) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.IMMEDIATE, 1)
        peer.setsockopt(zmq.SNDTIMEO, 500)
        if configure is not None:
            configure(peer)
        peer.connect(f"tcp://127.0.0.1:{port}")
        for frame in frames():
            with pytest.raises(zmq.Again):
                peer.send(frame)


def well_formed(port: int) -> None:
    push(port)


def with_other_keys(port: int) -> None:
    push(port, client_security(new_key_pair(), new_key_pair().public))


def say(port: int, *parts: bytes) -> int:
    """Send parts, and wait until the stage closes the connection; return how many could be sent."""
    sent = 0
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as peer,
        contextlib.suppress(ConnectionError),
    ):
        for part in parts:
            peer.sendall(part)
            sent += 1
        try:
            peer.shutdown(socket.SHUT_WR)
        except OSError as error:  # the stage was first, and its end is known here already
            if error.errno != errno.ENOTCONN:
                raise
        while peer.recv(1 << 16):
            pass
    return sent


def malformed(port: int) -> None:
    say(port, os.urandom(HEADER_BYTES))
    say(port, GREETING, READY, pickle.dumps(frames()))
    say(port, b"\x01\x00" + b"\x06\x00HELLO")  # ZMTP 1.0, which knows no keys
    say(port)


def endless(port: int) -> None:
    stream = [bytes(1 << 20)] * MEGABYTES
    for start in ((), (GREETING, READY, ENDLESS_FRAME)):
        assert say(port, *start, *stream) < MEGABYTES, "the connection is reset meanwhile"


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder)


def listening_port(process: psutil.Process) -> int:
    [port] = {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    return int(port)


def stage_processes(run: LiveRun) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in run.wait_for_event("started")["processes"]]


def test_strangers_change_nothing_and_do_not_stop_the_run(tmp_path, temporary):
    """One stage is held while the other, which waits for it, is attacked; then they change places."""
    config = write_config(tmp_path)
    dtp_dist.train(load_config(config, [f"run_dir={tmp_path / 'whole'}", "parallel.stages=2", *RUN]))
    patient = ("parallel.transport=tcp", f"parallel.failure_timeout={PATIENCE}")
    run = LiveRun(tmp_path, temporary, *LOCAL, *RUN, *patient, env={"DTP_DIST_FAULT": HELD})
    try:
        stages = stage_processes(run)
        for held, attacked in (stages, stages[::-1]):
            wait_until(lambda held=held: held.status() == psutil.STATUS_STOPPED, PATIENCE, lambda: "held")
            port, before = listening_port(attacked), attacked.memory_info().rss
            for stranger in (well_formed, with_other_keys, malformed, endless):
                stranger(port)
            assert attacked.memory_info().rss < before + (MEGABYTES << 20) / 4, "nothing was kept"
            held.resume()
        code, said = run.wait_for_end()
        assert (code, said) == (0, "")
        run.wait_for_nothing_left()
    finally:
        run.close()
    found, due = read_result(run.run_dir), read_result(tmp_path / "whole")
    assert found["weights_sha256"] == due["weights_sha256"]
    assert found["restarts"] == 0
