"""Check that all trials of a search used the same user files.

Trials are processes that load the user's code at different times, and someone may edit it meanwhile.
Before each report, a trial sends the hashes of the files that it used. They are stored with the
trials, so that a search that was killed does not continue with trials of different code.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import ChangedInputsError, MalformedFileError
from renate_stages.params import Params
from renate_stages.state.inputs import Inputs
from renate_stages.user.file_watch import CODE
from renate_stages.user.used_files import UserFiles

NAME = "files.json"
PARAMETERS = (
    "the parameters in params.yaml"  # used as a file name, for the digest of the parameters
)
READ = frozenset(
    {"evaluation", "hyperparameters", "learner", "retention", "seed", "trainer", "tuning", "update"}
)
"""The blocks of `params.yaml` that `tune` reads."""
ANEW = "the search starts again: {} changed since its trials"


@dataclass(frozen=True)
class SearchFiles:
    """The files that one search uses, with their hashes.

    Args:
        folder: Folder of the search.
        base: Digest of its inputs without the user's files.
        known: SHA-256 by path; for the parameters, a digest.
        seen: Paths that a process has reported as used.
    """

    folder: Path
    base: str
    known: dict[str, str]
    seen: set[str]

    @classmethod
    def open(
        cls,
        folder: Path,
        inputs: Inputs,
        used: UserFiles,
        parameters: str,
        say: Callable[[str], None],
    ) -> SearchFiles:
        """Read the recorded files; if a file has changed, remove the trials and print a message.

        Args:
            folder: Folder of the search.
            inputs: Inputs of the search.
            used: The user's files that importing `renate_config.py` has used.
            parameters: The result of `digest_of` for the parameters.
            say: Function that prints a line.

        Raises:
            ChangedInputsError: If a file was edited while it was read.
        """
        if changed := used.unlike(inputs.files):
            raise ChangedInputsError("tune", changed)
        recorded = _read(folder).get("files", {})
        changed = [name for name in used.differing(recorded) if name in recorded]
        if changed:
            say(ANEW.format(", ".join(changed)))
            shutil.rmtree(folder)
            recorded = {}
        elif not folder.exists():
            for other in sorted(folder.parent.glob(f"*/{NAME}")):
                content = _read(other.parent)
                if content.get("base") == inputs.base:
                    names = ", ".join(used.differing(content["files"]))
                    say(ANEW.format(names or "a file"))
                    break
        declared = {name: each for name, each in inputs.files.items() if name != CODE}
        known = {**declared, **recorded, **used.imported(), PARAMETERS: parameters}
        return cls(folder, inputs.base, known, {*recorded, *used.imported(), PARAMETERS})

    def add(self, used: Mapping[str, str]) -> None:
        """Record the files that a trial used.

        Raises:
            ChangedInputsError: If another trial, or the search itself, used other content.
        """
        if changed := [name for name, sha in used.items() if self.known.get(name, sha) != sha]:
            raise ChangedInputsError("tune", changed)
        new = used.keys() - self.known.keys()
        self.seen.update(used)
        self.known.update(used)
        if new or not (self.folder / NAME).is_file():
            kept = {name: each for name, each in self.known.items() if name != PARAMETERS}
            files.write_json(self.folder / NAME, {"base": self.base, "files": kept})

    def drop_unseen(self, changed: list[str]) -> None:
        """Remove all trials if a changed file is among those that no process has reported.

        For such a file it is unknown which content the trials read.
        """
        if set(changed) - self.seen:
            shutil.rmtree(self.folder, ignore_errors=True)


def digest_of(params: Params) -> str:
    """Return a digest of the parameters that trials read."""
    return files.digest(params.model_dump(mode="json", include=set(READ)))


def _read(folder: Path) -> dict[str, Any]:
    with suppress(MalformedFileError):
        content = files.read_json(folder / NAME)
        if isinstance(content, dict) and isinstance(content.get("files"), dict):
            return content
    return {}
