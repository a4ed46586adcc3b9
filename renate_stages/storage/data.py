"""Download new data from a URL; files that are already on this machine are not transferred again.

working_directory/incoming/<name>-<digest of the URL>/        the files
working_directory/incoming/<name>-<digest of the URL>.json    size and ETag or time of each file
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
    """Make a local folder equal to the files under a URL; files missing there are removed.

    A file is not downloaded again if its size and its ETag (or modification time) are the same as at
    its last download, and the local copy has not changed since.

    Args:
        source: Storage with the data.
        working_directory: Working directory of the jobs.

    Returns:
        The folder, and the downloaded files and bytes.

    Raises:
        MissingFileError: If there are no files under the URL.
        InvalidUrlError: If a file's name is not a valid relative path.
        RemoteRefusedError: If the service refuses a request.
        RemoteUnreachableError: If the service does not respond.
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
        if relative not in versions or known.get(relative) != _version(versions[relative], path):
            path.unlink()
    missing = {name: folder / name for name in versions if not (folder / name).exists()}
    try:
        fetched = source.get(missing, versions, "data")
    finally:  # after a failure, the next attempt does not fetch the complete files again
        present = {name: folder / name for name in versions if (folder / name).exists()}
        recorded = {name: _version(versions[name], path) for name, path in present.items()}
        files.write_json(record, recorded)
    return folder, fetched


def _read(record: Path) -> dict[str, Any]:
    try:
        known = files.read_json(record)
    except MalformedFileError:  # the record does not exist yet
        return {}
    return known if isinstance(known, dict) else {}


def _version(version: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values that must be unchanged for a file not to be fetched again."""
    return {**version, "changed": path.stat().st_mtime_ns}
