"""Faults injected by name, for tests and drills: fail in (stage, minibatch, action), as a real one would.

``DTP_DIST_FAULT="stage=1 minibatch=20 action=U do=kill"``; ``do`` is kill (SIGKILL), freeze (SIGSTOP),
raise or sleep. Several are separated by ``;``. A fault happens in the first generation of the stages, unless
``generation=1`` asks for the one after the first restart. Unset, nothing is injected and nothing is paid.
"""

from __future__ import annotations

import os
import signal
import time

from dtp_dist.errors import ConfigError
from dtp_dist.runtime.executor import BeforeAction
from dtp_dist.schedule import Action

VARIABLE = "DTP_DIST_FAULT"
DEEDS = ("kill", "freeze", "raise", "sleep")


def faults_from_environment(generation: int = 0) -> BeforeAction | None:
    """Return what to call before every action, None where no fault is asked for in this generation.

    Raises:
        ConfigError: the variable can't be understood.
    """
    text = os.environ.get(VARIABLE, "")
    found = [_parse(part) for part in text.split(";") if part.strip()]
    faults = {where[1:]: deed for where, deed in found if where[0] == generation}
    if not faults:
        return None

    def before(action: Action) -> None:
        deed = faults.get((str(action.kind), action.stage, action.minibatch))
        if deed is not None:
            _do(deed, action)

    return before


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


def _do(deed: str, action: Action) -> None:
    if deed == "raise":
        raise RuntimeError(f"injected fault at {action}")
    if deed == "sleep":
        time.sleep(3600)
    os.kill(os.getpid(), signal.SIGKILL if deed == "kill" else signal.SIGSTOP)
