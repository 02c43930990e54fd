"""Imports without the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dtp_dist.system.garbage import importing


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_the_collector_rests_meanwhile_and_leaves_out_what_was_made() -> None:
    gc.unfreeze()
    with importing():
        assert not gc.isenabled()
        made = [[] for _ in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_it_works_again_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), importing():
        import dtp_dist.nothing  # noqa: F401
    assert gc.isenabled()


def test_it_rests_until_the_outermost_import_is_done() -> None:
    with importing():
        with importing():
            pass
        assert not gc.isenabled()
