"""Inputs and outputs of `run_training_job`: local folders or URLs.

working_directory/unsent/<name>-<identity>/    a new state, until its upload has finished
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from renate_stages import files
from renate_stages.errors import RenateStagesError, StateExistsError, StateNotSentError
from renate_stages.state import MANIFEST, State, manifest, state
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
        update: Number of the update that wrote it; 0 for the empty state.
        folder: Its folder, if the state is local.
        storage: Its storage, if the state is at a URL.
        manifest: The content of its `state.json`, if the state is at a URL.
    """

    update: int = 0
    folder: Path | None = None
    storage: Storage | None = None
    manifest: bytes = b""

    @classmethod
    def at(cls, place: str | Path | None) -> InputState:
        """Open a state; from a URL, download only its `state.json`.

        Raises:
            MissingFileError: If there is no state.
            DamagedStateError: If its `state.json` is not valid.
            RenateStagesError: If the URL cannot be reached.
        """
        if place is None:
            return cls()
        if not is_url(place):
            folder = local_path(place)
            return cls(State.open(folder).provenance.update, folder)
        storage = Storage.at(place)
        content = read_manifest(storage)
        update = manifest.parse_manifest(content, storage.url)["update"]
        return cls(update, storage=storage, manifest=content)

    def bring(self, working_directory: Path) -> tuple[Path | None, Traffic]:
        """Download the state if needed and verify every file; return its folder and the traffic."""
        if self.storage is None:
            if self.folder is not None:
                state.check(self.folder)
            return self.folder, Traffic()
        folder, fetched = KeptStates(working_directory).bring(self.storage, self.manifest)
        return folder, fetched + Traffic(1, len(self.manifest))


@dataclass(frozen=True)
class OutputState:
    """The destination of a job's new state.

    Args:
        folder: The destination, if it is a local folder.
        storage: The destination, if it is a URL.
    """

    folder: Path | None = None
    storage: Storage | None = None

    @classmethod
    def at(cls, place: str | Path | None) -> OutputState:
        """Check, before any work, that the destination is free.

        Raises:
            StateExistsError: If the destination already holds a state, or is an existing folder.
            PlaceTakenError: If there are files under the URL that do not belong to a state.
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
        """Link a new state to a folder that outlives the workplace; return that folder.

        Args:
            written: Folder of the state in the workplace.
            working_directory: Holds a state that still has to be uploaded.
        """
        if self.folder is not None:
            link_folder(written, self.folder)
            return self.folder
        assert self.storage is not None, "a state without a destination cannot be kept"
        name = self.storage.url.rsplit("/", 1)[-1]
        unsent = working_directory / UNSENT / f"{name}-{files.sha256(written / MANIFEST)[:16]}"
        if unsent.exists():  # an earlier job wrote the same state and failed to upload it
            shutil.rmtree(unsent)
        link_folder(written, unsent)
        return unsent

    def deliver(
        self, written: Path, parent: InputState, working_directory: Path
    ) -> tuple[State, Traffic]:
        """Upload the new state if its destination is a URL; return the local copy and the traffic.

        Args:
            written: Folder of the state, as `keep` returned it.
            parent: The state that the job started from: files that it has at the same service are
                not uploaded again.
            working_directory: Keeps a local copy for the next job.

        Raises:
            StateNotSentError: If the upload fails. The state stays in `written`.
        """
        if self.storage is None:
            return State.open(written), Traffic()
        try:
            sent = send_state(written, self.storage, parent.storage)
        except RenateStagesError as error:
            raise StateNotSentError(written, self.storage.url, str(error)) from error
        kept = KeptStates(working_directory).take(written)
        with suppress(OSError):  # other jobs may have unsent states there
            written.parent.rmdir()
        return State.open(kept), sent


def link_folder(source: Path, target: Path) -> None:
    """Link every file of a folder, or copy files where that is not possible.

    Raises:
        FolderTakenError: If another process has created `target` in the meantime.
    """

    def link(file: str, copy: str) -> None:
        files.link_or_copy(Path(file), Path(copy))

    with files.whole_directory(target, replace=False) as folder:
        shutil.copytree(source, folder, copy_function=link, dirs_exist_ok=True)


def bring(data: str | Path | None, working_directory: Path) -> tuple[Path, Traffic]:
    """Download a job's new data if needed; return its local folder and the traffic.

    Args:
        data: Folder or URL of the data; None: the folder `data` of the working directory.
        working_directory: Keeps the downloaded files.
    """
    if data is not None and is_url(data):
        return bring_data(Storage.at(data), working_directory)
    folder = local_path(data) if data is not None else working_directory / "data"
    folder.mkdir(parents=True, exist_ok=True)  # Renate's data modules fetch their data into it
    return folder, Traffic()
