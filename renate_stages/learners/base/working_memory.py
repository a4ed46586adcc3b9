"""The memory during an update: the parent's examples, and new ones if it is updated online.

Examples are read from their stores. Their fields (logits, features) are read from the parent's store
too, unless some are missing or new. In that case all of them are held in main memory as one float32
tensor `(members, ...)` per field.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from renate_stages.data import Batch, ConcatStored, StoredDataset
from renate_stages.memory import Selection, SelectionPolicy
from renate_stages.memory.spec import METADATA

Fields = dict[str, Tensor]
BLOCK = 256  # examples per forward pass


class ChosenMemory(NamedTuple):
    """The memory after an update.

    Args:
        selection: Rows of the old memory that stay, and rows of the new data that enter.
        added_fields: Fields of the added rows, by name, `(len(added), ...)`.
        fields: Fields of all rows, kept rows first; only if fields of kept rows changed too.
    """

    selection: Selection
    added_fields: Mapping[str, np.ndarray] = {}
    fields: Mapping[str, np.ndarray] = {}


class WorkingMemory:
    """The memory's members, each at a place >= 0 that it keeps until another member replaces it.

    Args:
        old: The parent's memory, with the memory's transforms.
        new: The new data, with the memory's transforms.
        fields: Names of the fields that are stored with each example.
        replayed: Name of the field that members have in place of their inputs when they are read;
            None: the inputs. Members must then be examples of the parent's memory.
    """

    def __init__(
        self,
        old: StoredDataset,
        new: StoredDataset,
        fields: Sequence[str] = (),
        replayed: str | None = None,
    ) -> None:
        self._examples = ConcatStored([old, new])
        self._old = old
        self._rows = np.arange(len(old))  # row of each member; new rows follow the old ones
        self._labels = _joined(old.labels(), new.labels(), len(old), len(new))
        self._names = tuple(fields)
        self._replayed = replayed
        self._held: Fields | None = None  # fields of members; None: read from the old store
        self.changes = 0  # how often members were replaced
        self._changed = False  # whether fields of old members differ from those in the store

    def __len__(self) -> int:
        return len(self._rows)

    # -- reading ----------------------------------------------------------------------------------

    def read(self, places: np.ndarray) -> Batch:
        """Return the members at the given places, int64 `(n,)`, as one batch."""
        fields, rows = self._fields_of(places), self._rows[places]
        if self._replayed is not None:
            inputs, targets = fields.pop(self._replayed), self._old.targets(rows)
        else:
            inputs, targets = self._examples.__getitems__(rows)
        weights = self._examples.weights(rows)
        return Batch(inputs, targets, places, fields, weights=weights)

    def read_with(self, transforms: tuple[Any, Any], places: np.ndarray) -> Batch:
        """Return what `read` does, with other transforms of inputs and targets, without fields."""
        parts = [StoredDataset(each.store, each.rows, *transforms) for each in self._examples.parts]
        found = Batch.of(ConcatStored(parts), self._rows[places])
        return found.of_rows(places, None)

    @property
    def labels(self) -> np.ndarray | None:
        """The stored label of each member, int64 `(members,)`; None if an example has none."""
        return self._labels_of(self._rows)

    def values(self, name: str) -> Tensor:
        """Return a field of all members, float32 `(members, ...)`, and hold it in main memory."""
        if self._held is None:
            self._hold()
        return torch.empty(0) if self._held is None else self._held[name]

    def _fields_of(self, places: np.ndarray) -> Fields:
        if not self._names:
            return {}
        if self._held is not None:
            index = torch.from_numpy(places)
            return {name: self._held[name][index] for name in self._names}
        return {name: self.stored(name, places) for name in self._names}

    def stored(self, name: str, places: np.ndarray | None = None) -> Tensor:
        """Return a field of old members from their store.

        Args:
            name: Name of a field that the store has.
            places: The members' places, int64 `(n,)`; None: all.
        """
        rows = np.arange(len(self._old)) if self._old.rows is None else self._old.rows
        path = METADATA + name
        chosen = rows if places is None else rows[places]
        column: Any = self._old.store.columns(chosen, [path])[path]
        return torch.from_numpy(column)

    # -- fields of the examples -------------------------------------------------------------------

    def complete(
        self,
        shapes: Mapping[str, torch.Size],
        compute: Callable[[np.ndarray], Fields],
        outdated: Collection[str] = (),
    ) -> int:
        """Compute missing fields of old members; call this before training.

        If a field's vectors are shorter, because there were fewer classes, they are padded by NaN.

        Args:
            shapes: Shape of each field of one example, as the model returns it now.
            compute: Returns the fields of the members at the given places, int64 `(n,)`.
            outdated: Fields whose stored values are not used, because another model computed them.

        Returns:
            The number of members with missing fields.
        """
        if not self._names or not len(self._old):
            return 0
        spec = self._old.store.spec
        assert spec is not None
        usable = [name for name in self._names if name not in outdated]
        known = {name: spec.metadata.get(METADATA + name) for name in usable}
        whole = len(usable) == len(self._names) and all(
            each is not None and each.shape == tuple(shapes[n]) for n, each in known.items()
        )
        if whole and not any(self._lacks(name).any() for name in self._names):
            return 0
        held, lacking = {}, np.zeros(len(self._old), dtype=bool)
        for name in self._names:
            held[name] = torch.full((len(self._old), *shapes[name]), torch.nan, dtype=torch.float32)
            each = known.get(name)
            if each is None or not _is_prefix(each.shape, shapes[name]):
                lacking[:] = True
                continue
            values = self.stored(name).float()
            held[name][..., : values.shape[-1]] = values
            lacking |= self._lacks(name)
        self._held, self._changed = held, True
        places = np.flatnonzero(lacking)
        for start in range(0, len(places), BLOCK):
            block = places[start : start + BLOCK]
            for name, values in compute(block).items():
                held[name][torch.from_numpy(block)] = values.float().cpu()
        return len(places)

    def _lacks(self, name: str) -> np.ndarray:
        return self.stored(name).flatten(1).isnan().all(1).numpy()

    # -- online -----------------------------------------------------------------------------------

    def shrink(self, policy: SelectionPolicy) -> None:
        """Reduce the members to the policy's size."""
        if policy.size is None or len(self) <= policy.size:
            return
        nothing = np.empty(0, dtype=np.int64)
        kept, _ = policy.select(self._labels_of(self._rows), nothing, len(self), 0)
        if self._names and self._held is None:
            self._hold()
        self._rows = self._rows[kept]
        self.changes += 1
        if self._held is not None:
            self._held = {n: each[torch.from_numpy(kept)] for n, each in self._held.items()}

    def offer(self, policy: SelectionPolicy, rows: np.ndarray, fields: Fields) -> None:
        """Offer new examples to a policy, and add those that it chooses.

        Args:
            policy: The policy.
            rows: Rows of the new data, int64 `(n,)`.
            fields: Fields of these rows, by name, `(n, ...)`.
        """
        number = len(self._old) + rows
        old_labels, new_labels = (
            self._labels_of(each) if policy.needs_labels else None for each in (self._rows, number)
        )
        places, added = policy.place(old_labels, new_labels, len(self), len(rows))
        if not len(added):
            return
        index = torch.from_numpy(added)
        self.put(places, rows[added], {name: each.cpu()[index] for name, each in fields.items()})

    def put(self, places: np.ndarray, rows: np.ndarray, fields: Fields) -> None:
        """Put new examples at places, where they replace members.

        Args:
            places: int64 `(n,)`, distinct; places beyond the memory's length are consecutive.
            rows: Rows of the new data, int64 `(n,)`.
            fields: Fields of these rows, by name, `(n, ...)`.
        """
        if not len(rows):
            return
        if self._names and self._held is None:
            self._hold(fields)
        more = int(places.max()) + 1 - len(self)
        if more > 0:
            self._rows = np.concatenate([self._rows, np.full(more, -1)])
        self._rows[places] = len(self._old) + rows
        self.changes += 1
        if self._held is not None:
            index = torch.from_numpy(places)
            for name, held in self._held.items():
                if more > 0:
                    held = torch.cat([held, held.new_full((more, *held.shape[1:]), torch.nan)])
                held[index] = fields[name].float().cpu()
                self._held[name] = held

    def _hold(self, like: Fields | None = None) -> None:
        """Load the fields of all members into main memory."""
        if len(self._rows):
            self._held = self._fields_of(self._rows)
        elif like is not None:
            self._held = {
                name: torch.empty((0, *like[name].shape[1:]), dtype=torch.float32)
                for name in self._names
            }

    def chosen(self) -> ChosenMemory:
        """Return the current memory in the order in which examples arrived."""
        order = np.argsort(self._rows)
        rows = self._rows[order]
        old = rows < len(self._old)
        selection = Selection(rows[old], rows[~old] - len(self._old))
        if self._held is None:
            return ChosenMemory(selection)
        values = {name: each.numpy()[order] for name, each in self._held.items()}
        if self._changed:
            return ChosenMemory(selection, fields=values)
        return ChosenMemory(selection, {name: each[~old] for name, each in values.items()})

    def at_end(self, selection: Selection, added: Mapping[str, np.ndarray]) -> ChosenMemory:
        """Return a memory that was selected at the end of the update.

        Args:
            selection: The rows that stay and enter.
            added: Fields of the added rows, by name, `(len(added), ...)`.
        """
        if self._held is None or not self._changed:
            return ChosenMemory(selection, added)
        held = {name: each.numpy()[selection.kept] for name, each in self._held.items()}
        both = {
            name: np.concatenate([held[name], added[name]]) if name in added else held[name]
            for name in held
        }
        return ChosenMemory(selection, fields=both)

    # -- resuming ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the members' rows and the fields in main memory, as tensors."""
        held = {} if self._held is None else dict(self._held)
        return {"rows": torch.from_numpy(self._rows.copy()), "held": held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._rows = state["rows"].numpy().copy()
        self.changes += 1
        if state["held"]:
            self._held = {name: each.clone() for name, each in state["held"].items()}

    def _labels_of(self, rows: np.ndarray) -> np.ndarray | None:
        return None if self._labels is None else self._labels[rows]


def _joined(
    old: np.ndarray | None, new: np.ndarray | None, num_old: int, num_new: int
) -> np.ndarray | None:
    """Return the labels of old and new rows, int64; None if any of the rows have no labels."""
    parts = [labels for labels, rows in ((old, num_old), (new, num_new)) if rows]
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if parts and len(known) == len(parts) else None


def _is_prefix(shape: tuple[int, ...], now: torch.Size) -> bool:
    """Return whether vectors of a shape equal today's except for classes added since then."""
    return len(shape) == len(now) and shape[:-1] == tuple(now[:-1]) and shape[-1] <= now[-1]
