"""Inputs and outputs of `run_training_job`: local folders or URLs.

working_directory/unsent/<name>-<identity>/    a new state, until it lies whole at its URL
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from renate_stages import files
from renate_stages.errors import RenateStagesError, StateExistsError, StateNotSentError
from renate_stages.state import MANIFEST, State, state
from renate_stages.storage.data import bring_data
from renate_stages.storage.states import (
    UNSENT,
    KeptStates,
    is_url,
    local_path,
    read_manifest,
    refuse_taken,
    send_state,
)
from renate_stages.storage.storage import Storage, Traffic


@dataclass(frozen=True)
class InputState:
    """The state that a job starts from.

    Args:
        update: Number of the update that wrote it.
        folder: Where it lies, if that is here.
        storage: Where it lies, if that is at a URL.
        manifest: Of one at a URL, the content of its `state.json`.
    """

    update: int = 0
    folder: Path | None = None
    storage: Storage | None = None
    manifest: bytes = b""

    @classmethod
    def at(cls, place: str | Path | None) -> InputState:
        """Look at a state; of one at a URL only `state.json` travels.

        Raises:
            MissingFileError: If there is none.
            DamagedStateError: If its `state.json` is not one.
            RenateStagesError: If the URL cannot be reached.
        """
        if place is None:
            return cls()
        if not is_url(place):
            folder = local_path(place)
            return cls(State.open(folder).provenance.update, folder)
        storage = Storage.at(place)
        content = read_manifest(storage)
        update = state.parse_manifest(content, storage.url)["update"]
        return cls(update, storage=storage, manifest=content)

    def bring(self, working_directory: Path) -> tuple[Path | None, Traffic]:
        """Return its folder here, every file checked, and what travelled for that."""
        if self.storage is None:
            if self.folder is not None:
                state.check(self.folder)
            return self.folder, Traffic()
        folder, fetched = KeptStates(working_directory).bring(self.storage, self.manifest)
        return folder, fetched + Traffic(1, len(self.manifest))


@dataclass(frozen=True)
class OutputState:
    """Where a job's new state shall lie.

    Args:
        folder: A folder here, if it is one.
        storage: What lies under its URL, if it is one.
    """

    folder: Path | None = None
    storage: Storage | None = None

    @classmethod
    def at(cls, place: str | Path | None) -> OutputState:
        """Look at the place, before any work.

        Raises:
            StateExistsError: If there is a state, or a folder of this name.
            PlaceTakenError: If files lie under the URL that are of no state.
            RenateStagesError: If the URL cannot be reached.
        """
        if place is None:
            return cls()
        if is_url(place):
            storage = Storage.at(place)
            refuse_taken(storage)
            return cls(storage=storage)
        folder = local_path(place)
        if folder.exists():
            raise StateExistsError(folder)
        return cls(folder)

    def keep(self, written: Path, working_directory: Path) -> Path:
        """Put a new state where it outlives the workplace; return its folder.

        Args:
            written: Its folder in the workplace.
            working_directory: Where a state is kept that has to be sent.
        """
        if self.folder is not None:
            with files.whole_directory(self.folder, replace=False) as folder:
                shutil.copytree(written, folder, copy_function=link, dirs_exist_ok=True)
            return self.folder
        assert self.storage is not None, "a state without a place is not kept"
        name = self.storage.url.rsplit("/", 1)[-1]
        unsent = working_directory / UNSENT / f"{name}-{files.sha256(written / MANIFEST)[:16]}"
        unsent.parent.mkdir(parents=True, exist_ok=True)
        if unsent.exists():  # the same state, of a job that could not send it
            shutil.rmtree(unsent)
        written.rename(unsent)
        return unsent

    def deliver(
        self, written: Path, parent: InputState, working_directory: Path
    ) -> tuple[State, Traffic]:
        """Send the new state where it belongs; return it as it lies here, and what travelled.

        Args:
            written: Its folder, as `keep` returned it.
            parent: What it started from: equal files at the same service do not travel.
            working_directory: Keeps it for the next job.

        Raises:
            StateNotSentError: If it cannot be sent. It stays where it was written.
        """
        if self.storage is None:
            return State.open(written), Traffic()
        try:
            sent = send_state(written, self.storage, parent.storage)
        except RenateStagesError as error:
            raise StateNotSentError(written, self.storage.url, str(error)) from error
        kept = KeptStates(working_directory).take(written)
        with suppress(OSError):  # of other jobs there may be others
            written.parent.rmdir()
        return State.open(kept), sent


def link(source: str, target: str) -> None:
    """Link a file, or copy it where that is not possible: the `copy_function` of `copytree`."""
    files.link_or_copy(Path(source), Path(target))


def bring(data: str | Path | None, working_directory: Path) -> tuple[Path, Traffic]:
    """Return the folder here with a job's new data, and what travelled for that.

    Args:
        data: Its folder or URL; None: the folder `data` of the working directory.
        working_directory: Keeps what is fetched.
    """
    if data is not None and is_url(data):
        return bring_data(Storage.at(data), working_directory)
    folder = local_path(data) if data is not None else working_directory / "data"
    folder.mkdir(parents=True, exist_ok=True)  # Renate's data modules fetch their data into it
    return folder, Traffic()
