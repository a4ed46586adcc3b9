"""The project's files that the user's functions import and read, with their hashes.

Each is taken at the moment it is used, with its SHA-256: so a checkpoint says what made it, although a
file is edited while training runs. Files that `file_watch` does not see have to be declared in
`dvc.yaml` by the user; those that were only listed or asked for do not count.
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

LARGEST = 4096  # bytes of a message to a pipe that arrive together


@dataclass
class Use:
    """One file of the project, as it was when it was first used.

    Args:
        sha256: Of its bytes then.
        seen: Inode, size and time of change then.
        functions: What used it: names of functions, `IMPORT`, or "" for a call in training.
        imported: Whether it was run as a module, not only read.
        where: What used it first.
    """

    sha256: str
    seen: tuple[int, int, int]
    functions: set[str] = field(default_factory=set)
    imported: bool = False
    where: str = CODE


class UserFiles(Watch):
    """The files of a project that its own functions are made of and read.

    Args:
        root: The project's folder.
        declared: What `dvc.yaml` declares; None: nothing has to be declared.
        stage: The stage that runs, which refuses what is not declared; None: only `check` does.
        ignored: Files and folders below `root` that do not count, such as one with the data.
        hashes: Where hashes of large files are kept; None: nowhere.
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
        paths = (each for path in (*quiet, *ignored) for each in spellings(path))
        own = self.code[0]
        self._quiet = tuple(each for each in paths if not own.startswith(each))
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
            found = hashes_of(own, self._hashes).get(name, "")
            use = self.used.setdefault(name, Use(found, seen, where=where))
            use.seen = seen
            self._rewritten.update([name] if use.sha256 != found else [])
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
        """Take in what the user's code imports and this process had imported before.

        Raises:
            StaleImportError: If a file of those has changed since.
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
        """Refuse what a stage should depend on and does not.

        Raises:
            UndeclaredUserFileError: With all such files, and the lines that `dvc.yaml` lacks.
        """
        self._listen()
        if found := [name for name in sorted(self.used) if self._lacking(name)]:
            raise self._refusal(found)

    @contextmanager
    def running(self, function: str, *, long: bool = False) -> Iterator[None]:
        """As `Watch.running`; where a stage runs, what is not declared is refused when it ends.

        Args:
            function: Name of a function of the user's, or `IMPORT`.
            long: Refuse it at once: it may take hours until the end.

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
        """Refuse what is not declared also where processes that load data used it, or it was hidden.

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
        """Return what a training depends on: SHA-256 by path, without what reads the new data alone."""
        self._listen()
        return {
            name: use.sha256
            for name, use in sorted(self.used.items())
            if use.functions.difference(OF_DATA) and not self._is_product(name)
        }

    def imported(self) -> dict[str, str]:
        """Return SHA-256 by path of what importing `renate_config.py` used, itself included."""
        return {
            name: use.sha256
            for name, use in sorted(self.used.items())
            if IMPORT in use.functions and not self._is_product(name)
        }

    def differing(self, recorded: Mapping[str, str]) -> list[str]:
        """Return the files that are not as a record says: as they were used here, or else are now."""
        here = self.record()
        now = self._now(name for name in recorded if name not in here) | here
        return sorted(name for name in {*now, *recorded} if now.get(name) != recorded.get(name))

    def unlike(self, known: Mapping[str, Any]) -> list[str]:
        """Return the files that were used here with another content than is known of them."""
        here = {name: use.sha256 for name, use in self.used.items()}
        return sorted(name for name in {*here} & {*known} if here[name] != known[name])

    def take_record(self, recorded: Mapping[str, str]) -> None:
        """Take in what an interrupted training used, which goes on here."""
        for name, sha256 in recorded.items():
            self.used.setdefault(name, Use(sha256, (0, 0, 0), {EARLIER}))

    def changed(self) -> list[str]:
        """Return the files that are not any more as they were when they were used."""
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
        said = [f"{use} {', '.join(found)}" for use, found in uses.items()]
        return UndeclaredUserFileError(said, {n: stages[n] for n in CALLING if n in stages})

    def _tell(self, name: str, use: Use) -> None:
        """Say it to the process that this one was forked from, such as to load data for it."""
        content: dict[str, Any] = {**vars(use), "functions": sorted(use.functions)}
        message = json.dumps([name, content]).encode() + b"\n"
        if self._pipe is not None and len(message) <= LARGEST:
            with suppress(OSError):  # it is full: so much was told, and not heard yet
                os.write(self._pipe[1], message)

    def _listen(self) -> None:
        """Take in what forked processes have told."""
        told = b""
        with suppress(BlockingIOError):
            while self._pipe is not None and self._process == os.getpid():
                told += os.read(self._pipe[0], 2**16)
        for name, content in map(json.loads, told.splitlines()):
            use = self.used.setdefault(name, Use(**{**content, "functions": set()}))
            use.functions.update(content["functions"])
            use.imported |= content["imported"]
            self._rewritten.update([name] if use.sha256 != content["sha256"] else [])


class OwnFiles(Watch):
    """Code of an exported model, which must use the files of its own folder, none of the project's.

    Args:
        code: The folder with its copy of `renate_config.py`.
        project: The project's folder, as it is today.
    """

    def saw(self, path: str, *, writes: bool, imported: bool, function: str, where: str) -> None:
        if path.startswith(self.code) or writes or not Path(path).is_file():
            return
        if (name := self.relative(path)) is not None:
            raise ForeignFileError(f"{where} {'imports' if imported else 'reads'} {name}", name)


def forget_namesakes(folder: Path) -> None:
    """Let modules be imported anew that user code of another folder imported under the same name.

    Args:
        folder: With a `renate_config.py` that is about to be imported, and its modules.
    """
    own = os.path.realpath(folder) + os.sep
    here = {path.name.removesuffix(".py") for path in folder.iterdir()}
    for name in [each for each in sys.modules if each.partition(".")[0] in here]:
        file = os.path.realpath(getattr(sys.modules[name], "__file__", None) or "")
        if file in _run and not file.startswith(own):
            del sys.modules[name]


_run: dict[str, str] = {}  # SHA-256 of each module's file when this process ran it
