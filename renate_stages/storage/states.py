"""States at URLs, uploaded so that an incomplete one cannot be taken for a state.

`state.json` is sent last, when every file that it lists has been verified where it lies. What the
state before it has already, at the same service, is copied there and does not travel.

Those that were brought here, and those that were sent, stay for the next job in a folder each; they
share the bytes of equal files.

    working_directory/states/<identity>/    the last few of them
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
from renate_stages.state import MANIFEST, state
from renate_stages.storage.storage import Storage, Traffic

UNSENT = "unsent"  # folder of the working directory with states that are still to be sent
NAME = "[0-9a-f]" * 16  # of a kept state: the first digits of its identity
LAST = 4
"""How many states stay in a working directory: the next job fetches what is new since them."""


def is_url(place: str | Path) -> bool:
    """Return whether a place is to be reached through a service, and is no folder here."""
    return "://" in str(place) and not str(place).startswith("file://")


def local_path(place: str | Path) -> Path:
    """Return the path of a folder here, which `file://` may stand before."""
    return Path(str(place).removeprefix("file://"))


def refuse_taken(target: Storage) -> None:
    """Check that a new state may lie there; what an interrupted sending left is no hindrance.

    Raises:
        StateExistsError: If there is a state.
        PlaceTakenError: If there are files that are of no state.
    """
    names = target.sizes()
    if MANIFEST in names:
        raise StateExistsError(target.url)
    if foreign := [name for name in names if not _could_be_of_a_state(name)]:
        raise PlaceTakenError(target.url, foreign)


def _could_be_of_a_state(name: str) -> bool:
    alone = (*state.MODEL_FILES, *state.LEARNER_FILES, "evaluations.csv", state.TUNING_HISTORY)
    return name in alone or PurePosixPath(name).parts[0] in ("memory", *state.SPLITS)


def send_state(folder: Path, target: Storage, parent: Storage | None = None) -> Traffic:
    """Send a state; what lies there already with the same content does not travel.

    Args:
        folder: A whole state; only read.
        target: Where it shall lie; one job at a time sends there.
        parent: Where the state that it started from lies. Of the same service, equal files are
            copied there.

    Raises:
        StateExistsError: If another state is there.
        PlaceTakenError: If there are files that are of no state.
        RemoteRefusedError: If the service refuses.
        RemoteUnreachableError: If it does not answer.
        DamagedTransferError: If other bytes arrive than are sent, each time.
    """
    content = (folder / MANIFEST).read_bytes()
    if target.has(MANIFEST) and target.read(MANIFEST) == content:
        return Traffic()
    refuse_taken(target)
    listed = state.read_manifest(folder)["files"]
    paths = {name: folder / name for name in listed}
    there = target.same(paths)
    target.remove(target.sizes().keys() - paths.keys())
    if parent is not None and target.shares_service_with(parent):
        missing = {name: paths[name] for name in paths.keys() - there}
        there |= _copied(missing, listed, target, parent)
    rest = {name: path for name, path in paths.items() if name not in there}
    sent = target.put(rest, "state")
    target.write(MANIFEST, content)
    return sent + Traffic(1, len(content))


def _copied(
    missing: Mapping[str, Path], listed: Mapping[str, Entry], target: Storage, parent: Storage
) -> set[str]:
    """Have the service copy what the parent has there; return the names for which that went well."""
    before = state.parse_manifest(parent.read(MANIFEST), parent.url)["files"]
    by_content = {entry["sha256"]: name for name, entry in before.items()}
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
        return set()  # it may be read and not copied from: all is sent
    return target.same({name: missing[name] for name in copies})


def copy_state(source: str | Path, target: str | Path) -> Traffic:
    """Copy a whole state between a folder here and a URL, in either direction.

    Args:
        source: Where it lies.
        target: A folder that is not there yet, or a URL under which lies no state.

    Raises:
        RenateStagesError: If there is no whole state, the target is taken, or the service fails.

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
    """Return the content of a state's `state.json`, checked.

    Raises:
        MissingFileError: If there is no state.
        DamagedStateError: If it is not one.
        NewerStateError: If a later version wrote it.
    """
    url = source.url_of(MANIFEST)
    try:
        content = source.read(MANIFEST)
    except MissingFileError as error:
        cure = "check that the URL is right and that the upload to it finished"
        raise MissingFileError(url, "there is no state here", cure) from error
    state.parse_manifest(content, source.url)
    return content


class KeptStates:
    """The states that a working directory keeps, so that equal files are not fetched twice.

    Args:
        working_directory: Of the jobs; several at a time may use it.
    """

    def __init__(self, working_directory: Path) -> None:
        self._folder = working_directory / "states"

    def bring(self, source: Storage, content: bytes) -> tuple[Path, Traffic]:
        """Return a whole state's folder here; what is here already is checked, and not fetched.

        An interrupted fetching goes on from the files that were whole.

        Args:
            source: Where the state lies.
            content: Of its `state.json`.

        Raises:
            MissingFileError: If a file of it is not there.
            DamagedTransferError: If one is another than `state.json` lists.
        """
        place = self._place(content)
        with self._alone():
            if place.exists():
                with suppress(DamagedStateError, MissingFileError):
                    state.check(place)
                    os.utime(place)
                    return place, Traffic()
            partial = place.with_name(f".{place.name}.partial")
            fetched = _assemble(source, content, partial, self._held())
            if place.exists():
                shutil.rmtree(place)
            partial.rename(place)
            self._displace()
        return place, fetched

    def take(self, folder: Path) -> Path:
        """Move a whole state in, and return where it is from then on."""
        place = self._place((folder / MANIFEST).read_bytes())
        with self._alone():
            if place.exists():  # the same state: an update that was done twice
                shutil.rmtree(folder)
            else:
                folder.rename(place)
            os.utime(place)
            self._displace()
        return place

    def _place(self, content: bytes) -> Path:
        return self._folder / hashlib.sha256(content).hexdigest()[:16]

    def _held(self) -> dict[str, Path]:
        """Return the files of all states here by the SHA-256 that they had."""
        held = {}
        unsent = self._folder.with_name(UNSENT)
        for folder in (*self._kept(), *unsent.glob("*")):
            with suppress(RenateStagesError):  # one that cannot be read has nothing to give
                listed = state.read_manifest(folder)["files"]
                held.update({entry["sha256"]: folder / name for name, entry in listed.items()})
        return held

    def _displace(self) -> None:
        """Remove all states but the last ones, and what interrupted fetching left."""
        kept = sorted(self._kept(), key=lambda path: path.stat().st_mtime)
        for folder in (*kept[:-LAST], *self._folder.glob(f".{NAME}.partial")):
            shutil.rmtree(folder)

    def _kept(self) -> list[Path]:
        """Return the folders that we made; a user may have others here."""
        return [path for path in self._folder.glob(NAME) if (path / MANIFEST).is_file()]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file is closed
            yield


def _assemble(source: Storage, content: bytes, folder: Path, held: Mapping[str, Path]) -> Traffic:
    """Put a state together: files that are here are linked, the others fetched.

    Args:
        source: Where it lies.
        content: Of its `state.json`.
        folder: Where; what an interrupted attempt left there is used.
        held: Files here by SHA-256, which is checked.
    """
    listed = state.parse_manifest(content, source.url)["files"]
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
