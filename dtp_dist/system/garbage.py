"""Python's garbage collector, and when it has nothing to find."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import without the collector, which later leaves out all that is there by then.

    It would walk through what torch makes again and again, when the process ends as well, and find nothing:
    what is imported stays. That takes a tenth of the time of the import.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
