"""Paths of a project's files, and the project's lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from renate_stages import files
from renate_stages.errors import BusyError, InterruptedCommandError, NotAProjectError, shortage

ENDING_SECONDS = 10.0
"""How long to wait for the processes that a killed stage has forked."""


@dataclass(frozen=True)
class Outside:
    """What `run_training_job` reads from outside its workplace.

    Args:
        config: The file with the user's functions.
        data: The folder with the new data.
        ignored: Files and folders that are not the user's code: data and states.
        user_files: SHA-256 of the files that importing `config` uses, by path relative to its
            folder; `config` is one of them.
    """

    config: Path
    data: Path
    ignored: tuple[Path, ...]
    user_files: Mapping[str, str]


@dataclass(frozen=True)
class Project:
    """A project's folder and the paths in it.

    Args:
        root: The folder with `dvc.yaml`, `params.yaml` and `renate_config.py`.
        outside: For the workplace of `run_training_job`, what it reads from elsewhere.
    """

    root: Path
    outside: Outside | None = None

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Return the project that contains `start` (default: the working directory).

        Raises:
            NotAProjectError: If neither this folder nor a folder above it is a project.
        """
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
                return cls(folder)
        raise NotAProjectError(start)

    @classmethod
    def at(cls, root: Path) -> Project:
        """Return the project in a folder, which may be a workplace of `run_training_job`."""
        project = cls(root)
        if not project._outside.is_file():
            return project
        content = files.read_json(project._outside)
        ignored = tuple(map(Path, content["ignored"]))
        config, data = Path(content["config"]), Path(content["data"])
        return cls(root, Outside(config, data, ignored, content["user_files"]))

    def write_outside(self) -> None:
        """Write what `at` reads, for other processes."""
        if self.outside is not None:
            paths = {"config": str(self.outside.config), "data": str(self.outside.data)}
            ignored = [str(path) for path in self.outside.ignored]
            own = {"ignored": ignored, "user_files": dict(self.outside.user_files)}
            files.write_json(self._outside, {**paths, **own})

    def without_outside(self) -> Project:
        """Return this workplace as one that has all that it reads in its own folder."""
        self._outside.unlink(missing_ok=True)
        return Project(self.root)

    # Files that the user edits.

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def user_config(self) -> Path:
        return self.outside.config if self.outside else self.root / "renate_config.py"

    @property
    def incoming(self) -> Path:
        """The new data, tracked with `dvc add`."""
        return self.outside.data if self.outside else self.root / "data" / "incoming"

    @property
    def forget_list(self) -> Path:
        return self.root / "forget.yaml"

    # Files that lineage writes.

    @property
    def parent(self) -> Path:
        """The parent's state, tracked by `parent.dvc`.

        It is not called `parent/`, because `dvc exp show` has a column of that name and fails if a
        dependency has the same name.
        """
        return self.root / "parent-state"

    @property
    def parent_pointer(self) -> Path:
        return self.root / "parent.dvc"

    @property
    def champion(self) -> Path:
        """The champion's `export/`, tracked by `champion.dvc`."""
        return self.root / "champion"

    @property
    def champion_pointer(self) -> Path:
        return self.root / "champion.dvc"

    @property
    def lock_file(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def pipeline(self) -> Path:
        return self.root / "dvc.yaml"

    # Files that stages write.

    @property
    def prepared(self) -> Path:
        return self.root / "work" / "prepared"

    @property
    def restored(self) -> Path:
        return self.root / "work" / "restored"

    @property
    def tuning(self) -> Path:
        """The trials of all updates so far, and the result of the best trial."""
        return self.root / "work" / "tuning"

    @property
    def tuned(self) -> Path:
        return self.root / "tuned.yaml"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def data_metrics(self) -> Path:
        return self.root / "metrics" / "data.json"

    @property
    def feature_shift(self) -> Path:
        """The shift of each feature, written by `prepare`; `plots` belongs to `train`."""
        return self.root / "metrics" / "shift.csv"

    @property
    def update_metrics(self) -> Path:
        return self.root / "metrics" / "update.json"

    @property
    def gate_metrics(self) -> Path:
        return self.root / "metrics" / "gate.json"

    @property
    def verdict(self) -> Path:
        return self.root / "reports" / "verdict.json"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    @property
    def report(self) -> Path:
        return self.root / "reports" / "update.md"

    @property
    def pictures(self) -> Path:
        """PNG files of the report, in folders by topic; neither in Git nor tracked by DVC."""
        return self.root / "reports" / "pictures"

    @property
    def scratch(self) -> Path:
        """Locks and temporary files; ignored by Git and DVC."""
        return self.root / ".renate"

    @property
    def _outside(self) -> Path:
        return self.scratch / "outside.json"

    @property
    def hashes(self) -> Path:
        """Cached hashes of the project's files; see `files.hashes`."""
        return self.scratch / "hashes.json"

    @property
    def intent(self) -> Path:
        """The lineage changes of a running command; the file exists only until it has finished."""
        return self.scratch / "intent.json"

    @property
    def interrupted(self) -> str | None:
        """The command that was interrupted while it changed the lineage, or None."""
        if not self.intent.is_file():
            return None
        content = files.read_json(self.intent)
        command = content.get("command") if isinstance(content, dict) else None
        return command if command and isinstance(command, str) else "a command"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints from which an interrupted training continues; removed when one succeeds."""
        return self.scratch / "resume"

    @property
    def searches(self) -> Path:
        """Files from which an interrupted search continues; removed when one succeeds."""
        return self.scratch / "tuning"

    @contextmanager
    def empty_scratch(self, name: str) -> Iterator[Path]:
        """Yield an empty temporary folder in the project; it is removed when the block ends."""
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)  # a killed run may have left it
        folder.mkdir(parents=True)
        try:
            with shortage.explained(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lock(self, work: str, *, recovers: bool = False) -> Iterator[None]:
        """Lock the project, so that only one stage or command runs at a time.

        The lock also protects a stage that still runs after `dvc repro` was killed.

        Args:
            work: Name of the stage or command that takes the lock.
            recovers: Whether the caller recovers interrupted commands; otherwise they are an error.

        Raises:
            BusyError: If another process holds the lock; with its process id.
            InterruptedCommandError: If a command was interrupted while it changed the lineage.
        """
        self.scratch.mkdir(exist_ok=True)
        with (self.scratch / "stage.lock").open("a+", encoding="utf-8") as stream:
            self._take(stream)
            stream.truncate(0)
            kind = "command" if recovers else "stage"
            stream.write(f"{kind} {work}, process {os.getpid()}")
            stream.flush()
            if not recovers and (command := self.interrupted):
                raise InterruptedCommandError(command)
            for folder in (self.root, self.prepared.parent, self.data_metrics.parent):
                files.clear_abandoned(folder)
            yield
            stream.truncate(0)

    def _take(self, stream: IO[str]) -> None:
        """Lock a file, which contains the name of the process that holds the lock.

        The processes that a stage has forked hold its lock too. If the stage is killed, they end a
        moment later, so this waits for them.
        """
        until = time.monotonic() + ENDING_SECONDS
        while True:
            try:
                return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                stream.seek(0)
                holder = stream.read().strip()
                if time.monotonic() > until or not _has_ended(holder):
                    raise BusyError(self.root, holder or "just starting") from error
            time.sleep(0.05)

    def relative(self, path: Path) -> str:
        """Return a path relative to the project, in POSIX form."""
        return path.relative_to(self.root).as_posix()


def _has_ended(holder: str) -> bool:
    """Return whether the process that wrote its id into the file of the lock no longer runs."""
    import psutil

    number = holder.rpartition("process ")[2]
    try:
        return psutil.Process(int(number)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    except ValueError:  # the holder has not written its id yet
        return False
