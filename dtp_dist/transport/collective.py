"""Payloads by ``torch.distributed``, from GPU to GPU, next to the host links that carry their headers.

A header goes over its host link as ever: numbered, checked, limited, held back while the receiver is behind.
Only with a header that is due in hand does the receiver, which knows each payload's dtype and shape by then,
make room for the payloads and receive them:

    groups = Groups("10.0.0.5:4711", stage=1, stages=3, ...)  # all stages at once, the host links are up
    sender.carrier = groups.carrier(sender.identity)          # likewise a receiver's

NCCL has no tags, and opposing sends on one communicator can wait for each other for ever: activations have a
process group of their own, and so have targets. A rank is a stage.

NCCL's sends and receives return at once and are ordered on the GPU's streams. One that does not end within
the groups' time limit, or whose peer dies, makes NCCL's watchdog end the process, which the driver sees; with
gloo, which takes CPU tensors and stands in for NCCL in tests, the wait itself ends, in LinkError.

This has not been run on GPUs.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dtp_dist.errors import LinkError
from dtp_dist.transport.messages import LinkIdentity, Message, MessageKind

__all__ = ["Carrier", "Groups", "Rendezvous"]


_stores: Any = dist  # which does not declare them


class Rendezvous:
    """A store at ``address``, there alone, through which groups come together; it ends with this object.

    ``place`` is its ``ADDRESS:PORT``. ``timeout``: seconds that anything asked of it may take.

    Raises:
        LinkError: it can't listen there.
    """

    def __init__(self, address: str, timeout: float) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, 0), family=family)
            port = listener.getsockname()[1]
            limit, descriptor = timedelta(seconds=timeout), listener.detach()
            self._store = _stores.TCPStore(
                address, port, None, True, limit, wait_for_workers=False, master_listen_fd=descriptor
            )
        except (OSError, RuntimeError) as error:
            raise LinkError(f"the process groups can't meet at {address}: {_line(error)}") from error
        self.place = f"{address}:{port}"


class Carrier:
    """Takes one link's payloads past the host; made by ``Groups.carrier``."""

    def __init__(
        self, identity: LinkIdentity, group: dist.ProcessGroup, peer: int, device: torch.device, limit: int
    ) -> None:
        self._identity, self._group, self._peer = identity, group, peer
        self._device, self._limit = device, limit
        self._under_way: deque[list[tuple[Any, Tensor]]] = deque()  # tensors must live until they are sent

    def send(self, message: Message) -> None:
        """Send the payloads of a message whose header is sent; waits while too many are under way.

        Raises LinkError if the peer is lost or takes too long.
        """
        with _explained(f"{self._identity}: payloads of minibatch {message.minibatch}"):
            while len(self._under_way) >= self._limit:
                for work, _ in self._under_way.popleft():
                    work.wait()
            tensors = [payload.detach().contiguous() for payload in message.payloads]
            self._under_way.append(
                [(dist.isend(tensor, self._peer, self._group), tensor) for tensor in tensors]
            )

    def receive(self, described: Message) -> Message:
        """Return the message whose header is here, its payloads fresh and contiguous on this end's device.

        Raises LinkError if the peer is lost or takes too long.
        """
        shapes = [(payload.shape, payload.dtype) for payload in described.payloads]
        tensors = tuple([torch.empty(shape, dtype=dtype, device=self._device) for shape, dtype in shapes])
        with _explained(f"{self._identity}: payloads of minibatch {described.minibatch}"):
            for tensor in tensors:
                dist.recv(tensor, self._peer, self._group)
        return replace(described, payloads=tensors)


class Groups:
    """This stage's membership of both groups: NCCL's for a CUDA device, gloo's for the CPU.

    All stages make theirs at the same time, in the thread that will send and receive.

    Args:
        rendezvous: the ``place`` of a ``Rendezvous``.
        name: keeps what is said there apart from what other runs say.
        start_timeout: the longest wait for the rendezvous, in seconds.
        timeout: the longest that one payload may take, in seconds.
        high_water: that many messages may be under way before a sender waits.

    Raises:
        LinkError: the rendezvous is not there, or the stages don't meet in time.
    """

    def __init__(
        self,
        rendezvous: str,
        *,
        stage: int,
        stages: int,
        device: torch.device,
        name: str,
        start_timeout: float,
        timeout: float,
        high_water: int,
    ) -> None:
        self._stage, self._stages, self._device, self._high_water = stage, stages, device, high_water
        address, _, port = rendezvous.rpartition(":")
        backend = "nccl" if device.type == "cuda" else "gloo"
        limit = timedelta(seconds=timeout)
        with _explained(f"stage {stage}: process groups of {backend} at {rendezvous}"):
            store = _stores.PrefixStore(
                name, _stores.TCPStore(address, int(port), timeout=timedelta(seconds=start_timeout))
            )
            dist.init_process_group(backend, store=store, rank=stage, world_size=stages, timeout=limit)
            self._groups: dict[MessageKind, Any] = {
                kind: dist.new_group(backend=backend, timeout=limit)
                for kind in (MessageKind.ACTIVATION, MessageKind.TARGET)
            }
            self._greet(MessageKind.ACTIVATION, from_stage=stage - 1, to_stage=stage + 1)
            self._greet(MessageKind.TARGET, from_stage=stage + 1, to_stage=stage - 1)

    def _greet(self, kind: MessageKind, from_stage: int, to_stage: int) -> None:
        """Pass a word from one end of the pipeline to the other.

        NCCL connects two stages when they first talk, and then even ``isend`` waits for the receiver: this
        way, and one direction after the other, nobody waits in a circle.
        """
        group, heard = self._groups[kind], torch.full((1,), -1, device=self._device)
        if 0 <= from_stage < self._stages:
            dist.recv(heard, from_stage, group)
            if heard.item() != from_stage:
                raise RuntimeError(f"heard stage {heard.item()}, expected stage {from_stage}")
        if 0 <= to_stage < self._stages:
            dist.send(torch.full((1,), self._stage, device=self._device), to_stage, group)

    def carrier(self, identity: LinkIdentity) -> Carrier:
        """Return what takes the payloads of this stage's end of a link."""
        peer = identity.receiver if identity.sender == self._stage else identity.sender
        return Carrier(identity, self._groups[identity.kind], peer, self._device, self._high_water)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LinkError(f"{what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
