"""Errors at the end of a command: what an interruption leaves is no defect."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress

import pytest

from renate_stages.errors import RenateStagesError
from renate_stages.training.guarded import Terminated, end_on_sigterm, guarded


@pytest.fixture
def handler():
    before = signal.getsignal(signal.SIGTERM)
    end_on_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_while_a_folder_is_removed_ends_the_command_without_a_traceback(
    handler, tmp_path, monkeypatch, capsys
):
    """In Python 3.11, `shutil.rmtree` then closes the descriptor again, which raises an error."""
    close = os.close

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        with suppress(IndexError):
            os.kill(os.getpid(), signals.pop())

    (tmp_path / "folder" / "inner").mkdir(parents=True)
    signals = [signal.SIGTERM]
    monkeypatch.setattr(os, "close", interrupted)
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: shutil.rmtree(tmp_path / "folder"))
    assert not signals and ended.value.code == 143
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("interruption", "code"), [(Terminated(143), 143), (KeyboardInterrupt, 130)]
)
def test_error_from_cleaning_up_after_an_interruption_is_not_reported(interruption, code, capsys):
    def work() -> None:
        try:
            raise interruption
        finally:
            try:
                raise OSError(9, "Bad file descriptor")
            except OSError as error:
                raise RenateStagesError("a wrapper of that error") from error

    with pytest.raises(SystemExit) as ended:
        guarded(work)
    assert ended.value.code == code
    assert capsys.readouterr() == ("", "")


def test_error_that_replaces_an_interruption_is_reported(capsys):
    def work() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RenateStagesError("the job runs on") from None

    with pytest.raises(SystemExit) as ended:
        guarded(work)
    assert ended.value.code == 2
    assert "the job runs on" in capsys.readouterr().err
