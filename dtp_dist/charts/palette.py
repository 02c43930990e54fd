"""The colours of all that is drawn: pages, pictures and traces show one thing in one colour."""

from __future__ import annotations

from collections.abc import Mapping

from dtp_dist.schedule import Activity

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, told apart with any colour vision; its yellow is too pale on white."""

DASHES = ("", "7 3", "2 3", "9 3 2 3")

COLOURS: Mapping[Activity, str] = {
    Activity.DATA: "#999999",
    Activity.FORWARD: "#0072b2",
    Activity.INVERSE: "#009e73",
    Activity.TARGET: "#e69f00",
    Activity.UPDATE: "#cc79a7",
    Activity.ALIGNMENT: "#56b4e9",
    Activity.OTHER: "#555555",
    Activity.WAIT_ACTIVATION: "#f4d8d0",
    Activity.WAIT_TARGET: "#e9b9a9",
    Activity.SEND_ACTIVATION: "#d9d9ea",
    Activity.SEND_TARGET: "#bfbfdc",
    Activity.IDLE: "#f2f2f2",
}
"""What a stage's time goes to: actions in full colours, waits in pale ones, and the rest."""

CHROME: Mapping[Activity, str] = {
    Activity.DATA: "generic_work",
    Activity.FORWARD: "rail_response",
    Activity.INVERSE: "rail_load",
    Activity.TARGET: "rail_idle",
    Activity.UPDATE: "thread_state_uninterruptible",
    Activity.ALIGNMENT: "thread_state_runnable",
    Activity.OTHER: "black",
}
"""chrome://tracing's names of the colours nearest to these; Perfetto has its own colours."""

ANGLES: Mapping[str, str] = {
    "update": COLOURS[Activity.UPDATE],
    "target": COLOURS[Activity.TARGET],
    "jacobian": COLOURS[Activity.INVERSE],
}
"""Angles between an action's result and backpropagation's have the colour of that action."""


def style(index: int) -> tuple[str, str]:
    """Return (colour, dash) of the line with a number, all different up to 28."""
    return PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]


def ramp(index: int, count: int) -> str:
    """Return a colour from dark blue over green to ochre, for things with an order, such as layers."""
    stops = ((68, 1, 84), (49, 104, 142), (53, 160, 120), (190, 160, 20))
    place = index / max(count - 1, 1) * (len(stops) - 1)
    lower = min(int(place), len(stops) - 2)
    part = place - lower
    mixed = (round(a + (b - a) * part) for a, b in zip(stops[lower], stops[lower + 1], strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def light(colour: str) -> bool:
    """Whether black letters are better read on a colour (#rrggbb) than white ones."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
