"""Record the project's files that the user's functions import and read, with their hashes.

The SHA-256 of a file is computed when it is used. So a checkpoint records the content that it was
made with, even if a file is edited during training. The user must declare files that `file_watch`
does not see in `dvc.yaml`. Files that are only listed or tested for existence are not recorded.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renate_stages.errors import ForeignFileError, StaleImportError, UndeclaredUserFileError
from renate_stages.user.declared_files import (
    CALLING,
    EARLIER,
    IMPORT,
    OF_DATA,
    DeclaredFiles,
    hashes_of,
)
from renate_stages.user.file_watch import CODE, Watch, spellings, unwatched
from renate_stages.user.modules import imported_from

LARGEST = 4096  # maximum bytes that are written to a pipe atomically


@dataclass
class Use:
    """The first use of a file of the project.

    Args:
        sha256: SHA-256 of its content at that time.
        seen: Inode, size and modification time at its latest use.
        functions: Names of the functions that used it, `IMPORT`, or "" for a call in training.
        imported: Whether it was run as a module and not only read.
        where: The code that used it first.
    """

    sha256: str
    seen: tuple[int, int, int]
    functions: set[str] = field(default_factory=set)
    imported: bool = False
    where: str = CODE


class UserFiles(Watch):
    """The files of a project that its own code imports and reads.

    Args:
        root: The project's folder.
        declared: The declarations in `dvc.yaml`; None: nothing has to be declared.
        stage: The running stage; undeclared files are an error. None: only `check` reports them.
        ignored: Files and folders below `root` that are not recorded, such as a folder with data.
        hashes: File that stores the hashes of large files; None: do not store them.
    """

    def __init__(
        self,
        root: Path,
        declared: DeclaredFiles | None = None,
        stage: str | None = None,
        ignored: Iterable[Path] = (),
        hashes: Path | None = None,
    ) -> None:
        super().__init__(root, root)
        self.used: dict[str, Use] = {}
        self.root, self.declared, self.stage = root.absolute(), declared, stage
        quiet = [root / name for name in declared.quiet(stage)] if declared is not None else []
        prefixes = (prefix for path in (*quiet, *ignored) for prefix in spellings(path))
        own = self.code[0]
        self._quiet = tuple(prefix for prefix in prefixes if not own.startswith(prefix))
        self._hashes = hashes
        self._written: set[str] = set()
        self._rewritten: set[str] = set()  # changed between two uses
        self._at_once = False
        self._process = os.getpid()
        self._pipe: tuple[int, int] | None = None

    def start(self) -> None:
        if self._pipe is None:
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
        super().start()

    def __del__(self) -> None:
        for end in self._pipe or ():
            with suppress(OSError):
                os.close(end)

    def relative(self, path: str) -> str | None:
        return None if f"{path}{os.sep}".startswith(self._quiet) else super().relative(path)

    def owns(self, file: str) -> bool:
        name = self.relative(file) if super().owns(file) else None
        return name is not None and not self._is_product(name)

    def saw(self, path: str, *, writes: bool, imported: bool, function: str, where: str) -> None:
        name = self.relative(path)
        if name is None or writes:
            self._written.update([name] if name else [])
            return
        try:
            status = Path(path).stat()
        except OSError:
            return
        if name in self._written or not stat.S_ISREG(status.st_mode):
            return
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        use = self.used.get(name)
        if use is None or use.seen != seen:
            own = {} if self._is_product(name) else {name: Path(path)}
            sha256 = hashes_of(own, self._hashes).get(name, "")
            use = self.used.setdefault(name, Use(sha256, seen, where=where))
            use.seen = seen
            self._rewritten.update([name] if use.sha256 != sha256 else [])
        if imported:
            _run[os.path.realpath(path)] = use.sha256
        if function not in use.functions or imported > use.imported:
            use.functions.add(function)
            use.imported |= imported
            if os.getpid() != self._process:
                self._tell(name, use)
        if (self._at_once or not function) and self.stage and self._lacking(name):
            raise self._refusal([name])

    def take_modules(self, config: Path) -> None:
        """Record the modules that the user's code imports and that this process imported earlier.

        Raises:
            StaleImportError: If the file of such a module has changed since.
        """
        stale = []
        with unwatched():
            for path in sorted(imported_from(config, self.root)):
                name, run = self.relative(str(path)), _run.get(os.path.realpath(path))
                if name is not None and name not in self.used:
                    self.saw(str(path), writes=False, imported=True, function=IMPORT, where=CODE)
                    stale += [name] if run not in (None, self.used[name].sha256) else []
        if stale:
            raise StaleImportError(stale)

    def check(self) -> None:
        """Check that all recorded files are declared in `dvc.yaml`.

        Raises:
            UndeclaredUserFileError: If some are not; lists them and the lines to add to `dvc.yaml`.
        """
        self._listen()
        if undeclared := [name for name in sorted(self.used) if self._lacking(name)]:
            raise self._refusal(undeclared)

    @contextmanager
    def running(self, function: str, *, long: bool = False) -> Iterator[None]:
        """Do the same as `Watch.running`; in a stage, also check declarations at the block's end.

        Args:
            function: Name of a user's function, or `IMPORT`.
            long: Whether to check at each use, because the block may take hours.

        Raises:
            UndeclaredUserFileError: See `check`.
        """
        before, self._at_once = self._at_once, long
        try:
            with super().running(function):
                yield
        finally:
            self._at_once = before
        if self.stage is not None:
            self.check()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Check declarations at the end of a training, even if it fails.

        This includes files that processes which load data have used, and errors that the user's code
        has suppressed.

        Raises:
            UndeclaredUserFileError: See `check`.
        """
        try:
            yield
        except Exception as error:
            try:
                self.check()
            except UndeclaredUserFileError as refusal:
                raise refusal from error
            raise
        if self.stage is not None:
            self.check()

    def record(self) -> dict[str, str]:
        """Return the files that a training depends on: SHA-256 by path.

        Files that only functions for reading the new data use are left out.
        """
        self._listen()
        return {
            name: use.sha256
            for name, use in sorted(self.used.items())
            if use.functions.difference(OF_DATA) and not self._is_product(name)
        }

    def imported(self) -> dict[str, str]:
        """Return SHA-256 by path of `renate_config.py` and the files that importing it used."""
        return {
            name: use.sha256
            for name, use in sorted(self.used.items())
            if IMPORT in use.functions and not self._is_product(name)
        }

    def differing(self, recorded: Mapping[str, str]) -> list[str]:
        """Return the files that differ from a record.

        Compared is the content that was used in this process; for files that were not used, the
        present content.
        """
        used = self.record()
        now = self._now(name for name in recorded if name not in used) | used
        return sorted(name for name in {*now, *recorded} if now.get(name) != recorded.get(name))

    def unlike(self, known: Mapping[str, Any]) -> list[str]:
        """Return the files that were used in this process with other content than in `known`."""
        used = {name: use.sha256 for name, use in self.used.items()}
        return sorted(name for name in {*used} & {*known} if used[name] != known[name])

    def take_record(self, recorded: Mapping[str, str]) -> None:
        """Add the files of an interrupted training that continues in this process."""
        for name, sha256 in recorded.items():
            self.used.setdefault(name, Use(sha256, (0, 0, 0), {EARLIER}))

    def changed(self) -> list[str]:
        """Return the files that have changed since they were used."""
        self._listen()
        own = {name: use for name, use in self.used.items() if not self._is_product(name)}
        now = self._now(own)
        edited = {name for name, use in own.items() if now.get(name) != use.sha256}
        return sorted(edited | self._rewritten)

    def _now(self, names: Iterable[str]) -> dict[str, str]:
        paths = {name: self.root / name for name in names}
        with unwatched():
            return hashes_of({n: p for n, p in paths.items() if p.is_file()}, self._hashes)

    def _is_product(self, name: str) -> bool:
        return self.declared is not None and self.declared.is_product(name)

    def _lacking(self, name: str) -> list[str]:
        if self.declared is None:
            return []
        return self.declared.lacking(name, self.used[name].functions, self.stage)

    def _refusal(self, names: Iterable[str]) -> UndeclaredUserFileError:
        stages: dict[str, list[str]] = {}
        uses: dict[str, list[str]] = {}
        for name in names:
            use = self.used[name]
            verb = "imports" if use.imported else "reads"
            uses.setdefault(f"{use.where} {verb}", []).append(name)
            for stage in self._lacking(name):
                stages.setdefault(stage, []).append(name)
        phrases = [f"{use} {', '.join(names)}" for use, names in uses.items()]
        return UndeclaredUserFileError(phrases, {n: stages[n] for n in CALLING if n in stages})

    def _tell(self, name: str, use: Use) -> None:
        """Send a use to the parent process; this one was forked, for example to load data."""
        content: dict[str, Any] = {**vars(use), "functions": sorted(use.functions)}
        message = json.dumps([name, content]).encode() + b"\n"
        if self._pipe is not None and len(message) <= LARGEST:
            with suppress(OSError):  # the pipe is full, because the parent has not read it yet
                os.write(self._pipe[1], message)

    def _listen(self) -> None:
        """Read the uses that forked processes have sent."""
        received = b""
        with suppress(BlockingIOError):
            while self._pipe is not None and self._process == os.getpid():
                received += os.read(self._pipe[0], 2**16)
        for name, content in map(json.loads, received.splitlines()):
            use = self.used.setdefault(name, Use(**{**content, "functions": set()}))
            use.functions.update(content["functions"])
            use.imported |= content["imported"]
            self._rewritten.update([name] if use.sha256 != content["sha256"] else [])


class OwnFiles(Watch):
    """Checks that the code of an exported model uses its own files and none of the project's.

    Args:
        code: The folder with the model's copy of `renate_config.py`.
        project: The project's folder.
    """

    def saw(self, path: str, *, writes: bool, imported: bool, function: str, where: str) -> None:
        if path.startswith(self.code) or writes or not Path(path).is_file():
            return
        if (name := self.relative(path)) is not None:
            raise ForeignFileError(f"{where} {'imports' if imported else 'reads'} {name}", name)


def forget_namesakes(folder: Path) -> None:
    """Remove modules of other folders from `sys.modules` if a folder has modules of the same name.

    Args:
        folder: Folder of a `renate_config.py` that is about to be imported.
    """
    own = os.path.realpath(folder) + os.sep
    names = {path.name.removesuffix(".py") for path in folder.iterdir()}
    for name in [module for module in sys.modules if module.partition(".")[0] in names]:
        file = os.path.realpath(getattr(sys.modules[name], "__file__", None) or "")
        if file in _run and not file.startswith(own):
            del sys.modules[name]


_run: dict[str, str] = {}  # SHA-256 of each module's file at the time this process ran it
