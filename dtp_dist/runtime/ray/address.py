"""Where ``RAY_ADDRESS`` points: looked at within seconds, for Ray itself tries for a quarter of an hour."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import ray

from dtp_dist.errors import ConfigError, StageError
from dtp_dist.text.numbers import short

ADDRESS = "RAY_ADDRESS"
SECONDS = 5.0
"""What one attempt to connect may take, and the first answer after it."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a gRPC client says first: HTTP/2's preface and no settings."""
_HEAD_BYTES, _SETTINGS = 9, 4

_SCHEMES = {
    "ray": "is a Ray Client address, whose driver is not on the cluster; submit the run with ray job submit",
    "http": "is a job server's address; give it to ray job submit, and unset it here",
}


def checked_address() -> str | None:
    """Return the cluster's address as it was given, None where a private Ray is to be started.

    Raises:
        ConfigError: it is none.
        StageError: no Ray answers there.
    """
    given = os.environ.get(ADDRESS, "").strip()
    if given in ("", "local"):
        return None
    said = f"{ADDRESS}={given}:"
    scheme = given.partition("://")[0].removesuffix("s") if "://" in given else ""
    if scheme:
        text = _SCHEMES.get(scheme, "is not the address of a cluster; write HOST:PORT or auto")
        raise ConfigError(f"{said} {text}")
    place = _found(said) if given == "auto" else given
    host, port = _host_and_port(said, place)
    wrong = _what_is_wrong(host, port)
    if wrong:
        where = "there" if place == given else f"at {place}"
        text = f"no Ray answers {where} ({wrong}); start the cluster or correct the address"
        raise StageError(f"{said} {text}, or unset it for a Ray of this run's own")
    return given


def _found(said: str) -> str:
    """Return the address of the Ray that runs on this machine, as Ray finds it."""
    find: Callable[[str], str | None] = ray._private.services.canonicalize_bootstrap_address
    try:
        found = find("auto")
    except (ConnectionError, OSError):
        found = None
    if not found:
        text = "no Ray runs on this machine; start one with ray start --head, write HOST:PORT, or unset it"
        raise StageError(f"{said} {text}")
    return found


def _host_and_port(said: str, place: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or place != parts.netloc:
        raise ConfigError(f"{said} is not the address of a cluster; write HOST:PORT or auto")
    return host, port


def _what_is_wrong(host: str, port: int) -> str:
    """Return why nobody who speaks gRPC answers at an address, "" if somebody does."""
    try:
        with socket.create_connection((host, port), SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return ""  # it waits for another first word
            connection.sendall(_HELLO)
            with connection.makefile("rb") as stream:
                head = stream.read(_HEAD_BYTES)
    except TimeoutError:
        return f"no answer within {short(SECONDS)} s"
    except OSError as error:
        return error.strerror or str(error)
    return "" if len(head) == _HEAD_BYTES and head[3] == _SETTINGS else "something else listens there"
