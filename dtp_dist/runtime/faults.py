"""Faults injected by name, for tests and drills: fail in (stage, minibatch, action), as a real one would.

``DTP_DIST_FAULT="stage=1 minibatch=20 action=U do=kill"``; ``do`` is kill (SIGKILL), freeze (SIGSTOP), raise,
sleep, cut (the stage's links are lost for good, while it goes on) or drop (one message that it sends is
lost). Several are separated by ``;``. A fault happens in the first generation of the stages, unless
``generation=1`` asks for the one after the first restart. Unset, nothing is injected and nothing is paid.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

from dtp_dist.errors import ConfigError
from dtp_dist.messages import Message
from dtp_dist.runtime.executor import Links
from dtp_dist.schedule import Action, Kind
from dtp_dist.transport import SharedReceiver, SharedSender, ZmqReceiver, ZmqSender

VARIABLE = "DTP_DIST_FAULT"
DEEDS = ("kill", "freeze", "raise", "sleep", "cut", "drop")

Inject = Callable[[Action, Links], None]


def faults_from_environment(generation: int = 0) -> Inject | None:
    """Return what to call before every action, None where no fault is asked for in this generation.

    It is called with the action and the stage's own ends of its links.

    Raises:
        ConfigError: the variable can't be understood.
    """
    text = os.environ.get(VARIABLE, "")
    found = [_parse(part) for part in text.split(";") if part.strip()]
    faults = {where[1:]: deed for where, deed in found if where[0] == generation}
    if not faults:
        return None

    def inject(action: Action, links: Links) -> None:
        deed = faults.get((str(action.kind), action.stage, action.minibatch))
        if deed is not None:
            _do(deed, action, links)

    return inject


def _parse(text: str) -> tuple[tuple[int, str, int, int], str]:
    try:
        words = dict(word.split("=") for word in text.split())
        deed = words["do"]
        generation, stage, minibatch = (
            int(words.get(key, "0")) for key in ("generation", "stage", "minibatch")
        )
        where = (generation, words["action"], stage, minibatch)
    except (ValueError, KeyError):
        deed = ""
    if deed not in DEEDS:
        usage = f"stage=S minibatch=K action=F|I|T|U do={'|'.join(DEEDS)}"
        raise ConfigError(f"{VARIABLE}={text!r} is not understood; write {usage}")
    return where, deed


def _do(deed: str, action: Action, links: Links) -> None:
    if deed == "raise":
        raise RuntimeError(f"injected fault at {action}")
    if deed == "sleep":
        time.sleep(3600)
    elif deed == "cut":
        _cut(links)
    elif deed == "drop":
        _drop(links, action)
    else:
        os.kill(os.getpid(), signal.SIGKILL if deed == "kill" else signal.SIGSTOP)


def _cut(links: Links) -> None:
    """Cut the connections, and let ZeroMQ make no new ones; the stage's sockets stay open."""
    for link in (links.activation_in, links.activation_out, links.target_in, links.target_out):
        if isinstance(link, SharedSender | SharedReceiver):
            link._end.socket.shutdown(socket.SHUT_RDWR)
        elif isinstance(link, ZmqSender):
            link._end.socket.disconnect(link.endpoint)
        elif isinstance(link, ZmqReceiver):
            link._end.socket.unbind(link.endpoint)
        elif link is not None:
            raise ConfigError(f"{VARIABLE}: a link within one process can't be cut")


def _drop(links: Links, action: Action) -> None:
    """Lose the message of this action: it counts as sent, and its number with it."""
    link = {Kind.FORWARD: links.activation_out, Kind.TARGET: links.target_out}.get(action.kind)
    if not isinstance(link, SharedSender | ZmqSender):
        raise ConfigError(f"{VARIABLE}: {action} sends no message to another process that could be dropped")
    send, end = link._send, link._end

    def lose(message: Message) -> None:  # noqa: ARG001
        end.sequence += 1
        link._send = send  # type: ignore[method-assign]

    link._send = lose  # type: ignore[method-assign]
