"""`forget.yaml`: which examples are to be forgotten, and stay out if they come in again.

It is in Git and a dependency of every stage that reads examples. It names examples by hashed ids
or by conditions on their metadata, never by content. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renate_stages import files, yaml_file
from renate_stages.errors import InvalidForgetListError
from renate_stages.memory import Column, ExampleSpec, ExampleStore
from renate_stages.memory.identity import among, content_ids, given_id, is_id
from renate_stages.memory.predicate import Predicate
from renate_stages.memory.spec import METADATA

NAME = "forget.yaml"
HEAD = """\
# Examples to forget: `renate-stages forget --ids FILE` or `--where "source == 'eu'"` adds to it.
"""


@dataclass(frozen=True)
class ForgetList:
    """The examples to forget.

    Args:
        ids: Hashed ids, 32 hexadecimal digits each.
        where: Conditions on metadata; `label` stands for an example's class.
    """

    ids: frozenset[str] = frozenset()
    where: tuple[Predicate, ...] = ()

    @classmethod
    def read(cls, path: Path) -> ForgetList:
        """Read the list; a missing file is an empty one.

        Raises:
            InvalidForgetListError: If it is not what `write` writes.
            InvalidPredicateError: If a condition cannot be understood.
        """
        if not path.is_file():
            return cls()
        content = yaml_file.read(path) or {}
        if not isinstance(content, dict) or set(content) - {"ids", "where"}:
            raise InvalidForgetListError(path, "expected the keys `ids` and `where`")
        ids, where = content.get("ids") or [], content.get("where") or []
        if not isinstance(ids, list) or not all(isinstance(i, str) and is_id(i) for i in ids):
            raise InvalidForgetListError(path, "expected ids of 32 hexadecimal digits")
        if not isinstance(where, list) or not all(isinstance(text, str) for text in where):
            raise InvalidForgetListError(path, "expected conditions as texts under `where`")
        return cls(frozenset(ids), tuple(map(Predicate.parse, where)))

    def write(self, path: Path) -> None:
        """Write the list, sorted, so that equal lists are equal files."""
        files.write_text(path, self.text())

    def text(self) -> str:
        """Return the text of the file."""
        where = sorted({predicate.text for predicate in self.where})
        return HEAD + yaml_file.dump({"ids": sorted(self.ids), "where": where})

    def with_more(self, ids: Iterable[str] = (), where: Iterable[str] = ()) -> ForgetList:
        """Return a list that forgets these examples as well.

        Args:
            ids: As their user calls them, or hashed as `renate-stages memory --ids` prints them.
            where: Conditions.

        Raises:
            InvalidPredicateError: If a condition cannot be understood.
        """
        hashed = {each if is_id(each) else given_id(each) for each in ids}
        known = {predicate.text for predicate in self.where}
        new = [Predicate.parse(text) for text in where if text not in known]
        return ForgetList(self.ids | hashed, (*self.where, *new))

    def __bool__(self) -> bool:
        return bool(self.ids or self.where)

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block are to be forgotten, bool `(rows,)`.

        Args:
            columns: The block's columns by path, with all that the list needs.
            spec: What they are.
        """
        rows = len(next(iter(columns.values())))
        found = np.zeros(rows, dtype=bool)
        if self.ids:
            ids = columns.get(METADATA + "id")
            if ids is None:  # a store of an old release
                ids = content_ids({path: columns[path] for path in spec.fields}, spec.fields)
            assert isinstance(ids, np.ndarray)
            found |= among(ids, self.ids)
        known = {
            name: column
            for name, path in names(spec).items()
            if isinstance(column := columns.get(path), np.ndarray)
        }
        for predicate in self.where:
            found |= predicate.matches(known, rows)
        return found

    def stored_rows(self, store: ExampleStore) -> np.ndarray:
        """Return which stored rows of a store, dead ones included, are to be forgotten."""
        if store.spec is None or not self:
            return np.zeros(store.offsets[-1], dtype=bool)
        known = names(store.spec)
        needed = {known[name] for each in self.where for name in each.names if name in known}
        if self.ids:
            has_ids = METADATA + "id" in store.spec.metadata
            needed |= {METADATA + "id"} if has_ids else store.spec.fields.keys()
        if not needed:  # conditions on names that this store does not have
            return np.zeros(store.offsets[-1], dtype=bool)
        columns = {path: store.stored_column(path) for path in sorted(needed)}
        return self(columns, store.spec)


def names(spec: ExampleSpec) -> dict[str, str]:
    """Return the paths of what conditions can name."""
    names = {path.removeprefix(METADATA): path for path in spec.metadata}
    targets = spec.fields.get("targets")
    if targets is not None and not targets.shape and not targets.ragged:
        names.setdefault("label", "targets")
    return names
