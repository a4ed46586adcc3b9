"""`export/export.json`: what is recorded of an exported model.

With the model's files and the copy of the user's code beside it, it is all that builds the model.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.files import typed
from renate_stages.files.typed import Content, Figure, UpdateNumber

DESCRIPTION = "export.json"
SCHEMA = 1
CURE = "run `renate-stages verify --repair`, which restores the folder that Git records"


@dataclass(frozen=True)
class Exported:
    """An exported model, or none: what a project has before its first promotion.

    Args:
        update: Number of the update that made it; 0: there is no model.
        state: Identity of that update's state.
        task_id: Task of that update.
        hyperparameters: Of which `model_fn` and the transforms get those that they name.
        figures: Of the headline metric, by name.
    """

    update: int = 0
    state: str = ""
    task_id: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.update > 0

    @property
    def label(self) -> str:
        """Return how a user speaks of it."""
        return f"update {self.update}" if self else "none"

    def write(self, folder: Path) -> None:
        """Write it beside the model; equal content gives equal bytes."""
        files.write_json(folder / DESCRIPTION, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Read the description of a model in its folder.

        Raises:
            MalformedFileError: If it is missing, or not what `write` writes.
        """
        path = folder / DESCRIPTION
        return cls._of(files.read_json(path, CURE), path)

    @classmethod
    def parse(cls, content: bytes) -> Exported:
        """Read a description, wherever it is from.

        Raises:
            MalformedFileError: If it is not what `write` writes.
        """
        return cls._of(typed.parse_json(content, DESCRIPTION, CURE), DESCRIPTION)

    @classmethod
    def _of(cls, content: Any, path: Path | str) -> Exported:
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise MalformedFileError(path, "an exported model", f"expected schema {SCHEMA}", CURE)
        found = typed.checked(_Description, content, path, "an exported model", CURE)
        return cls(**dict(found))


class _Description(Content):
    update: UpdateNumber
    state: str
    task_id: str
    hyperparameters: dict[str, Any]
    figures: dict[str, Figure]


def is_same(one: Path, other: Path) -> bool:
    """Return whether two exported models are the same files with the same bytes."""
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (one, other)
    ]
    same = names[0] == names[1]
    return same and all(filecmp.cmp(one / n, other / n, shallow=False) for n in names[0])
