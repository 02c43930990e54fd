"""Standard output and error of a process that has more to do than to be seen.

A reader that goes away, a full disk and a terminal that is closed or halted are no reason to stop a run.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys

HALTED_SECONDS = 1.0
GONE = (errno.EPIPE, errno.EIO)


class Output(io.TextIOBase):
    """A text stream to a descriptor that is silent once nobody reads it any more.

    Args:
        descriptor: where the text goes.
        encoding: of the text; what it lacks is written as ``?``.

    Attributes:
        optional: what is written is for whoever looks, so it may be lost: no failure to write it is an
            error, and it does not wait for a reader that has stopped reading.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8", *, optional: bool = False) -> None:
        self.optional = optional
        self._descriptor, self._encoding = descriptor, encoding
        self._gone, self._halted = False, False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The name of the encoding."""
        return self._encoding

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is, whether somebody reads it or not."""
        return True

    def write(self, text: str) -> int:
        """Write the text at once.

        Raises:
            OSError: it can't be written, somebody may still read it, and it is not optional.
        """
        data = text.encode(self._encoding, errors="replace")
        try:
            while data and not self._gone and self._takes_more():
                data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
        except OSError as error:
            self._gone = True
            if not self.optional and error.errno not in GONE:
                raise OSError(error.errno, error.strerror, "standard output") from None
        return len(text)

    def _takes_more(self) -> bool:
        """Whether the next piece may be written; what is optional waits for a halted reader only once."""
        if self.optional:
            seconds = 0.0 if self._halted else HALTED_SECONDS
            self._halted = not select.select([], [self._descriptor], [], seconds)[1]
        return not self._halted


def take_output(*, optional: bool = False) -> None:
    """Put ``Output`` in the place of ``sys.stdout`` and ``sys.stderr``, of which the latter is optional.

    Closed descriptors become /dev/null: otherwise the next file that is opened would be the output.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    sys.stdout = Output(1, _encoding(sys.stdout), optional=optional)
    sys.stderr = Output(2, _encoding(sys.stderr), optional=True)


def _encoding(stream: object) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def make_optional() -> None:
    """Let standard output be for whoever looks, from now on."""
    if isinstance(sys.stdout, Output):
        sys.stdout.optional = True
