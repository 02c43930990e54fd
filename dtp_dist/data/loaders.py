"""Reading minibatches ahead in processes of their own, where reading or augmenting them takes time.

Which ones there are never changes a bit: a minibatch is a function of (split, epoch, index).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dtp_dist.data.batches import Batches
from dtp_dist.errors import DataError, in_one_line
from dtp_dist.system.process import signal_with_parent

Array = NDArray[np.uint8 | np.float32]

TRAINING = "train"
MOST = 4
"""How many processes ``auto`` starts at most; more help a single stage of a network rarely."""
ATTEMPTS = 3
"""How often a minibatch is asked for whose reader is killed."""


class Which(NamedTuple):
    """Which minibatch of all."""

    split: str
    epoch: int
    number: int


class Sick(NamedTuple):
    """Why a minibatch could not be read."""

    text: str


class ReadAhead:
    """Processes that read the minibatches of some splits, in the order in which a run asks for them.

    They start with the first minibatch that is asked for, and end with this process if not before.

    Args:
        batches: by split.
        count: how many processes.
        pinned: whether minibatches are put into page-locked memory, from where a CUDA device copies them.
    """

    def __init__(self, batches: Mapping[str, Batches], count: int, *, pinned: bool = False) -> None:
        self._batches, self._count, self._pinned = batches, count, pinned
        self._order = _Order({split: each.count for split, each in batches.items()})
        self._loader: DataLoader[Any] | None = None
        self._coming: Iterator[Any] | None = None
        self._next: Which | None = None

    def stored(self, split: str, epoch: int, index: int) -> Tensor:
        """Return the rows of a minibatch, as ``Batches.stored`` does.

        Raises:
            DataError: an example can't be read; or the processes that should are killed again and again.
        """
        which = Which(split, epoch, index)
        for _ in range(ATTEMPTS):
            try:
                found = self._read(which)
            except (RuntimeError, EOFError, OSError) as error:  # a process is no more
                reason = str(error).partition("\n")[0] or type(error).__name__
                self.close()
                continue
            if isinstance(found, Sick):
                raise DataError(found.text)
            rows = torch.tensor(found)  # in memory of torch's own, as what any process reads
            return rows.pin_memory() if self._pinned else rows
        text = f"minibatch {index} of {split} can't be read, since its readers end ({reason})"
        raise DataError(f"data.loaders: {text}; if memory is short, write data.loaders=0")

    def _read(self, which: Which) -> Array | Sick:
        """Return the minibatch; from then on, others are read as they follow on it."""
        coming = self._coming if self._next == which and self._coming is not None else self._begin(which)
        found: Array | Sick = next(coming)
        self._next = self._order.after(which)
        return found

    def _begin(self, which: Which) -> Iterator[Any]:
        """Have minibatches read from ``which`` on."""
        self._order.start = which
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of more processes than cores, as was asked for
            if self._loader is None:
                self._loader = self._new_loader()
            if threading.current_thread() is not threading.main_thread():
                self._coming = iter(self._loader)
                return self._coming
            # DataLoader's handler would raise wherever this thread is by then; ``next`` finds out by itself.
            handler = signal.getsignal(signal.SIGCHLD)
            self._coming = iter(self._loader)
            signal.signal(signal.SIGCHLD, handler)
        return self._coming

    def _new_loader(self) -> DataLoader[Any]:
        return DataLoader(
            _Minibatches(self._batches),
            sampler=self._order,
            batch_size=None,
            num_workers=self._count,
            collate_fn=_as_it_is,
            persistent_workers=True,
            multiprocessing_context="fork" if sys.platform == "linux" else None,
            worker_init_fn=partial(_settle, os.getpid()),
            generator=torch.Generator(),  # the global one stays as it is
        )

    def close(self) -> None:
        """End the processes; another minibatch would start new ones."""
        self._coming = self._loader = self._next = None


def read_ahead(
    batches: Mapping[str, Batches], loaders: int | str, *, pinned: bool = False
) -> ReadAhead | None:
    """Let ``loaders`` processes read what takes time to read; None where nothing does, or none is wanted.

    ``auto`` is half of the cores, at least 1 and at most ``MOST``.
    """
    slow = {split: each for split, each in batches.items() if each.takes_time}
    count = max(1, min(MOST, _cores() // 2)) if isinstance(loaders, str) else loaders
    if not slow or not count or multiprocessing.current_process().daemon:  # which may start none
        return None
    ahead = ReadAhead(slow, count, pinned=pinned)
    for split, each in batches.items():
        each.reader = partial(ahead.stored, split) if split in slow else None
    return ahead


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Order(Sampler[Which]):
    """The minibatches from ``start`` on: those of all epochs of training, of one of another split."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts
        self.start: Which | None = None

    def __iter__(self) -> Iterator[Which]:
        which = self.start
        while which is not None:
            yield which
            which = self.after(which)

    def after(self, which: Which) -> Which | None:
        """Return the minibatch that comes next."""
        if which.number + 1 < self._counts[which.split]:
            return which._replace(number=which.number + 1)
        return Which(which.split, which.epoch + 1, 0) if which.split == TRAINING else None


class _Minibatches(Dataset[Array | Sick]):
    """What a process reads: the rows of a minibatch, or why they can't be read.

    Arrays travel in the pipe itself; tensors would by files that a killed process leaves behind.
    """

    def __init__(self, batches: Mapping[str, Batches]) -> None:
        self._batches = {split: each.alone() for split, each in batches.items()}

    def __getitem__(self, which: Which) -> Array | Sick:
        try:
            return self._batches[which.split].stored(which.epoch, which.number).numpy()
        except DataError as error:
            return Sick(str(error))
        except Exception as error:
            text = in_one_line(error)
            return Sick(f"minibatch {which.number} of {which.split} can't be read: {text}")


def _as_it_is(found: Any) -> Any:
    return found


def _settle(parent: int, _number: int) -> None:
    """Let a process end with the one that it reads for, and leave a terminal's signals to that one."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal_with_parent(parent, signal.SIGKILL)
