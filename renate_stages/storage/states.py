"""Upload and download states so that an incomplete upload is never taken for a state.

`state.json` is uploaded last, after every file that it lists has been verified at the service. Files
that the parent's state already has at the same service are copied there.

The last downloaded and uploaded states stay in the working directory for the next job; equal files
are hard links to the same bytes.

    working_directory/states/<identity>/
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from renate_stages import files
from renate_stages.errors import (
    DamagedStateError,
    InvalidUrlError,
    MissingFileError,
    PlaceTakenError,
    RemoteRefusedError,
    RenateStagesError,
    StateExistsError,
)
from renate_stages.files import Entry
from renate_stages.preprocessing import FOLDER
from renate_stages.state import MANIFEST, manifest, state
from renate_stages.storage.storage import Storage, Traffic

UNSENT = "unsent"  # folder in the working directory with states that are not uploaded yet
NAME = "[0-9a-f]" * 16  # name of a kept state: the first digits of its identity
LAST = 4
"""Number of states to keep in a working directory, so that the next job downloads only new files."""


def is_url(place: str | Path) -> bool:
    """Return whether a place is a URL of a service rather than a local folder."""
    return "://" in str(place) and not str(place).startswith("file://")


def local_path(place: str | Path) -> Path:
    """Return the path of a local folder, given with or without `file://`."""
    return Path(str(place).removeprefix("file://"))


def refuse_taken(target: Storage) -> None:
    """Check that a new state may be written to a URL; files of an interrupted upload are allowed.

    Raises:
        StateExistsError: If there is a state.
        PlaceTakenError: If there are files that are not part of a state.
    """
    names = target.sizes()
    if MANIFEST in names:
        raise StateExistsError(target.url)
    if foreign := [name for name in names if not _could_be_of_a_state(name)]:
        raise PlaceTakenError(target.url, foreign)


def _could_be_of_a_state(name: str) -> bool:
    alone = (
        *state.MODEL_FILES,
        state.CHECKPOINT,
        *state.LEARNER_FILES,
        "evaluations.csv",
        state.TUNING_HISTORY,
        state.PLASTICITY,
    )
    folders = ("memory", FOLDER, *state.SPLITS)
    return name in alone or PurePosixPath(name).parts[0] in folders


def send_state(folder: Path, target: Storage, parent: Storage | None = None) -> Traffic:
    """Upload a state; files that the target already has with the same content are skipped.

    Args:
        folder: A complete state; it is only read.
        target: Storage for the new state; only one job may upload to it at a time.
        parent: Storage with the parent's state. If it is at the same service, equal files are copied
            there instead of uploaded.

    Returns:
        The uploaded files and bytes.

    Raises:
        StateExistsError: If the target has another state.
        PlaceTakenError: If the target has files that are not part of a state.
        RemoteRefusedError: If the service refuses a request.
        RemoteUnreachableError: If the service does not respond.
        DamagedTransferError: If the uploaded content differed in every attempt.
    """
    content = (folder / MANIFEST).read_bytes()
    if target.has(MANIFEST) and target.read(MANIFEST) == content:
        return Traffic()
    refuse_taken(target)
    listed = manifest.read_manifest(folder)["files"]
    paths = {name: folder / name for name in listed}
    present = target.same(paths)
    target.remove(target.sizes().keys() - paths.keys())
    if parent is not None and target.shares_service_with(parent):
        missing = {name: paths[name] for name in paths.keys() - present}
        present |= _copied(missing, listed, target, parent)
    rest = {name: path for name, path in paths.items() if name not in present}
    uploaded = target.put(rest, "state")
    target.write(MANIFEST, content)
    return uploaded + Traffic(1, len(content))


def _copied(
    missing: Mapping[str, Path], listed: Mapping[str, Entry], target: Storage, parent: Storage
) -> set[str]:
    """Let the service copy the files that the parent has; return the names that were copied."""
    of_parent = manifest.parse_manifest(parent.read(MANIFEST), parent.url)["files"]
    by_content = {entry["sha256"]: name for name, entry in of_parent.items()}
    copies = {
        name: by_content[listed[name]["sha256"]]
        for name in sorted(missing)
        if listed[name]["sha256"] in by_content
    }
    if not copies:
        return set()
    try:
        target.copy(parent, copies)
    except (MissingFileError, RemoteRefusedError):
        return set()  # reading may be permitted while copying is not; then all files are uploaded
    return target.same({name: missing[name] for name in copies})


def copy_state(source: str | Path, target: str | Path) -> Traffic:
    """Copy a complete state from a local folder to a URL, or from a URL to a local folder.

    Args:
        source: Folder or URL of the state.
        target: A folder that does not exist yet, or a URL without a state.

    Returns:
        The transferred files and bytes.

    Raises:
        RenateStagesError: If the source has no complete state, the target is in use, or the service
            fails.

    Example:
        >>> copy_state("s3://bucket/states/2", "state-2")
    """
    if is_url(source) and is_url(target):
        cure = "copy it to a local folder, and from there to the target"
        raise InvalidUrlError(
            str(target), "either the source or the target must be a local folder", cure
        )
    if is_url(target):
        folder = local_path(source)
        state.check(folder)
        return send_state(folder, Storage.at(target))
    folder = local_path(target)
    if folder.exists():
        raise StateExistsError(folder)
    origin = Storage.at(source)
    content = read_manifest(origin)
    partial = folder.with_name(f".{folder.name}.partial")
    fetched = _assemble(origin, content, partial, {})
    partial.rename(folder)
    return fetched + Traffic(1, len(content))


def read_manifest(source: Storage) -> bytes:
    """Return the content of a state's `state.json` after checking its format.

    Raises:
        MissingFileError: If there is no state.
        DamagedStateError: If the file is not a valid manifest.
        NewerStateError: If a newer version of renate-stages wrote it.
    """
    url = source.url_of(MANIFEST)
    try:
        content = source.read(MANIFEST)
    except MissingFileError as error:
        cure = "check that the URL is correct and that the upload to it finished"
        raise MissingFileError(url, "there is no state here", cure) from error
    manifest.parse_manifest(content, source.url)
    return content


class KeptStates:
    """The states kept in a working directory, so that equal files are not downloaded twice.

    Args:
        working_directory: Working directory of the jobs; several jobs may use it at the same time.
    """

    def __init__(self, working_directory: Path) -> None:
        self._folder = working_directory / "states"

    def bring(self, source: Storage, content: bytes) -> tuple[Path, Traffic]:
        """Return a local folder with a state; local files are verified, missing ones downloaded.

        An interrupted download continues with the missing files.

        Args:
            source: Storage with the state.
            content: Content of its `state.json`.

        Returns:
            The folder, and the downloaded files and bytes.

        Raises:
            MissingFileError: If a file of the state is missing.
            DamagedTransferError: If a file does not match `state.json`.
        """
        target = self._path(content)
        with self._alone():
            if target.exists():
                with suppress(DamagedStateError, MissingFileError):
                    state.check(target)
                    os.utime(target)
                    return target, Traffic()
            partial = target.with_name(f".{target.name}.partial")
            fetched = _assemble(source, content, partial, self._local_files())
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            self._displace()
        return target, fetched

    def take(self, folder: Path) -> Path:
        """Move a complete state to the kept states and return its new path."""
        target = self._path((folder / MANIFEST).read_bytes())
        with self._alone():
            if target.exists():  # the same update was run twice and gave the same state
                shutil.rmtree(folder)
            else:
                folder.rename(target)
            os.utime(target)
            self._displace()
        return target

    def _path(self, content: bytes) -> Path:
        return self._folder / hashlib.sha256(content).hexdigest()[:16]

    def _local_files(self) -> dict[str, Path]:
        """Return the files of all local states by the SHA-256 in their manifest."""
        local = {}
        unsent = self._folder.with_name(UNSENT)
        for folder in (*self._kept(), *unsent.glob("*")):
            with suppress(RenateStagesError):  # skip states whose manifest cannot be read
                listed = manifest.read_manifest(folder)["files"]
                local.update({entry["sha256"]: folder / name for name, entry in listed.items()})
        return local

    def _displace(self) -> None:
        """Remove all states except the last ones, and the remains of interrupted downloads."""
        kept = sorted(self._kept(), key=lambda path: path.stat().st_mtime)
        for folder in (*kept[:-LAST], *self._folder.glob(f".{NAME}.partial")):
            shutil.rmtree(folder)

    def _kept(self) -> list[Path]:
        """Return the folders of kept states; a user may have other folders here."""
        return [path for path in self._folder.glob(NAME) if (path / MANIFEST).is_file()]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file is closed
            yield


def _assemble(source: Storage, content: bytes, folder: Path, held: Mapping[str, Path]) -> Traffic:
    """Assemble a state in a folder: link local files, download the others.

    Args:
        source: Storage with the state.
        content: Content of its `state.json`.
        folder: The target; files of an interrupted attempt are used.
        held: Local files by SHA-256, which is verified before use.
    """
    listed = manifest.parse_manifest(content, source.url)["files"]
    for path in list(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in listed:
            path.unlink()
    missing = {}
    for name, entry in listed.items():
        target = folder / name
        if not _is(target, entry):
            target.unlink(missing_ok=True)
            own = held.get(entry["sha256"])
            if own is not None and _is(own, entry):
                files.link_or_copy(own, target)
            else:
                missing[name] = target
    fetched = source.get(missing, listed, "state")
    (folder / MANIFEST).write_bytes(content)
    return fetched


def _is(path: Path, entry: Entry) -> bool:
    """Return whether a local file has the size and the SHA-256 of an entry."""
    return (
        path.is_file()
        and path.stat().st_size == entry["size"]
        and files.sha256(path) == entry["sha256"]
    )
