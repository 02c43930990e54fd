"""RAY_ADDRESS: what is no cluster, and where nothing answers, is said at once and names what was given."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dtp_dist.errors import ConfigError, StageError
from dtp_dist.runtime.ray import address
from dtp_dist.runtime.ray.address import checked_address

SETTINGS = bytes((0, 0, 6, 4, 0, 0, 0, 0, 0)) + b"\0\4\0\1\0\0"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "SECONDS", 0.5)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def answer(server: socket.socket, said: bytes) -> None:
    """Answer the first who connects."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(said)
            connection.recv(1000)

    threading.Thread(target=serve, daemon=True).start()


def place(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("given", [None, "", "local"])
def test_without_an_address_there_is_a_private_ray(monkeypatch, given):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if given is not None:
        monkeypatch.setenv("RAY_ADDRESS", given)
    assert checked_address() is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ray://127.0.0.1:10001", "is a Ray Client address"),
        ("http://127.0.0.1:8265", "is a job server's address"),
        ("https://head:8265/", "is a job server's address"),
        ("anyscale://cluster", "is not the address of a cluster; write HOST:PORT or auto"),
        ("head", "is not the address of a cluster"),
        ("head:", "is not the address of a cluster"),
        (":6379", "is not the address of a cluster"),
        ("head:port", "is not the address of a cluster"),
        ("head:99999", "is not the address of a cluster"),
        ("head:6379/path", "is not the address of a cluster"),
        ("[::1:6379", "is not the address of a cluster"),
        ("session_2026-01-01_00-00-00_000000_1", "is not the address of a cluster"),
    ],
)
def test_what_is_no_clusters_address_is_refused(monkeypatch, given, said):
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(ConfigError) as error:
        checked_address()
    assert str(error.value).startswith(f"RAY_ADDRESS={given}: {said}")


def test_where_nothing_listens_the_line_names_what_was_given(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else's, and not listening
        given = place(silent)
        monkeypatch.setenv("RAY_ADDRESS", given)
        with pytest.raises(StageError) as error:
            checked_address()
    said = f"RAY_ADDRESS={given}: no Ray answers there (Connection refused); start the cluster"
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("or unset it for a Ray of this run's own")


def test_a_host_without_an_address_is_said(monkeypatch):
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:6379")
    with pytest.raises(StageError, match=r"^RAY_ADDRESS=nowhere:6379: no Ray answers there \(Name or serv"):
        checked_address()


@pytest.mark.parametrize(
    ("said", "due"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "something else listens there"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else listens there"),
        (b"", "no answer within 0.5 s"),
    ],
)
def test_what_listens_and_is_no_ray_is_told_apart(monkeypatch, listener, said, due):
    if said:
        answer(listener, said)
    monkeypatch.setenv("RAY_ADDRESS", place(listener))
    with pytest.raises(StageError, match=f"no Ray answers there \\({due}\\)"):
        checked_address()


def test_what_speaks_grpc_is_left_to_ray(monkeypatch, listener):
    answer(listener, SETTINGS)
    monkeypatch.setenv("RAY_ADDRESS", place(listener))
    assert checked_address() == place(listener)


def test_with_tls_it_is_enough_that_something_listens(monkeypatch, listener):
    monkeypatch.setenv("RAY_ADDRESS", place(listener))
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert checked_address() == place(listener)


def test_auto_is_the_ray_of_this_machine_or_said_to_be_none(monkeypatch, listener):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    services = address.ray._private.services

    def none(_: str) -> str:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", none)
    with pytest.raises(StageError, match=r"^RAY_ADDRESS=auto: no Ray runs on this machine; start"):
        checked_address()
    found = place(listener)
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: found)
    answer(listener, SETTINGS)
    assert checked_address() == "auto"
    listener.close()
    with pytest.raises(StageError, match=f"^RAY_ADDRESS=auto: no Ray answers at {found} "):
        checked_address()
