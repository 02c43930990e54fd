"""The transports between processes. Adding one is a file with its ends and its record, and its line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtp_dist.transport.base import Transport

__all__ = ["AUTO", "TRANSPORTS", "chosen_transport"]


class _Table(Mapping[str, "Transport"]):
    """Records by name; one is imported when it is asked for, for checking a configuration needs names alone.

    Args:
        places: ``MODULE:NAME`` of each record.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Transport:
        module, _, record = self._places[name].partition(":")
        found: Transport = getattr(import_module(module), record)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


AUTO = "auto"
TRANSPORTS = _Table(
    {
        "shm": "dtp_dist.transport.shared:SHM",
        "ipc": "dtp_dist.transport.zeromq:IPC",
        "tcp": "dtp_dist.transport.zeromq:TCP",
    }
)
"""By their names in a configuration, which are their schemes; ``auto`` takes the first that will do."""


def chosen_transport(asked: str, *, one_host: bool = True) -> Transport:
    """Return the transport that a configuration asks for, by its name or as ``auto``.

    ``one_host``: all stages are on this host; where they are not, ``auto`` takes one between hosts.
    """
    if asked != AUTO:
        return TRANSPORTS[asked]
    return next(each for each in TRANSPORTS.values() if each.available and (one_host or not each.in_folder))
