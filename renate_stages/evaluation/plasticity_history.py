"""Figures of a model's ability to learn, over the updates: `plasticity.csv` of a state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.files import typed
from renate_stages.files.csv_file import csv_text

Phase = Literal["before", "after"]
PHASES: tuple[Phase, ...] = get_args(Phase)
FIGURES = ("dead_units", "weight_norm", "effective_rank", "feature_dimension")
FILE = "plasticity.csv"
COLUMNS: dict[str, type] = {"update": int, "phase": str, **dict.fromkeys(FIGURES, float)}
CURE = "restore the state, for example with `dvc checkout` or `dvc pull`"
Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class PlasticityHistory:
    """The figures of the model that each update started from, and of its result.

    Args:
        figures: The figures by update and phase; None for a figure that a model does not have.
    """

    figures: Mapping[tuple[int, Phase], Figures] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> PlasticityHistory:
        """Read a history; it is empty if the file is missing, as in states of older releases.

        Raises:
            MalformedFileError: If the file is malformed.
        """
        if not path.is_file():
            return cls()
        found: dict[tuple[int, Phase], Figures] = {}
        for row in typed.read_table(path, COLUMNS, "a history of plasticity", CURE):
            key = row["update"], row["phase"]
            problem = None
            if row["update"] < 0:
                problem = f"update is {row['update']}, expected a whole number, at least 0"
            elif row["phase"] not in PHASES:
                problem = f"phase is {row['phase']!r:.40}, expected one of {', '.join(PHASES)}"
            elif key in found:
                problem = f"update {key[0]} has two rows {key[1]}"
            if problem:
                raise MalformedFileError(path, "a history of plasticity", problem, CURE)
            found[key] = {name: _known(row[name]) for name in FIGURES}
        return cls(found)

    def with_update(
        self, update: int, before: Figures | None, after: Figures | None
    ) -> PlasticityHistory:
        """Return a history with the figures of one more update, which replace those of the same.

        Args:
            update: Number of the update.
            before: Figures of the model that it started from; None: not measured.
            after: Figures of its result; None: not measured.
        """
        kept = {key: each for key, each in self.figures.items() if key[0] != update}
        for phase, figures in zip(PHASES, (before, after), strict=True):
            if figures:
                kept[update, phase] = figures
        return PlasticityHistory(kept)

    def after(self) -> dict[int, Figures]:
        """Return the figures of the result of each update, ascending."""
        keys = sorted(key for key in self.figures if key[1] == "after")
        return {update: self.figures[update, phase] for update, phase in keys}

    def summary(self, update: int) -> dict[str, Any] | None:
        """Return the block `plasticity` of `metrics/update.json`; None if it was not measured."""
        after = self.figures.get((update, "after"))
        if after is None:
            return None
        before = self.figures.get((update, "before"), {})
        return {
            **_shown(after),
            "before": _shown(before),
        }

    def write(self, path: Path) -> None:
        """Write the history, if it has any figures; equal histories give equal bytes."""
        ordered = sorted(self.figures.items(), key=lambda e: (e[0][0], PHASES.index(e[0][1])))
        rows = [{"update": n, "phase": phase, **each} for (n, phase), each in ordered]
        if rows:
            files.write_text(path, csv_text(tuple(COLUMNS), rows))


def _shown(figures: Figures) -> dict[str, float | None]:
    whole = figures.get("feature_dimension")
    shown = {name: figures.get(name) for name in FIGURES}
    return shown | {"feature_dimension": None if whole is None else int(whole)}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
