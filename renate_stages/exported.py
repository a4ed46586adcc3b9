"""What an exported model says of itself: `export/export.json`, and so `champion/export.json`.

With the model's files and the copy of the user's code beside it, it is all that builds the model.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import MalformedFileError

DESCRIPTION = "export.json"
SCHEMA = 1


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
        return cls._of(files.read_json(path), path)

    @classmethod
    def parse(cls, content: bytes) -> Exported:
        """Read a description, wherever it is from.

        Raises:
            MalformedFileError: If it is not what `write` writes.
        """
        try:
            return cls._of(json.loads(content), DESCRIPTION)
        except (ValueError, RecursionError) as error:
            raise MalformedFileError(DESCRIPTION, "JSON", str(error)) from error

    @classmethod
    def _of(cls, content: Any, path: Path | str) -> Exported:
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise MalformedFileError(path, "an exported model", f"expected schema {SCHEMA}")
        kinds = {
            "update": int,
            "state": str,
            "task_id": str,
            "hyperparameters": dict,
            "figures": dict,
        }
        wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
        if wrong:
            reason = f"lacks or has of another kind: {', '.join(wrong)}"
            raise MalformedFileError(path, "an exported model", reason)
        return cls(**{name: content[name] for name in kinds})


def is_same(one: Path, other: Path) -> bool:
    """Return whether two exported models are the same files with the same bytes."""
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (one, other)
    ]
    same = names[0] == names[1]
    return same and all(filecmp.cmp(one / n, other / n, shallow=False) for n in names[0])
