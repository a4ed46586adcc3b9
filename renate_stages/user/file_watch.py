"""An audit hook that records which files some code opens, and which modules it runs.

Python tells an audit hook of each file that it opens and of each module that it runs. A file counts
as some code's doing where the nearest frame on the stack, other than of packages, is of that code,
and while one of its functions runs that we call.

Readers that are not written in Python open files unseen: Arrow's (`pandas.read_parquet`),
safetensors', `torch.jit.load`, HDF5's, those of Rust tokenizers, and other programs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from renate_stages.user.declared_files import IMPORT, is_passing
from renate_stages.user.modules import PACKAGES

CODE = "renate_config.py"
LIBRARY = f"{Path(__file__).resolve().parents[1]}{os.sep}"


class Watch:
    """Code below one folder, whose use of files counts.

    Args:
        code: The folder.
        project: The project that it belongs to, or that it must not touch.
    """

    def __init__(self, code: Path, project: Path) -> None:
        self.code = spellings(code)
        self.project = spellings(project)
        places = (sys.prefix, sys.base_prefix, tempfile.gettempdir())  # maybe inside the project
        inside = [f"{p}{os.sep}" for p in places if f"{p}{os.sep}".startswith(self.project)]
        packages = (f"{path}{os.sep}" for path in PACKAGES)
        self._passing = (LIBRARY, *packages, *(p for p in inside if p not in self.project))
        self._environments: dict[str, bool] = {}

    def owns(self, file: str) -> bool:
        """Return whether code of this file is watched."""
        return file.startswith(self.code)

    def saw(self, path: str, *, writes: bool, imported: bool, function: str, where: str) -> None:
        """Take notice of a file that the watched code uses.

        Args:
            path: Absolute.
            writes: Whether what was in it before is not read.
            imported: Whether it is run as a module.
            function: Which of the user's functions runs, `IMPORT`, or "" where none does.
            where: The function and line that uses it.
        """
        raise NotImplementedError

    def relative(self, path: str) -> str | None:
        """Return a path relative to the project; None where no file there counts."""
        root = next((each for each in self.project if path.startswith(each)), None)
        if root is None or path.startswith(self._passing):
            return None
        name = path[len(root) :]
        return None if is_passing(name) or self._is_environment(root, name) else name

    def _is_environment(self, root: str, name: str) -> bool:
        """Return whether a path is in a virtual environment at the top of the project."""
        folder, _, rest = name.partition(os.sep)
        if not rest:
            return False
        if folder not in self._environments:
            signs = (f"{root}{folder}/{each}" for each in ("pyvenv.cfg", "conda-meta"))
            self._environments[folder] = any(map(os.path.lexists, signs))
        return self._environments[folder]

    @contextmanager
    def running(self, function: str) -> Iterator[None]:
        """Count every file that is used inside, also where no frame on the stack tells by whom."""
        entry: tuple[weakref.ref[Watch], str] = (weakref.ref(self), function)
        _running.append(entry)
        try:
            yield
        finally:
            _running.remove(entry)

    def start(self) -> None:
        """Begin to watch; it ends when nothing refers to this any more."""
        global _watching
        if not _watching and not _installed:
            sys.addaudithook(_hook)
            _installed.append(True)
        self.stop()
        _watching = (*_watching, *_references(self))

    def stop(self) -> None:
        """End watching."""
        global _watching
        _watching = tuple(each for each in _watching if each() not in (None, self))


@contextmanager
def unwatched() -> Iterator[None]:
    """Use files without being watched, in this thread."""
    before, _thread.busy = _thread.busy, True
    try:
        yield
    finally:
        _thread.busy = before


def forget_all() -> None:
    """End all watching, in a process that was forked from one that watched."""
    global _watching
    _watching = ()
    _running.clear()


def spellings(folder: Path) -> tuple[str, ...]:
    """Return a folder's path as it is given and without symbolic links, with a slash at the end."""
    given = (os.path.abspath(folder), os.path.realpath(folder))  # noqa: PTH100
    return tuple(dict.fromkeys(f"{each.rstrip(os.sep)}{os.sep}" for each in given))


def _references(watch: Watch) -> tuple[weakref.ref[Watch], ...]:
    return (weakref.ref(watch),)


class _Thread(threading.local):
    busy = False


_thread = _Thread()
_installed: list[bool] = []  # a hook stays as long as the process
_watching: tuple[weakref.ref[Watch], ...] = ()
_running: list[tuple[weakref.ref[Watch], str]] = []


def _hook(event: str, arguments: tuple) -> None:
    """Look at what Python is about to do; called for every event there is, so it must be quick."""
    if not _watching:
        return
    flags = 0
    if event == "open":
        path, _, flags = arguments
    elif event == "exec":
        path = getattr(arguments[0], "co_filename", None)
    elif event == "import":
        path = arguments[1]
    elif event in ("ctypes.dlopen", "sqlite3.connect"):
        path = arguments[0]
    else:
        return
    if not path or path.__class__ is int or _thread.busy:
        return
    try:
        path = os.fsdecode(path)
        if path.startswith("<"):  # code that is in no file
            return
        path = os.path.abspath(path)  # noqa: PTH100 -- keeps symbolic links
    except (TypeError, ValueError, OSError):
        return
    watching = [watch for each in _watching if (watch := each()) is not None]
    watching = [watch for watch in watching if watch.relative(path) is not None]
    if not watching:
        return  # nearly always: data of the update, packages, files outside the project
    with unwatched():
        watch, function, where = _credited(sys._getframe(1), watching)
        if watch is not None:
            new = bool(flags & (os.O_TRUNC | os.O_EXCL)) or flags & os.O_ACCMODE == os.O_WRONLY
            importing = sys._getframe(1).f_code.co_filename.startswith("<frozen importlib")
            imported = importing or event in ("exec", "import")
            watch.saw(path, writes=new, imported=imported, function=function, where=where)


def _credited(frame: FrameType | None, watching: list[Watch]) -> tuple[Watch | None, str, str]:
    """Return whose code uses a file, which of the user's functions runs, and the code's place."""
    active = ((each(), name) for each, name in reversed(_running))
    running = next(((watch, name) for watch, name in active if watch in watching), None)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(LIBRARY):
            break
        owners = [watch for watch in watching if watch.owns(file)]
        if owners:
            latest = max(reversed(owners), key=lambda each: len(each.code[0]))
            watch = running[0] if running is not None and running[0] in owners else latest
            function = running[1] if running is not None and running[0] is watch else ""
            return watch, function, _place(frame, watch, function)
        frame = frame.f_back
    if running is None:
        return None, "", ""
    return *running, CODE if running[1] == IMPORT else running[1]


def _place(frame: FrameType, watch: Watch, function: str) -> str:
    code = frame.f_code
    root = next(each for each in watch.code if code.co_filename.startswith(each))
    name = code.co_filename[len(root) :]
    if function == IMPORT or code.co_name == "<module>":
        return name
    return f"{code.co_qualname} ({name}, line {frame.f_lineno})"
