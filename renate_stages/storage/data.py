"""Download new data from a URL; files that are already here are not transferred again.

working_directory/incoming/<name>-<digest of the URL>/        the files
working_directory/incoming/<name>-<digest of the URL>.json    what the service said of each
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import InvalidUrlError, MalformedFileError, MissingFileError
from renate_stages.state import is_inside
from renate_stages.storage.storage import Storage, Traffic


def bring_data(source: Storage, working_directory: Path) -> tuple[Path, Traffic]:
    """Bring the files under a URL here; files that are gone there go here too.

    A file stays as it is where its size and its ETag, or time of change, are as they were when it
    was fetched, and nobody changed it here since.

    Args:
        source: Where the data lies.
        working_directory: Of the jobs.

    Returns:
        The folder, and what travelled.

    Raises:
        MissingFileError: If there is no file.
        InvalidUrlError: If a file's name is no path below a folder.
        RemoteRefusedError: If the service refuses.
        RemoteUnreachableError: If it does not answer.
    """
    versions = source.versions()
    if not versions:
        cure = "check that the URL is right and names a folder, not a file"
        raise MissingFileError(source.url, "there are no files under it", cure)
    if wrong := next((name for name in versions if not is_inside(name)), None):
        problem = f"it contains {wrong!r:.80}, which is not a valid file name in a folder"
        raise InvalidUrlError(source.url, problem, "rename that file there")
    name = source.url.rsplit("/", 1)[-1]
    digest = hashlib.sha256(source.url.encode()).hexdigest()[:8]
    folder = working_directory / "incoming" / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder.with_name(f"{folder.name}.json")
    known = _read(record)
    for path in list(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_dir():
            continue
        if relative not in versions or known.get(relative) != _seen(versions[relative], path):
            path.unlink()
    missing = {name: folder / name for name in versions if not (folder / name).exists()}
    try:
        fetched = source.get(missing, versions, "data")
    finally:  # what has arrived is not fetched again when the rest has failed
        here = {name: folder / name for name in versions if (folder / name).exists()}
        files.write_json(record, {name: _seen(versions[name], path) for name, path in here.items()})
    return folder, fetched


def _read(record: Path) -> dict[str, Any]:
    try:
        known = files.read_json(record)
    except MalformedFileError:  # there is none yet
        return {}
    return known if isinstance(known, dict) else {}


def _seen(version: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what must be as before for a file not to be fetched again."""
    return {**version, "changed": path.stat().st_mtime_ns}
