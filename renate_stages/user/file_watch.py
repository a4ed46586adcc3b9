"""Record the files that the user's code opens and the modules that it runs, with an audit hook.

Python calls an audit hook for each file that it opens and each module that it runs. A file is counted
for the user's code if the nearest frame on the stack outside of packages is in that code, or while we
call one of its functions.

Readers that do not use Python's `open` are not seen: Arrow (`pandas.read_parquet`), safetensors,
`torch.jit.load`, HDF5, Rust tokenizers, and other programs.
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
    """Records the files that the code in a folder uses.

    Args:
        code: The folder with the code.
        project: The project whose files are recorded.
    """

    def __init__(self, code: Path, project: Path) -> None:
        self.code = spellings(code)
        self.project = spellings(project)
        places = (sys.prefix, sys.base_prefix, tempfile.gettempdir())  # may be inside the project
        inside = [f"{p}{os.sep}" for p in places if f"{p}{os.sep}".startswith(self.project)]
        packages = (f"{path}{os.sep}" for path in PACKAGES)
        self._passing = (LIBRARY, *packages, *(p for p in inside if p not in self.project))
        self._environments: dict[str, bool] = {}

    def owns(self, file: str) -> bool:
        """Return whether the code in this file is watched."""
        return file.startswith(self.code)

    def saw(self, path: str, *, writes: bool, imported: bool, function: str, where: str) -> None:
        """Record a file that the watched code uses.

        Args:
            path: Absolute path of the file.
            writes: Whether the file is written, and its earlier content not read.
            imported: Whether it is run as a module.
            function: Name of the user's function that is running, `IMPORT`, or "" if none is.
            where: The function and line that uses the file.
        """
        raise NotImplementedError

    def relative(self, path: str) -> str | None:
        """Return a path relative to the project, or None if such a file is not recorded."""
        root = next((prefix for prefix in self.project if path.startswith(prefix)), None)
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
            signs = (f"{root}{folder}/{name}" for name in ("pyvenv.cfg", "conda-meta"))
            self._environments[folder] = any(map(os.path.lexists, signs))
        return self._environments[folder]

    @contextmanager
    def running(self, function: str) -> Iterator[None]:
        """Record every file used in a block, even if no frame on the stack is in the user's code."""
        entry: tuple[weakref.ref[Watch], str] = (weakref.ref(self), function)
        _running.append(entry)
        try:
            yield
        finally:
            _running.remove(entry)

    def start(self) -> None:
        """Start watching, instead of an earlier watch of the same code.

        It ends when no reference to this object is left.
        """
        global _watching
        if not _watching and not _installed:
            sys.addaudithook(_hook)
            _installed.append(True)
        others = [reference for reference in _watching if not _has_code(reference, self.code)]
        _watching = (*others, *_references(self))

    def stop(self) -> None:
        """Stop watching."""
        global _watching
        _watching = tuple(reference for reference in _watching if reference() not in (None, self))


@contextmanager
def unwatched() -> Iterator[None]:
    """Use files in this thread without recording them."""
    before, _thread.busy = _thread.busy, True
    try:
        yield
    finally:
        _thread.busy = before


def forget_all() -> None:
    """Stop all watching in a process that was forked from a watching one."""
    global _watching
    _watching = ()
    _running.clear()


def spellings(folder: Path) -> tuple[str, ...]:
    """Return a folder's path with and without symbolic links resolved, with a final slash."""
    paths = (os.path.abspath(folder), os.path.realpath(folder))  # noqa: PTH100
    return tuple(dict.fromkeys(f"{path.rstrip(os.sep)}{os.sep}" for path in paths))


def _has_code(reference: weakref.ref[Watch], code: tuple[str, ...]) -> bool:
    watch = reference()
    return watch is None or watch.code == code


def _references(watch: Watch) -> tuple[weakref.ref[Watch], ...]:
    return (weakref.ref(watch),)


class _Thread(threading.local):
    busy = False


_thread = _Thread()
_installed: list[bool] = []  # an audit hook cannot be removed from a process
_watching: tuple[weakref.ref[Watch], ...] = ()
_running: list[tuple[weakref.ref[Watch], str]] = []


def _hook(event: str, arguments: tuple) -> None:
    """Handle an audit event; it is called for every event of the process, so it must be fast."""
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
        if path.startswith("<"):  # code that does not come from a file
            return
        path = os.path.abspath(path)  # noqa: PTH100 -- keeps symbolic links
    except (TypeError, ValueError, OSError):
        return
    watching = [watch for reference in _watching if (watch := reference()) is not None]
    watching = [watch for watch in watching if watch.relative(path) is not None]
    if not watching:
        return  # the usual case: data of the update, packages, files outside the project
    with unwatched():
        watch, function, where = _credited(sys._getframe(1), watching)
        if watch is not None:
            new = bool(flags & (os.O_TRUNC | os.O_EXCL)) or flags & os.O_ACCMODE == os.O_WRONLY
            importing = sys._getframe(1).f_code.co_filename.startswith("<frozen importlib")
            imported = importing or event in ("exec", "import")
            watch.saw(path, writes=new, imported=imported, function=function, where=where)


def _credited(frame: FrameType | None, watching: list[Watch]) -> tuple[Watch | None, str, str]:
    """Return the watch of the code that uses a file, the running user function, and the location."""
    active = ((reference(), name) for reference, name in reversed(_running))
    running = next(((watch, name) for watch, name in active if watch in watching), None)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(LIBRARY):
            break
        owners = [watch for watch in watching if watch.owns(file)]
        if owners:
            latest = max(reversed(owners), key=lambda watch: len(watch.code[0]))
            watch = running[0] if running is not None and running[0] in owners else latest
            function = running[1] if running is not None and running[0] is watch else ""
            return watch, function, _place(frame, watch, function)
        frame = frame.f_back
    if running is None:
        return None, "", ""
    return *running, CODE if running[1] == IMPORT else running[1]


def _place(frame: FrameType, watch: Watch, function: str) -> str:
    code = frame.f_code
    root = next(prefix for prefix in watch.code if code.co_filename.startswith(prefix))
    name = code.co_filename[len(root) :]
    if function == IMPORT or code.co_name == "<module>":
        return name
    return f"{code.co_qualname} ({name}, line {frame.f_lineno})"
