"""What the labels of new data mean for the parent: new ones, lookalikes, and unused settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from renate_stages.errors import did_you_mean
from renate_stages.memory import ExampleStore, Ragged
from renate_stages.memory.spec import IGNORED
from renate_stages.params.data import LabelParams
from renate_stages.state.state import State
from renate_stages.tasks import may_have_labels
from renate_stages.tasks.labels import LabelNames, lookalikes, shown

LISTED = 10  # names in one line


@dataclass(frozen=True)
class FoundLabels:
    """The labels of an update's data.

    Args:
        rows: For each split, the number of rows by label; a row of task `tokens` counts once for each
            of its labels.
        new_rows: Number of training and test rows with a label that the parent has not seen.
        seen: The labels that the parent has seen; None if that is unknown.
    """

    rows: Mapping[str, Mapping[int, int]]
    new_rows: int
    seen: frozenset[int] | None

    @property
    def new(self) -> dict[int, int]:
        """Number of training and test rows by new label, in the order of labels."""
        every = sorted(set().union(*self.rows.values()) - (self.seen or frozenset()))
        return {
            label: sum(self.rows.get(split, {}).get(label, 0) for split in ("train", "test"))
            for label in every
        }

    @classmethod
    def of(
        cls, stores: Mapping[str, ExampleStore], parent: State | None, task: str | None
    ) -> FoundLabels:
        """Count the labels of an update's data.

        Args:
            stores: Stores by the name of the split.
            parent: The state that the update starts from.
            task: Name of the task, as in `params.yaml`.
        """
        labels = {name: _Labels.of(store, task) for name, store in stores.items()}
        rows = {name: each.rows() for name, each in labels.items()}
        seen = seen_by(parent)
        judged = (labels[name] for name in ("train", "test") if name in labels)
        return cls(rows, sum(each.rows_without(seen or frozenset()) for each in judged), seen)

    def figures(self, names: LabelNames) -> dict[str, Any]:
        """Return the entry `labels` of `metrics/data.json`; see `LabelFigures`.

        It is empty if all labels are new and have no names, or if it is unknown which ones are new.
        """
        if not any(self.rows.values()):
            return {"new": {}, "new_rows": 0}
        if self.seen is None or not (self.seen or names.names):
            return {}
        new = {shown(label, names.names): rows for label, rows in self.new.items()}
        common = sorted(new, key=lambda name: -new[name])
        others = [name for name in names.names if name not in new]
        alike = lookalikes(common, others) if names.names else {}
        figures = {"new": new, "new_rows": self.new_rows}
        return figures | ({"differ_only_in_case": alike} if alike else {})

    def unused(self, settings: LabelParams, names: LabelNames, parent: State | None) -> list[str]:
        """Return lines for the user on names in `data.labels` that no label has.

        Args:
            settings: The block `data.labels`.
            names: Names of labels, after all data was read.
            parent: The state that the update starts from.
        """
        have_rows = set(self.seen or ()).union(*self.rows.values())
        known = [shown(label, names.names) for label in have_rows]
        numbers = {name: number for number, name in enumerate(names.names)}
        empty = [name for name in settings.order if numbers[name] not in have_rows]
        lines = _lines(
            "data.labels.order: no row so far has", empty, set(known) - set(settings.order)
        )
        earlier = parent.provenance.labels if parent is not None else ()
        found = names.found.union(earlier)
        idle = [name for name in settings.rename if name not in found]
        what = "data.labels.rename: no label of this data or of earlier updates is"
        return lines + _lines(what, idle, found)


def seen_by(parent: State | None) -> frozenset[int] | None:
    """Return the labels that a state has seen; None if that is unknown.

    An imported model has seen the labels of its outputs, if they are declared. The state of a task with
    a label for each position has no list of labels, only their names.
    """
    if parent is None:
        return frozenset()
    source = parent.provenance
    if source.classes and source.kind != "init":
        return frozenset(source.classes)
    seen = frozenset(source.classes).union(range(len(source.labels)))
    return seen if seen or not parent.has_model else None


@dataclass(frozen=True)
class _Labels:
    """The labels of a split, without ignored ones.

    Args:
        values: Labels, int64 `(n,)`; empty if targets are no labels.
        places: The row of each label, int64 `(n,)`; None if it is its place in `values`.
    """

    values: np.ndarray
    places: np.ndarray | None = None

    @classmethod
    def of(cls, store: ExampleStore, task: str | None) -> _Labels:
        none = cls(np.zeros(0, dtype=np.int64))
        field = store.spec.fields.get("targets") if store.spec is not None else None
        if field is None or field.dtype.kind not in "iu":
            return none
        targets = store.column("targets")
        if isinstance(targets, np.ndarray) and targets.ndim == 1 and may_have_labels(task):
            return cls(targets[targets != IGNORED].astype(np.int64))
        if task != "tokens":
            return none
        if isinstance(targets, Ragged):
            values, lengths = targets.values, targets.lengths
        else:
            lengths = np.full(len(targets), int(np.prod(targets.shape[1:])))
            values = targets.reshape(-1)
        counted = values != IGNORED
        places = np.repeat(np.arange(len(targets)), lengths)
        return cls(values[counted].astype(np.int64), places[counted])

    def rows(self) -> dict[int, int]:
        """Return the number of rows by label."""
        values = self.values
        if self.places is not None:  # a row counts once for each of its labels
            values = np.unique(np.stack([values, self.places]), axis=1)[0]
        found, counts = np.unique(values, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    def rows_without(self, known: frozenset[int]) -> int:
        """Return the number of rows with a label that is not among the known ones."""
        others = ~np.isin(self.values, np.array(sorted(known), dtype=np.int64))
        return int(others.sum()) if self.places is None else len(np.unique(self.places[others]))


def _lines(what: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a line for each name that is close to a known one, and one line for all others."""
    hints = {name: did_you_mean(name, known) for name in names}
    lines = [f"{what} '{name}'{hint}" for name, hint in hints.items() if hint]
    plain = [f"'{name}'" for name, hint in hints.items() if not hint]
    more = f" and {len(plain) - LISTED} more" if len(plain) > LISTED else ""
    return lines + ([f"{what} {', '.join(plain[:LISTED])}{more}"] if plain else [])
