"""The kinds of fault of the soak: what each does to a run, and how the run has to take it.

Each is called with the run and the fault and returns when it happened and what came of it, in words. Words
in capitals are failures; all others are what has to happen.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from helpers.disturbed import RunOver
from helpers.soak_checkpoints import spoil
from helpers.victim import END_LIMIT, Victim

SLOW_FSYNC, COLD_IMPORT = 10, 15  # seconds


@dataclass(frozen=True)
class Fault:
    """What happens, to which stage where it is one stage's, once about that many minibatches are done."""

    kind: str
    stage: int
    minibatch: int


Happened = tuple[str, str]
Happen = Callable[[Victim, Fault], Happened]


def lose_a_stage(victim: Victim, fault: Fault) -> Happened:
    """kill, freeze, cut, cold restart: one stage is lost and the run goes on from its newest checkpoint."""
    early = alarm(victim)
    victim.expected += 1
    if fault.kind == "cut":
        victim.run.wait_for_event("stage lost")
        moment = f"minibatch {fault.minibatch}"
    else:
        victim.run.wait_for_step(fault.minibatch)
        moment = f"minibatch {victim.run.step}"
        if fault.kind == "cold restart":
            ask_for_cold_imports(victim, victim.rng.randint(1, len(victim.run.processes)))
        victim.run.signal(fault.stage, signal.SIGSTOP if fault.kind == "freeze" else signal.SIGKILL)
    victim.run.wait_until_back("recovered")
    return f"{moment}, stage {fault.stage}", early or alarm(victim) or unpaid(victim) or "recovered"


def kill_the_driver(victim: Victim, fault: Fault) -> Happened:
    """kill -9 of the driver, then ``resume``."""
    victim.run.wait_for_step(fault.minibatch)
    moment, left = f"minibatch {victim.run.step}", victim.kill()
    return moment, resumed(victim, left)


def stop(victim: Victim, fault: Fault) -> Happened:
    """SIGSTOP, and SIGCONT later: of all processes, or of the driver alone. Nobody is lost."""
    victim.run.wait_for_step(fault.minibatch)
    driver_alone = fault.kind == "stop driver"
    seconds = victim.rng.uniform(12, 20) if driver_alone else victim.rng.uniform(10, 25)
    moment = f"minibatch {victim.run.step}, {seconds:.0f} s"
    if victim.run.ended(0) is not None:
        raise RunOver(moment)
    stopped = [psutil.Process(victim.run.driver)] if driver_alone else victim.processes()
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number is signal.SIGSTOP:
            time.sleep(seconds)
    return moment, quiet(victim)


def slow_disk(victim: Victim, fault: Fault) -> Happened:
    """An fsync of the driver or of a stage takes 10 s. Nobody is lost."""
    victim.run.wait_for_step(fault.minibatch)
    who = victim.rng.choice(["driver", *range(len(victim.run.processes))])
    pid = victim.run.driver if who == "driver" else victim.run.processes[int(who)]
    moment = f"minibatch {victim.run.step}, {who if who == 'driver' else f'stage {who}'}"
    token = victim.tokens / f"fsync-{pid}"
    token.write_text(str(SLOW_FSYNC))
    end = time.monotonic() + END_LIMIT
    while token.exists() and time.monotonic() < end:
        if victim.run.ended(0.05) is not None:
            token.unlink(missing_ok=True)
            raise RunOver(moment)
    if token.exists():
        token.unlink()
        return moment, "NOT INJECTED: nothing was synced"
    time.sleep(SLOW_FSYNC)
    return moment, quiet(victim)


def cold_start(victim: Victim, fault: Fault) -> Happened:
    """``train`` or ``resume`` where some stages take 15 s to import torch. Nobody is lost."""
    moment, left = going_down(victim, fault)
    count = victim.rng.randint(1, 4)
    ask_for_cold_imports(victim, count)
    found = resumed(victim, left)
    problem = "" if found == "resumed" else found
    return f"{moment}, {count} cold", problem or alarm(victim) or unpaid(victim) or "started"


def storm_at_start(victim: Victim, fault: Fault) -> Happened:
    """Several signals within a second while it starts, then ``resume``."""
    moment, left = going_down(victim, fault)
    victim.launch()
    seconds = victim.rng.uniform(0, 8)
    time.sleep(seconds)
    sent = victim.storm()
    moment = f"{moment} + {seconds:.1f} s: {sent}"
    if victim.run.ended(END_LIMIT) is None:
        return moment, f"SWALLOWED: it went on for {END_LIMIT:g} s"
    victim.running = False
    return moment, resumed(victim, left or victim.left())


def storm_at_end(victim: Victim, fault: Fault) -> Happened:
    """Several signals within a second while it closes, then ``resume`` if it had not got to its end."""
    victim.run.wait_for_step(fault.minibatch)
    seconds = victim.rng.uniform(0, 0.5)
    time.sleep(seconds)
    moment = f"closing + {seconds:.1f} s: {victim.storm()}"
    if victim.run.ended(END_LIMIT) is None:
        return moment, f"SWALLOWED: it went on for {END_LIMIT:g} s"
    victim.running = False
    left = victim.left()
    if (victim.run.run_dir / "result.json").exists():
        return moment, f"LEFT BEHIND: {left}" if left else "had ended"
    return moment, resumed(victim, left)


def spoil_a_checkpoint(victim: Victim, fault: Fault) -> Happened:
    """kill -9 of the driver, a checkpoint swapped or edited, then ``resume``: an older one, or refused."""
    victim.run.wait_for_step(fault.minibatch)
    left = victim.kill()
    said, good, step = spoil(victim)
    moment = f"step {step}: {said}"
    victim.launch()
    try:
        start = int(victim.run.wait_for_event("resumed")[0]["step"])
    except RunOver:
        victim.running = False
        refused = victim.run.said()
        good.restore()
        found = resumed(victim, left)
        in_words = refused.startswith("error: ") and "(a bug" not in refused
        return moment, f"refused, {found}" if in_words else f"NOT SAID IN WORDS: {refused}"
    if start >= step:
        victim.kill()
        good.restore()
        again = resumed(victim, left)
        return moment, f"ACCEPTED AS IT WAS ({again} with the good one)"
    victim.run.wait_for_event("started")
    return moment, f"LEFT BEHIND: {left}" if left else "an older one served"


HAPPEN: dict[str, Happen] = {
    "kill": lose_a_stage,
    "freeze": lose_a_stage,
    "cut": lose_a_stage,
    "cold restart": lose_a_stage,
    "driver": kill_the_driver,
    "stop all": stop,
    "stop driver": stop,
    "slow disk": slow_disk,
    "cold start": cold_start,
    "storm at start": storm_at_start,
    "storm at end": storm_at_end,
    "checkpoint": spoil_a_checkpoint,
}
STARTING = ("cold start", "storm at start")


def going_down(victim: Victim, fault: Fault) -> Happened:
    """Kill the driver of a run that is under way, so that it starts again.

    Returns what it is then started with, and what is left of it.
    """
    if not victim.running:
        return "train", ""
    victim.run.wait_for_step(fault.minibatch)
    return f"resume at {victim.run.step}", victim.kill()


def ask_for_cold_imports(victim: Victim, count: int) -> None:
    """Let so many processes be slow to import torch."""
    for number in range(count):
        (victim.tokens / f"import-{number}").write_text(str(COLD_IMPORT))


def unpaid(victim: Victim) -> str:
    """Return what was asked for and did not happen."""
    tokens = sorted(victim.tokens.iterdir())
    for token in tokens:
        token.unlink(missing_ok=True)
    return f"NOT INJECTED: {len(tokens)} cold imports" if tokens else ""


def resumed(victim: Victim, left: str) -> str:
    """Go on with the run and return how that went."""
    refused = victim.resume()
    if refused:
        return f"NOT RESUMABLE: {refused}"
    return f"LEFT BEHIND: {left}" if left else alarm(victim) or "resumed"


def alarm(victim: Victim) -> str:
    """Return the false alarms since last asked."""
    found = victim.alarms()
    return f"FALSE ALARM: {found}" if found else ""


def quiet(victim: Victim) -> str:
    """Wait until the run goes on and return whether it took anyone for lost."""
    with suppress(RunOver):
        victim.run.wait_for_step(victim.run.step + 1)
    return alarm(victim) or "went on"
