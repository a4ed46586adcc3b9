"""Apply retention rules and the forget list to the stores of an update.

Rows that must not be kept are removed from disk completely: the shards that contain them, as live
or as dead rows, are rewritten without them. Stores without such rows stay unchanged. This module
needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.memory import ExampleStore, evolve, link_store
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.never_keep import check_never_keep, never_kept
from renate_stages.params import RetentionParams
from renate_stages.randomness import Generators
from renate_stages.state.prepared import PreparedData
from renate_stages.state.state import SPLITS, State

NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Kept:
    """An update's inputs, without the examples that must not be kept.

    Args:
        parent: The parent's state; its examples are in a scratch folder if any were removed.
        data: The new data; `test` and `val` are already reduced to the rows to keep.
        keepable: Rows of `data.train` that may enter a memory, int64.
        memory_rows: For each live row of the parent's original memory, whether it is kept, bool.
        update: Number of the update.
        left: Number of rows removed from each of the parent's stores, including dead rows.
        forgotten: Live rows of the parent's original memory to forget, int64.
    """

    parent: State
    data: PreparedData
    keepable: np.ndarray
    memory_rows: np.ndarray
    update: int
    left: dict[str, int] = field(default_factory=dict)
    forgotten: np.ndarray = field(default_factory=NOTHING.copy)

    def splits(self, name: str) -> dict[int, ExampleStore]:
        """Return the stores of `holdouts` or `validation` by update, without empty new ones."""
        own = {"holdouts": self.data.test, "validation": self.data.val}[name]
        return self.parent.split(name) | ({self.update: own} if len(own) else {})


@dataclass(frozen=True)
class Retention:
    """Applies the retention rules of one update.

    Args:
        forget: Examples to forget.
        retention: Which examples are kept, and for how many updates.
        generators: The update's random generators, which choose the rows of a holdout to keep.
    """

    forget: ForgetList
    retention: RetentionParams
    generators: Generators

    def apply(
        self,
        parent: State,
        data: PreparedData,
        scratch: Path,
        splits: Collection[str] = SPLITS,
    ) -> Kept:
        """Return the inputs of an update without the examples that must not be kept.

        Args:
            parent: The state to start from; it is not changed.
            data: The new data; it is not changed.
            scratch: An empty folder for the changed stores, on the project's file system.
            splits: The parent's splits to include; a training alone does not need the holdouts.
        """
        rules = self.retention
        old = {name: parent.split(name) for name in splits}
        memory = parent.memory()
        everything = [data.train, data.val, data.test, memory]
        everything += [store for stores in old.values() for store in stores.values()]
        check_never_keep(rules.never_keep, everything)
        test = self._new(data.test, scratch / "test", rules.holdout_rows, "holdouts")
        val = self._new(data.val, scratch / "val", rules.validation_rows, "validation")
        kept_data = replace(data, test=test, val=val)
        keepable = np.flatnonzero(~self._barred(data.train)[data.train.stored_live()])

        to_forget = self.forget.stored_rows(memory)
        barred = to_forget | never_kept(store=memory, values=rules.never_keep)
        barred |= self._too_old(memory)
        memory_rows = ~barred[memory.stored_live()]
        forgotten = np.flatnonzero(to_forget[memory.stored_live()])
        stores = {"memory": (memory, barred)}
        found_in: dict[str, list[int]] = {}
        limits = {
            "holdouts": (rules.holdout_rows, rules.holdout_updates),
            "validation": (rules.validation_rows, rules.validation_updates),
        }
        for name in splits:
            rows, updates = limits[name]
            found = old[name]
            oldest = self.generators.update - updates + 1 if updates is not None else 0
            for update, store in found.items():
                barred = self._barred(store) | (update < oldest)
                barred |= self._beyond(store, barred, rows, f"{name} {update}")
                stores[f"{name}/{update}"] = (store, barred)
            found_in[name] = sorted(found)
        left = {name: int(barred.sum()) for name, (_, barred) in stores.items() if barred.any()}
        if left:
            parent = replace(parent, examples=self._written(parent, stores, found_in, scratch))
        update = self.generators.update
        return Kept(parent, kept_data, keepable, memory_rows, update, left, forgotten)

    def _written(
        self,
        parent: State,
        stores: Mapping[str, tuple[ExampleStore, np.ndarray]],
        splits: Mapping[str, list[int]],
        scratch: Path,
    ) -> Path:
        """Write the parent's examples without the barred rows; link stores that have none."""
        folder = scratch / "parent"
        left: dict[str, ExampleStore] = {}
        for name, (store, barred) in stores.items():
            kept = np.flatnonzero(~barred[store.stored_live()])
            if not barred.any():
                left[name] = link_store(store.path, folder / name)
            elif len(kept) or name == "memory":
                update = self.generators.update
                target = folder / name
                left[name] = evolve(target, store, kept, None, NOTHING, update, erased=barred)
        for name, updates in splits.items():
            present = [update for update in updates if f"{name}/{update}" in left]
            files.write_json(folder / name / "index.json", {"updates": present})
        if "holdouts" in splits:
            files.link_or_copy(parent.examples / "evaluations.csv", folder / "evaluations.csv")
        return folder

    def _new(self, store: ExampleStore, target: Path, most: int | None, name: str) -> ExampleStore:
        """Return a new split without the rows that must not be kept."""
        barred = self._barred(store)
        barred |= self._beyond(store, barred, most, f"{name} {self.generators.update}")
        if not barred.any():
            return store
        rows = np.flatnonzero(~barred[store.stored_live()])
        return evolve(target, None, NOTHING, store, rows, self.generators.update)

    def _barred(self, store: ExampleStore) -> np.ndarray:
        """Return which stored rows are on the forget list or match `never_keep`."""
        return self.forget.stored_rows(store) | never_kept(store, self.retention.never_keep)

    def _too_old(self, store: ExampleStore) -> np.ndarray:
        """Return which stored rows came more than `memory_updates` updates ago.

        Rows from older releases do not record their update; it is that of their shard or an earlier
        one, so the shard's is used.
        """
        most = self.retention.memory_updates
        if most is None or store.spec is None:
            return np.zeros(store.offsets[-1], dtype=bool)
        shards = store.shards
        came = np.repeat([each.update for each in shards], [each.rows for each in shards])
        known = store.stored_known("meta.update")
        if known.any():
            came[known] = store.stored_column("meta.update")[known]
        return came < self.generators.update - most

    def _beyond(
        self, store: ExampleStore, barred: np.ndarray, most: int | None, name: str
    ) -> np.ndarray:
        """Return which stored rows exceed the limit `most`, chosen at random.

        If there are more live rows than `most`, this includes all dead rows.
        """
        beyond = np.zeros(len(barred), dtype=bool)
        live = store.stored_live()
        live = live[~barred[live]]
        if most is not None and len(live) > most:
            generator = self.generators.numpy(f"retention of {name}")
            beyond[~barred] = True
            beyond[generator.choice(live, most, replace=False)] = False
        return beyond
