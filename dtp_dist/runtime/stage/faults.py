"""Faults injected by name, for tests and drills: fail in (stage, minibatch, action), as a real one would.

``DTP_DIST_FAULT="stage=1 minibatch=20 action=U do=kill"``; ``do`` is kill (SIGKILL), freeze (SIGSTOP), raise,
sleep, cut (the stage's links are lost for good, while it continues) or drop (one message that it sends is
lost). Several are separated by ``;``. A fault happens in the first generation of the stages, unless
``generation=1`` asks for the one after the first restart. Unset, nothing is injected and nothing is paid.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from dtp_dist.errors import ConfigError, LinkError
from dtp_dist.runtime.stage.executor import Links
from dtp_dist.schedule import Action, Kind

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
    elif deed in ("cut", "drop"):
        try:
            _cut(links) if deed == "cut" else _drop(links, action)
        except LinkError as error:
            raise ConfigError(f"{VARIABLE}: {error}") from None
    else:
        os.kill(os.getpid(), signal.SIGKILL if deed == "kill" else signal.SIGSTOP)


def _cut(links: Links) -> None:
    """Cut the connections; the stage's ends stay open."""
    for link in links.ends():
        link.cut()


def _drop(links: Links, action: Action) -> None:
    """Lose the message of this action."""
    link = {Kind.FORWARD: links.activation_out, Kind.TARGET: links.target_out}.get(action.kind)
    if link is None:
        raise ConfigError(f"{VARIABLE}: {action} sends no message that could be dropped")
    link.drop()
