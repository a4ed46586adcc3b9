"""`export/export.json`: the description of an exported model.

Together with the model's files and the copy of the user's code, it is sufficient to build the model.
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
from renate_stages.user.named import Named

DESCRIPTION = "export.json"
SCHEMA = 1
CURE = "run `renate-stages verify --repair`, which restores the folder that Git records"


@dataclass(frozen=True)
class Exported:
    """The description of an exported model; empty before a project's first promotion.

    Args:
        update: Number of the update that made it; 0 if there is no model.
        state: Identity of that update's state.
        task_id: Task of that update.
        hyperparameters: Values for `model_fn` and the transforms, which get those that their
            signatures name.
        figures: Figures of the headline metric, by name.
        model: The model that `params.yaml` named; None: that of `model_fn`.
    """

    update: int = 0
    state: str = ""
    task_id: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)
    model: str | None = None

    def __bool__(self) -> bool:
        return self.update > 0

    @property
    def label(self) -> str:
        """The model's name in messages."""
        return f"update {self.update}" if self else "none"

    @property
    def named(self) -> Named:
        """What replaces functions of `renate_config.py`, to build the model."""
        return Named(self.model, reads_data=False)

    def write(self, folder: Path) -> None:
        """Write the description to the model's folder; equal content gives equal bytes."""
        content = {"schema": SCHEMA, **asdict(self)}
        content = {name: each for name, each in content.items() if each is not None}
        files.write_json(folder / DESCRIPTION, content)

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Read the description of a model in its folder.

        Raises:
            MalformedFileError: If it is missing or malformed.
        """
        path = folder / DESCRIPTION
        return cls._of(files.read_json(path, CURE), path)

    @classmethod
    def parse(cls, content: bytes) -> Exported:
        """Parse the bytes of a description.

        Raises:
            MalformedFileError: If it is malformed.
        """
        return cls._of(typed.parse_json(content, DESCRIPTION, CURE), DESCRIPTION)

    @classmethod
    def _of(cls, content: Any, path: Path | str) -> Exported:
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise MalformedFileError(path, "an exported model", f"expected schema {SCHEMA}", CURE)
        description = typed.checked(_Description, content, path, "an exported model", CURE)
        return cls(**dict(description))


class _Description(Content):
    update: UpdateNumber
    state: str
    task_id: str
    hyperparameters: dict[str, Any]
    figures: dict[str, Figure]
    model: str | None = None


def is_same(one: Path, other: Path) -> bool:
    """Return whether two exported models have the same files with the same bytes."""
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (one, other)
    ]
    same = names[0] == names[1]
    return same and all(filecmp.cmp(one / n, other / n, shallow=False) for n in names[0])
