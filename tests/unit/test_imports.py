"""Imports with the garbage collector off: it is on again afterwards, whatever happened."""

from __future__ import annotations

import gc

import pytest

from renate_stages.processes import heavy_imports


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.unfreeze()
    gc.enable()


class Cycle:
    """Only the collector frees it."""

    freed = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Cycle.freed += 1


def test_the_collector_is_off_inside_and_leaves_alone_what_was_there():
    gc.unfreeze()
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_garbage_of_before_is_not_kept_for_ever():
    gc.disable()  # so that nothing else frees it
    Cycle()
    Cycle.freed = 0
    gc.enable()
    with heavy_imports():
        pass
    assert Cycle.freed == 1


def test_a_failed_import_turns_the_collector_on_again():
    with pytest.raises(ModuleNotFoundError), heavy_imports():
        import no_such_module  # noqa: F401  # pyright: ignore
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.unfreeze()
    gc.disable()
    with heavy_imports():
        assert not gc.isenabled()
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0
