"""`forget.yaml`: the examples to forget, and to leave out of future updates.

It is in Git and a dependency of every stage that reads examples. It names examples by hashed ids
or by conditions on their metadata, never by content. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.errors import InvalidForgetListError, InvalidPredicateError
from renate_stages.files import yaml_file
from renate_stages.memory import Column, ExampleSpec, ExampleStore
from renate_stages.memory.identity import (
    PREFIX,
    IdSet,
    content_ids,
    id_of,
    printed,
    stored_ids,
    to_array,
)
from renate_stages.memory.predicate import Predicate, Truth
from renate_stages.memory.spec import METADATA

NAME = "forget.yaml"
HEAD = """\
# Examples to forget: `renate-stages forget --ids FILE` or `--where "source == 'eu'"` adds to it.
"""
_ID = re.compile(f"(?:{PREFIX})?[0-9a-f]{{32}}")  # lists of old releases have no prefix
_IDS = re.compile(r"^ids:\n(?=- )", re.MULTILINE)
_END = re.compile(r"\n(?!- )")
NO_IDS = IdSet(np.empty((0, 2), dtype=np.uint64))


@dataclass(frozen=True)
class ForgetList:
    """The examples to forget.

    Args:
        ids: Their ids.
        where: Conditions on metadata; `label` stands for an example's class.
    """

    ids: IdSet = NO_IDS
    where: tuple[Predicate, ...] = ()

    @classmethod
    def read(cls, path: Path) -> ForgetList:
        """Read the list; a missing file is an empty one.

        Raises:
            InvalidForgetListError: If it is not what `write` writes.
            MalformedFileError, ConflictedFileError: If it is not YAML.
            InvalidPredicateError: If a condition cannot be understood.
        """
        if not path.is_file():
            return cls()
        text = yaml_file.text(path)
        plain, text = _taken_out(text)
        content = yaml_file.parse(text, path) or {}
        if not isinstance(content, dict) or set(content) - {"ids", "where"}:
            raise InvalidForgetListError(path, "expected the keys `ids` and `where`")
        ids, where = content.get("ids") or [], content.get("where") or []
        if not isinstance(ids, list) or not all(
            isinstance(i, str) and _ID.fullmatch(i) for i in ids
        ):
            expected = f"expected ids as `{PREFIX}` and 32 hexadecimal digits"
            raise InvalidForgetListError(path, expected)
        if not isinstance(where, list) or not all(isinstance(text, str) for text in where):
            raise InvalidForgetListError(path, "expected conditions as strings under `where`")
        others = (bytes.fromhex(each.removeprefix(PREFIX)) for each in ids)
        return cls(IdSet(to_array([plain, *others])), tuple(map(Predicate.parse, where)))

    def write(self, path: Path) -> None:
        """Write the list, sorted, so that equal lists are equal files."""
        files.write_text(path, self.text())

    def text(self) -> str:
        """Return the text of the file."""
        where = sorted({predicate.text for predicate in self.where})
        ids = "".join(f"- {each}\n" for each in printed(self.ids.array))
        text = f"ids:\n{ids}" if ids else "ids: []\n"
        return HEAD + text + yaml_file.dump({"where": where})

    def with_more(self, ids: Iterable[str] | IdSet = (), where: Iterable[str] = ()) -> ForgetList:
        """Return a list that forgets these examples as well.

        Args:
            ids: As their user calls them, or hashed as `renate-stages memory --ids` prints them.
            where: Conditions.

        Raises:
            InvalidPredicateError: If a condition cannot be understood.
        """
        more = ids if isinstance(ids, IdSet) else IdSet(to_array(map(id_of, ids)))
        known = {predicate.text for predicate in self.where}
        new = [Predicate.parse(text) for text in where if text not in known]
        return ForgetList(self.ids | more, (*self.where, *new))

    def __bool__(self) -> bool:
        return bool(len(self.ids) or self.where)

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block of new examples to leave out, bool `(rows,)`.

        An example that has an id of its own is left out as well if one with its content was
        forgotten that had none.

        Args:
            columns: The block's columns by path, those of metadata included.
            spec: What they are.
        """
        found = self.rows(columns, spec)
        if len(self.ids) and METADATA + "id" in columns:
            examples = {path: columns[path] for path in spec.fields}
            found |= self.ids.among(content_ids(examples, spec.fields))
        return found

    def paths(self, spec: ExampleSpec) -> list[str]:
        """Return the fields of examples that `rows` needs."""
        known = names(spec)
        needed = {known[name] for each in self.where for name in each.names if name in known}
        if len(self.ids):
            path = METADATA + "id"
            needed |= {path} if path in spec.metadata else spec.fields.keys()
        return sorted(needed)

    def rows(
        self, columns: Mapping[str, Column], spec: ExampleSpec, *, lenient: bool = False
    ) -> np.ndarray:
        """Return which rows are to be forgotten, by id, or by content where they have no id.

        Args:
            columns: By path, those that `paths` names at least; of all rows everything is known.
            spec: What they are.
            lenient: Whether a condition that compares a text with numbers is true of no row, as in
                old versions whose metadata was of another type.

        Raises:
            InvalidPredicateError: If there is such a condition.
        """
        rows = len(next(iter(columns.values())))
        found = np.zeros(rows, dtype=bool)
        if len(self.ids):
            ids = columns.get(METADATA + "id")
            if not isinstance(ids, np.ndarray):
                examples = {path: columns[path] for path in spec.fields}
                ids = content_ids(examples, spec.fields)
            found |= self.ids.among(ids)
        known = {
            name: column
            for name, path in names(spec).items()
            if isinstance(column := columns.get(path), np.ndarray)
        }
        for predicate in self.where:
            with suppress(InvalidPredicateError) if lenient else nullcontext():
                found |= predicate.matches(known, rows)
        return found

    def stored_rows(self, store: ExampleStore) -> np.ndarray:
        """Return which stored rows of a store, dead ones included, are to be forgotten."""
        found = np.zeros(store.offsets[-1], dtype=bool)
        if len(self.ids):
            found |= self.ids.among(stored_ids(store))
        for predicate in self.where:
            found |= stored_truth(store, predicate).true
        return found


@dataclass
class CountedForgetList:
    """Leaves out what is to be forgotten, and counts it."""

    listed: ForgetList = field(default_factory=ForgetList)
    rows: int = 0

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block to leave out, bool `(rows,)`."""
        found = self.listed(columns, spec)
        self.rows += int(found.sum())
        return found


def _taken_out(text: str) -> tuple[bytes, str]:
    """Return the ids of a list as `write` writes them, and the text without them.

    A YAML parser would take a minute for a million.
    """
    begin = _IDS.search(text)
    if begin is None:
        return b"", text
    end = _END.search(text, begin.end())
    block = text[begin.end() : end.end() if end else len(text)]
    for head in (f"- {PREFIX}", "- "):
        width = len(head) + 33
        lines, rest = divmod(len(block), width)
        alike = ((place, head[place] * lines) for place in range(len(head)))
        if rest or any(block[place::width] != each for place, each in alike):
            continue
        try:
            ids = bytes.fromhex(block.replace(head, ""))
        except ValueError:
            continue
        if len(ids) == 16 * lines:
            return ids, text[: begin.start()] + text[begin.end() + len(block) :]
    return b"", text


def stored_truth(store: ExampleStore, predicate: Predicate) -> Truth:
    """Return of which stored rows, dead ones included, a condition is certainly true, or false.

    Raises:
        InvalidPredicateError: If it compares a text with numbers, or a name stands for an array.
    """
    paths = {name: path for name, path in names(store.spec).items() if name in predicate.names}
    columns = {name: store.stored_column(path) for name, path in paths.items()}
    beside = {name: path for name, path in paths.items() if path.startswith(METADATA)}
    known = {name: store.stored_known(path) for name, path in beside.items()}
    return predicate.truth(columns, int(store.offsets[-1]), known)


def names(spec: ExampleSpec | None) -> dict[str, str]:
    """Return the paths of what conditions can name."""
    if spec is None:
        return {}
    names = {path.removeprefix(METADATA): path for path in spec.metadata}
    targets = spec.fields.get("targets")
    if targets is not None and not targets.shape and not targets.ragged:
        names.setdefault("label", "targets")
    return names
