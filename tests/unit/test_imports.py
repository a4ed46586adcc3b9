"""Imports with the garbage collector off, and its state afterwards."""

from __future__ import annotations

import gc
import sys

import pytest

from renate_stages.processes import heavy_imports


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.unfreeze()
    gc.enable()


class Cycle:
    """A reference cycle, which only the garbage collector frees."""

    freed = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Cycle.freed += 1


@pytest.fixture(autouse=True)
def no_lightning(monkeypatch):
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)


def test_heavy_imports_leaves_the_collector_alone_once_lightning_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_lightning", sys)
    with heavy_imports():
        assert gc.isenabled()


def test_heavy_imports_turns_the_collector_off_and_freezes_imported_objects():
    gc.unfreeze()
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_garbage_from_before_heavy_imports_is_collected():
    gc.disable()  # so that nothing else frees the cycle
    Cycle()
    Cycle.freed = 0
    gc.enable()
    with heavy_imports():
        pass
    assert Cycle.freed == 1


def test_failed_import_turns_the_collector_on_again():
    with pytest.raises(ModuleNotFoundError), heavy_imports():
        import no_such_module  # noqa: F401  # pyright: ignore
    assert gc.isenabled()


def test_collector_that_was_off_before_heavy_imports_stays_off():
    gc.unfreeze()
    gc.disable()
    with heavy_imports():
        assert not gc.isenabled()
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0
