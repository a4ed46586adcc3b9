"""Full disk or memory: existing outputs stay intact, and the error says what to do."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_project import edit_params, quiet, run, snapshot

from renate_stages import errors, files
from renate_stages.errors import shortage
from renate_stages.stages import export
from renate_stages.training.guarded import guarded

FULL = Path("/dev/full")  # each write to it fails as on a full disk


def fill(path: Path) -> None:
    """Write more bytes than the limit allows."""
    path.write_bytes(bytes(100_000))


ZEROS = torch.zeros(100_000)  # made here: a forked process must not start OpenMP threads
WRITERS = {
    "Python": fill,
    "torch": lambda path: torch.save({"a": ZEROS}, path),
    "safetensors": lambda path: save_file({"a": ZEROS}, path),
    "NumPy": lambda path: np.save(path, np.zeros(100_000)),
}


def run_with_file_size_limit(work) -> str:
    """Run `work` in a process that can write at most 50,000 bytes per file; return its outcome."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            work()
            text = "done"
        except BaseException as error:  # noqa: BLE001 -- reported
            text = f"{type(error).__name__} {getattr(error, 'errno', '')}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(process, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.mark.parametrize("library", WRITERS)
def test_full_disk_is_detected_in_errors_of_every_library(tmp_path, library):
    def work() -> None:
        with files.whole_directory(tmp_path / "folder") as folder:
            WRITERS[library](folder / "file")

    def work_and_reraise() -> None:
        try:
            work()
        except Exception as error:
            shortage.reraise(error)
            raise

    assert run_with_file_size_limit(work_and_reraise) == f"OSError {errno.EFBIG}"
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOSPC, "full"), OSError),
        (OSError(errno.EDQUOT, "quota"), OSError),
        (OSError(errno.EIO, "fails"), OSError),
        (OSError(errno.ENOMEM, "no memory"), MemoryError),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            MemoryError,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError),
        (RuntimeError("I/O error: No space left on device (os error 28)"), OSError),
        (MemoryError(), MemoryError),
        (OSError(errno.ENOENT, "no such file"), None),
        (RuntimeError("shapes differ"), None),
        (errors.MissingFileError(Path("x"), "out of memory", "a cure"), None),
    ],
)
def test_shortage_is_distinguished_from_other_errors(error, found):
    outer = ValueError("a library's own")
    outer.__cause__ = error
    for each in (error, outer):
        cause = shortage.cause(each)
        assert (cause is None) if found is None else isinstance(cause, found)


def test_full_disk_while_drawing_pictures_ends_export_without_changes(project, monkeypatch):
    edit_params(project, trainer__max_epochs=1)
    run(project)
    before = snapshot(project)

    def draw_pictures(*arguments):
        FULL.write_text("a picture")

    monkeypatch.setattr(export, "draw_pictures", draw_pictures)
    with pytest.raises(OSError) as raised:
        export.run(project, quiet)
    assert raised.value.errno == errno.ENOSPC
    assert snapshot(project) == before


def test_failure_to_draw_pictures_is_only_a_warning(project, monkeypatch, capsys):
    edit_params(project, trainer__max_epochs=1)
    run(project)
    monkeypatch.setattr(export, "draw_pictures", lambda *arguments: 1 / 0)
    export.run(project, quiet)
    assert "the pictures could not be drawn: ZeroDivisionError" in capsys.readouterr().err
    assert project.report.is_file()


@pytest.mark.parametrize("interrupted", [None, "renate-stages next"])
def test_command_line_reports_a_full_disk_and_the_next_command(project, capsys, interrupted):
    if interrupted:
        project.scratch.mkdir(exist_ok=True)
        files.write_json(project.intent, {"command": interrupted})

    def full() -> None:
        FULL.write_text("x")

    with pytest.raises(SystemExit) as ended:
        guarded(full)
    text = capsys.readouterr().err
    assert ended.value.code == 1
    assert "no more data can be written: [Errno 28] No space left on device" in text
    assert (
        "`renate-stages next` has not finished" if interrupted else "files and folders written so"
    ) in text
    assert ("then run `renate-stages resolve`" if interrupted else "run the command again") in text
