"""Refuse new data that was encoded with another vocabulary, scaler or the like than old examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from renate_stages import files
from renate_stages.errors import (
    FingerprintError,
    InvalidParamsError,
    MissingFileError,
    UndeclaredUserFileError,
)
from renate_stages.project import Project
from renate_stages.state.manifest import is_inside
from renate_stages.state.state import State
from renate_stages.user.declared_files import DeclaredFiles

OWN = "data module"  # name of what `RenateDataModule.fingerprint` returns


def fingerprint_of(project: Project, names: Iterable[str], own: str | None) -> dict[str, str]:
    """Return the SHA-256 of files, and of the text that the data module returned, by name.

    Args:
        project: The project.
        names: Paths of files, relative to the folder of `renate_config.py`.
        own: The text; None: the data module has none.

    Raises:
        InvalidParamsError: If a path leads outside the folder.
        MissingFileError: If a file does not exist.
        UndeclaredUserFileError: If `dvc.yaml` does not list a file in the deps of `prepare`.
    """
    declared = DeclaredFiles.read(project.root)
    found = {} if own is None else {OWN: sha256(own.encode()).hexdigest()}
    for name in names:
        if not is_inside(name):
            problem = f"data.fingerprint: expected a path inside the project, found {name!r}"
            raise InvalidParamsError("params.yaml", [problem])
        if declared is not None and not declared.allows("prepare", name):
            raise UndeclaredUserFileError([f"data.fingerprint lists {name}"], {"prepare": [name]})
        path = project.user_config.parent / name
        if not path.is_file():
            cure = "correct data.fingerprint in params.yaml, or restore the file"
            raise MissingFileError(path, "data.fingerprint lists it", cure)
        found[name] = files.sha256(path)
    return found


def check_fingerprint(found: Mapping[str, str], parent: State | None, accepted: str | None) -> None:
    """Check that nothing changed since the parent's examples were encoded.

    What the parent has no fingerprint of is not compared, but recorded from now on.

    Args:
        found: What `fingerprint_of` returned.
        parent: The state to start from.
        accepted: Digest of a fingerprint that the user accepts although it has changed.

    Raises:
        FingerprintError: If something changed or is no longer listed.
    """
    before = parent.provenance.fingerprint if parent is not None else {}
    changed = sorted(name for name in before if found.get(name) != before[name])
    digest = files.digest(dict(found))
    if changed and accepted != digest:
        missing = {name for name in changed if name not in found}
        raise FingerprintError(changed, missing, digest)
